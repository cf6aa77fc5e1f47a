"""POST /api/push: a model of the store to another registry. Source: the Ollama API, "POST /api/push"."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from auth.access import Right, current_gate
from auth.audit import What
from registry.audit import record
from registry.models.progress import told
from registry.models.pull import find
from registry.models.show import MAX_BODY_BYTES
from registry.remotes.places import Place
from registry.remotes.stored_push import StoredPush
from registry.services import remotes, store
from runtime.api.disconnect import watcher
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.replies import refusal
from runtime.api.requests import read_body
from runtime.errors import RuntimeFailure
from storage.errors import StorageError
from storage.repositories import StoredManifest

JSON = dict[str, Any]

bp = Blueprint("models_push", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.post("/api/push")
def push() -> Response:
    """Under this server's own key; who may send a model out may read it, and change what is in its namespace."""
    body = read_body(MAX_BODY_BYTES)
    asked = body.text("model") or body.text("name")
    if not asked:
        raise Refused(400, "model is required")
    lines = push_model(asked, insecure=body.flag("insecure", False), is_gone=watcher(request.environ))
    return told(lines, streams=body.flag("stream", True))


def push_model(asked: str, *, insecure: bool, is_gone: Callable[[], bool]) -> Generator[JSON, None, None]:
    """The steps of pushing `asked`, the last of them `success`; the work is done as they are taken.

    Raises Refused and AccessDenied at once; from the steps TransferFailed, QueueFull, RequestCancelled, StorageError.
    """
    name = parse_name(asked)
    identity = current_gate().check(Right.MANAGE, (name.repository, "pull"), (name.repository, "push"))
    place = find(asked, insecure=insecure)
    job = StoredPush(
        remotes(),
        store(),
        place,
        principal=identity.principal,
        is_gone=is_gone,
        leaving=partial(_record, place),
    )
    return job.run()


def _record(place: Place, manifest: StoredManifest) -> None:
    name = place.name
    record(What.PUSH_MODEL, repository=name.repository, reference=name.tag, detail=f"{manifest.digest} to {place}")
