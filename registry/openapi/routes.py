"""GET /openapi.json: the description of this server, for programs that read such."""

from __future__ import annotations

from functools import cache

from flask import Blueprint, Response

from registry.openapi.document import document
from runtime.api.replies import encode

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def openapi() -> Response:
    return Response(_text(), content_type="application/json")


@cache
def _text() -> bytes:
    return encode(document())
