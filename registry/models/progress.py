"""Long work told line by line, or in one word at its end.

Source: the Ollama API, "Responses, content types, streaming".
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

from flask import Response, stream_with_context

from runtime.api.replies import encode, ndjson

JSON = dict[str, Any]


def told(lines: Generator[JSON, None, None], *, streams: bool) -> Response:
    """`lines` as they come, within the request's context; of all of them only the last where no stream is wanted.

    Whatever ends the answer closes `lines`. Raises what `lines` raises before the first of them is sent.
    """
    if streams:
        kept: Any = stream_with_context(lines)
        return ndjson(kept, kept.close)
    last: JSON = {}
    with closing(lines):
        for line in lines:
            last = line
    return Response(encode(last), content_type="application/json")
