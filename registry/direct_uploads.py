"""Uploads whose bytes a client sends to the object store itself: each part, or the whole blob at once.

Source: the Ollama registry protocol, "PATCH", "transfer push v2".
"""

from __future__ import annotations

import time
from typing import Final

from flask import Response, request

from registry.body import RequestBody
from registry.services import config, store
from storage.chunks import ChunkRange
from storage.digest import Digest
from storage.errors import UploadBusy
from storage.upload import Upload

_ASKS: Final = "X-Redirect-Uploads"
_PARTS: Final = "1"
_WHOLE: Final = "2"
_SIZE: Final = "X-Content-Length"
_MAX_DIGITS: Final = 18
_PATIENCE_S: Final = 45.0  # below the minute after which proxies give an answer up; the client then asks again


def redirect_part(upload: Upload, chunk: ChunkRange | None, session_url: str) -> Response | None:
    """307 to where this part belongs, with where to ask for the next one; None where it comes to us.

    Sent before the body is read; what the client still sends of it is read away after that, for a moment, since a
    connection that is reset takes the answer with it. Raises ChunkOutOfOrder, UploadUnknown, UploadBusy.
    """
    if chunk is None or request.headers.get(_ASKS) != _PARTS or request.content_length != chunk.size:
        return None
    may_begin = config().s3_direct_upload and upload.offset == 0 == chunk.first
    if not may_begin and not upload.is_direct:
        return None
    address = store().direct.address(upload.id, chunk, may_begin=may_begin)
    if address is None:
        return None
    headers = {"Location": address.url, "Docker-Upload-Location": session_url, "Docker-Upload-UUID": upload.id}
    response = Response(status=307, headers={**headers, "Cache-Control": "no-store", "Content-Length": "0"})
    body = RequestBody()
    response.call_on_close(lambda: body.discard(chunk.size))
    return response


def offer_whole(upload: Upload, digest: Digest, response: Response) -> None:
    """Say in the answer that opens a session where all its bytes may go at once, if the client asks for that."""
    text = request.headers.get(_SIZE, "")
    is_size = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if request.headers.get(_ASKS) != _WHOLE or not is_size or not config().s3_direct_upload:
        return
    address = store().direct.whole_address(upload.id, digest, int(text))
    if address is None:
        return
    response.headers["X-Direct-Upload-URL"] = address.url
    for name, value in address.headers.items():
        response.headers[f"X-Signed-Header-{name}"] = value
    response.headers["Cache-Control"] = "no-store"


def commit(upload: Upload, digest: Digest) -> None:
    """`upload.commit`, also while an earlier request reads the bytes: clients repeat one whose answer takes long.

    Raises what that raises; UploadUnknown once the earlier one is through.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            upload.commit(digest)
            return
        except UploadBusy:
            if not upload.is_direct or time.monotonic() > deadline:
                raise
