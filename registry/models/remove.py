"""DELETE /api/delete: a model by its name. Source: the Ollama API, "DELETE /api/delete"."""

from __future__ import annotations

from flask import Blueprint, Response

from auth.access import Right, current_gate
from auth.audit import What
from registry.audit import record
from registry.models.names import parse_removable
from registry.models.show import MAX_BODY_BYTES
from registry.models.staging import Staging
from registry.services import store
from runtime.api.errors import Refused
from runtime.api.replies import refusal
from runtime.api.requests import read_body
from runtime.errors import RuntimeFailure
from storage.errors import ManifestUnknown, NameUnknown, StorageError

bp = Blueprint("models_remove", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.delete("/api/delete")
def remove() -> Response:
    """Take the name away, and the manifest if no other name has it; bytes go at the next sweep, or `now`.

    A loaded copy goes on until its time is up. `now` is ours: other servers of this API ignore it.
    """
    body = read_body(MAX_BODY_BYTES)
    asked = body.text("model") or body.text("name")
    if not asked:
        raise Refused(400, "model is required")
    name = parse_removable(asked)
    current_gate().check(Right.MANAGE, (name.repository, "delete"))
    try:
        tag = store().repositories.resolve_tag(name.repository, name.tag)
        digests = store().repositories.remove_model(name.repository, tag)
    except (NameUnknown, ManifestUnknown):
        raise Refused(404, f"model '{asked}' not found") from None
    record(What.DELETE_MODEL, repository=name.repository, reference=tag)
    if body.flag("now", False):
        Staging.of_caller().release(digests)
        store().collector.reclaim(name.repository, digests)
    return Response(status=200)
