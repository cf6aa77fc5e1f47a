"""GET /v1/models and /v1/models/NAME: the stored models as the OpenAI API lists them.

Source: the Ollama API, "GET /v1/models, GET /v1/models/:model".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from flask import Blueprint, Response

from auth.access import Right, current_gate
from registry.models.listing import listed
from registry.services import store
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.openai.errors import refusal
from runtime.api.openai.replies import CONTENT_TYPE, one_object
from runtime.errors import RuntimeFailure
from runtime.summary import summary
from storage.errors import BlobUnknown, ManifestUnknown, NameInvalid, NameUnknown, StorageError
from storage.reference import ModelName

_REMEMBERED: Final = 32_768

bp = Blueprint("openai_models", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.get("/v1/models")
def models() -> Response:
    """The models that /api/tags lists, in its order."""
    data = ",".join(_entry(f"{model}:{row.tag}", row.repository, row.updated_at) for row, model, _ in listed())
    return Response(f'{{"object":"list","data":[{data}]}}\n', content_type=CONTENT_TYPE)


@bp.get("/v1/models/<path:asked>")
def model(asked: str) -> Response:
    """One model, under the name that the client used. Names may have several segments."""
    name = parse_name(asked)
    current_gate().check(Right.READ_MODELS, (name.repository, "pull"))
    pushed_at = _pushed_at(name)
    if pushed_at is None:
        raise Refused(404, f"model '{name.display}' not found")
    owner = _owner(str(name.repository))
    return one_object({"id": asked, "object": "model", "created": int(pushed_at), "owned_by": owner})


def _pushed_at(name: ModelName) -> float | None:
    """When the model came here, in Unix seconds; None where none is here by that name."""
    try:
        manifest = store().repositories.get_manifest(name.repository, name.tag)
        found = summary(store(), name.repository, manifest.digest)
    except (NameUnknown, ManifestUnknown, BlobUnknown, NameInvalid):
        return None
    return manifest.pushed_at if found is not None else None


def _entry(name: str, repository: str, updated_at: float) -> str:
    """One model as JSON text; none of these texts can hold what JSON must escape."""
    owner = _owner(repository)
    return f'{{"id":"{name}","object":"model","created":{int(updated_at)},"owned_by":"{owner}"}}'


@lru_cache(_REMEMBERED)
def _owner(repository: str) -> str:
    """The namespace, which stands before the model's own name, whatever host comes first."""
    return repository.split("/")[-2]
