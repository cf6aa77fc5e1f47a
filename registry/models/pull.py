"""POST /api/pull: a model of another registry into the store. Source: the Ollama API, "POST /api/pull"."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from auth.access import Right, current_gate
from auth.audit import What
from registry.audit import event, record_all, tag_moves
from registry.mirror.pull import MirrorPull
from registry.models.names import as_stored
from registry.models.progress import told
from registry.models.show import MAX_BODY_BYTES
from registry.remotes.errors import RemoteError
from registry.remotes.places import InsecureProtocol, Place
from registry.remotes.stored_pull import StoredPull
from registry.services import mirroring, mirrors, remotes, store
from runtime.api.disconnect import watcher
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.replies import refusal
from runtime.api.requests import read_body
from runtime.errors import RuntimeFailure
from storage.errors import NameInvalid, StorageError
from storage.repositories import StoredManifest

JSON = dict[str, Any]

bp = Blueprint("models_pull", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.post("/api/pull")
def pull() -> Response:
    """`username` and `password` are ignored, as by the reference: this server has credentials of its own."""
    body = read_body(MAX_BODY_BYTES)
    asked = body.text("model") or body.text("name")
    lines = pull_model(asked, insecure=body.flag("insecure", False), is_gone=watcher(request.environ))
    return told(lines, streams=body.flag("stream", True))


def pull_model(asked: str, *, insecure: bool, is_gone: Callable[[], bool]) -> Generator[JSON, None, None]:
    """The steps of pulling `asked`, the last of them `success`; the work is done as they are taken.

    Within the request it belongs to, whose sender must be allowed to push to the model's repository. Raises Refused and
    AccessDenied at once; from the steps TransferFailed, QueueFull, RequestCancelled and StorageError. is_gone: whether
    nobody waits any more; the transfer stops then, and what has come is kept for a later pull.
    """
    name = parse_name(asked)
    identity = current_gate().check(Right.MANAGE, (name.repository, "push"))
    mirror = mirrors().find(name.repository)
    if mirror is not None:
        slot = remotes().slot(identity.principal)
        return MirrorPull(mirroring(), mirror, store(), as_stored(name), slot=slot, is_gone=is_gone).run()
    place = find(asked, insecure=insecure)
    job = StoredPull(
        remotes(),
        store(),
        place,
        principal=identity.principal,
        may_read=lambda repository: current_gate().may(repository, "pull"),
        may_write=lambda repository: mirrors().find(repository) is None,
        is_gone=is_gone,
        stored=partial(_record, place),
    )
    return job.run()


def find(asked: str, *, insecure: bool) -> Place:
    """What a name points to elsewhere. Raises Refused."""
    name = parse_name(asked)
    try:
        return remotes().place(asked, as_stored(name), insecure=insecure)
    except InsecureProtocol as error:
        raise Refused(500, str(error)) from None
    except (NameInvalid, RemoteError):
        raise Refused(400, "invalid model name") from None


def _record(place: Place, stored: StoredManifest) -> None:
    repository, told_from = place.name.repository, f"{stored.digest} from {place}"
    pulled = event(What.PULL_MODEL, repository=repository, reference=place.name.tag, detail=told_from)
    record_all([pulled, *tag_moves(repository, stored)])
