"""What the ollama client asks its account for, answered without one.

Source: the Ollama API, "POST /api/me", "POST /api/signout", "/api/experimental/*".
"""

from __future__ import annotations

import json
import uuid
from itertools import islice
from typing import Any, Final

from flask import Blueprint, Response

from auth.access import current_gate
from auth.identity import Identity, TokenHolder
from registry.models.listing import listed
from runtime.api.errors import Refused
from runtime.api.replies import one_object, refusal
from runtime.api.requests import read_raw
from runtime.errors import RuntimeFailure

JSON = dict[str, Any]
_PEOPLE: Final = uuid.UUID("6f4c3f1e-6a43-5d0b-9a2f-3d1f6b0c7e55")  # the same person has the same id on every node
_MOST_BODY: Final = 2**20
_MOST_RECOMMENDED: Final = 10

bp = Blueprint("models_account", __name__)
bp.register_error_handler(RuntimeFailure, refusal)


@bp.post("/api/me")
def me() -> Response:
    """Who asks; `ollama push` goes on only where there is a name, and a 401 would send people to another site."""
    identity = current_gate().identify()
    name = identity.name if isinstance(identity, TokenHolder) else identity.principal
    return one_object({"id": _id_of(identity), "email": "", "name": name, "plan": "free"})


@bp.post("/api/signout")
def sign_out() -> Response:
    """Nobody is signed in to anything but by what each request carries: there is nothing to end."""
    return Response("null", content_type="application/json; charset=utf-8")


@bp.delete("/api/user/keys/<encoded_key>")
def sign_out_key(encoded_key: str) -> Response:
    """The older way to say the same; no key of this server is taken away by it."""
    return sign_out()


@bp.get("/api/experimental/model-recommendations")
def recommendations() -> Response:
    """Of what is stored here, what the caller may see, the newest first."""
    found = islice(listed(), _MOST_RECOMMENDED)
    named = [_recommended(f"{model}:{row.tag}", json.loads(described)) for row, model, described in found]
    return one_object({"recommendations": named})


@bp.post("/api/experimental/web_search")
def web_search() -> Response:
    raise _unavailable("web search")


@bp.post("/api/experimental/web_fetch")
def web_fetch() -> Response:
    raise _unavailable("web fetch")


def _unavailable(what: str) -> Refused:
    if not read_raw(_MOST_BODY).strip():
        return Refused(400, "missing request body")
    return Refused(403, f"ollama cloud is disabled: {what} is unavailable")


def _id_of(identity: Identity) -> str:
    return str(uuid.uuid5(_PEOPLE, identity.principal))


def _recommended(name: str, described: JSON) -> JSON:
    details: JSON = described["details"]
    facts = (details.get(key) for key in ("family", "parameter_size", "quantization_level"))
    length = {key: details[key] for key in ("context_length",) if key in details}
    return {"model": name, "description": ", ".join(str(fact) for fact in facts if fact)} | length
