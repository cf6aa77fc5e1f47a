"""POST /api/show: all that is known of one model. Source: the Ollama API, "POST /api/show"."""

from __future__ import annotations

import math
from typing import Any

from flask import Blueprint, Response, request

from auth.access import Right, current_gate
from registry.models.texts import modelfile_text, parameters_text, template_text
from registry.services import store
from runtime.api.durations import local_time
from runtime.api.errors import Refused
from runtime.api.names import NO_CLOUD_DETAILS, parse_name
from runtime.api.replies import one_object, refusal
from runtime.api.requests import Body, read_body
from runtime.api.serving import settings
from runtime.artifact import opened
from runtime.errors import ModelUnusable, RuntimeFailure
from runtime.gguf import Header, read_array, read_header
from runtime.gguf_reader import Span
from runtime.layers import Layer
from runtime.model import Model, load_model
from runtime.summary import summary
from storage.errors import BlobUnknown, KeyUnknown, ManifestUnknown, NameInvalid, NameUnknown, StorageError
from storage.reference import ModelName, RepositoryName

JSON = dict[str, Any]
MAX_BODY_BYTES = 1024**2
MAX_VERBOSE_ELEMENTS = 4 * 1024**2  # of all arrays together: a vocabulary of 262 k with merges and scores has 1.5 Mi
_LENGTHS = ("context_length", "embedding_length")
_HIDDEN = ("general.name", "tokenizer.chat_template")

bp = Blueprint("models_show", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.post("/api/show")
def show() -> Response:
    """Everything but the weights themselves; long arrays only when `verbose`."""
    body = read_body(MAX_BODY_BYTES)
    asked = body.text("model") or body.text("name")
    if not asked:
        raise Refused(400, "model is required")
    name = parse_name(asked, no_cloud=NO_CLOUD_DETAILS)
    current_gate().check(Right.READ_MODELS, (name.repository, "pull"))
    try:
        model = load_model(store(), name, go_templates=settings().go_templates)
    except (NameUnknown, ManifestUnknown, BlobUnknown, KeyUnknown, NameInvalid):
        raise Refused(404, f"model '{name.display}' not found") from None
    except ModelUnusable as error:
        return one_object(_unusable(name, error))
    shown = _texts(model, body) | _facts(model, verbose=body.flag("verbose", False))
    if request.user_agent.string.startswith("GitHubCopilotChat/"):
        shown["model_info"]["general.basename"] = asked  # it tells models apart by this key alone
    return one_object(shown)


def _texts(model: Model, body: Body) -> JSON:
    system = body.text("system") or model.system
    found: JSON = {
        "license": "\n".join(model.licenses),
        "modelfile": modelfile_text(model, system, model.params | (body.mapping("options") or {})),
        "parameters": parameters_text(model.params),
        "template": template_text(model),
        "system": system,
        "messages": list(model.messages),
        "requires": str(model.config.get("requires") or ""),
    }
    return {key: value for key, value in found.items() if value}


def _facts(model: Model, *, verbose: bool) -> JSON:
    repository = model.name.repository
    facts: JSON = {
        "details": {key: value for key, value in model.details.items() if key not in _LENGTHS},
        "model_info": _info(repository, model.weights, model.header, verbose=verbose),
        "tensors": [{"name": each.name, "type": each.type, "shape": list(each.dims)} for each in model.header.tensors],
        "capabilities": model.capabilities,
        "modified_at": local_time(_modified_at(model.name)),
    }
    if model.projectors:
        facts["projector_info"] = _projector_info(repository, model.projectors[0], verbose=verbose)
    return facts


def _unusable(name: ModelName, error: ModelUnusable) -> JSON:
    """What is known of a model that cannot run. `reason` is ours, and old clients ignore it. Raises ModelUnusable."""
    tag = store().repositories.resolve_tag(name.repository, name.tag)
    stored = store().repositories.get_manifest(name.repository, tag)
    found = summary(store(), name.repository, stored.digest)
    if found is None:
        raise error
    return {
        "details": {key: value for key, value in found.details.items() if key not in _LENGTHS},
        "model_info": {},
        "capabilities": found.capabilities,
        "modified_at": local_time(stored.pushed_at),
        **found.remote,
        "reason": str(error),
    }


def _modified_at(name: ModelName) -> float:
    return store().repositories.get_manifest(name.repository, name.tag).pushed_at


def _projector_info(repository: RepositoryName, layer: Layer, *, verbose: bool) -> JSON:
    with opened(store(), repository, layer) as (file, size):
        header = read_header(file, size)
    return _info(repository, layer, header, verbose=verbose)


def _info(repository: RepositoryName, layer: Layer, header: Header, *, verbose: bool) -> JSON:
    """The metadata of a GGUF file; arrays that are not empty read as null unless `verbose`."""
    info: JSON = {}
    spans: dict[str, Span] = {}
    for key, value in header.metadata.items():
        if key in _HIDDEN:
            continue
        info[key] = None if isinstance(value, Span) or (value and isinstance(value, list)) else _finite(value)
        if verbose and isinstance(value, list):
            info[key] = [_finite(item) for item in value]
        if verbose and isinstance(value, Span):
            spans[key] = value
    if spans and sum(span.length for span in spans.values()) <= MAX_VERBOSE_ELEMENTS:
        with opened(store(), repository, layer) as (file, size):
            info |= {key: [_finite(item) for item in read_array(file, size, span)] for key, span in spans.items()}
    return info | {"general.parameter_count": header.parameter_count}


def _finite(value: object) -> object:
    """JSON has no word for what is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
