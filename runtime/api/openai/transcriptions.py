"""POST /v1/audio/transcriptions. Source: the Ollama API, "POST /v1/audio/transcriptions"."""

from __future__ import annotations

from typing import Final, NoReturn

from flask import request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from runtime.api.errors import Refused, not_supported
from runtime.api.requests import Body
from runtime.api.serving import NOT_FOUND, Call, settings

_SUPPORT: Final = '"{}" does not support audio'


def transcriptions() -> NoReturn:
    """Refused, for the first reason that applies: no model can listen here yet."""
    model_name, size = _asked()
    if not model_name.strip():
        raise Refused(400, "model is required")
    if size is None:
        raise Refused(400, "file is required: no such file")
    if size == 0:
        raise Refused(400, "audio file is empty")
    model = Call.of(Body({"model": model_name}), 0).find_model(NOT_FOUND)
    if "audio" not in model.capabilities:
        raise Refused(400, _SUPPORT.format(model_name))
    raise not_supported("audio")


def _asked() -> tuple[str, int | None]:
    """The model's name, and the bytes of the file if there is one. Raises Refused."""
    request.max_content_length = settings().max_body_bytes
    try:
        model_name, file = request.form.get("model", ""), request.files.get("file")
    except RequestEntityTooLarge:
        raise Refused(413, "the request body is too large") from None
    except (HTTPException, OSError):
        raise Refused(400, "the request body broke off") from None
    return model_name, None if file is None else file.stream.seek(0, 2)
