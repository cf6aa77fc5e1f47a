"""The server's HTTP surface as an OpenAPI document: data, one file a face, put together in `document.py`."""
