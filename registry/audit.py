"""What requests leave in the audit trail; usable inside any of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Final

from flask import Flask, Response, current_app, g, request
from flask.typing import ResponseReturnValue

from auth.access import current_gate
from auth.audit import FREE, AuditTrail, Event, What, who_is
from auth.errors import AuthError, KeyInvalid
from auth.identity import Identity
from auth.keys import PublicKey
from auth.later import Later
from auth.policy import Right
from auth.refused import RefusedKeys
from auth.rights import right_of
from auth.scopes import format_scopes, parse_scopes
from auth.signatures import is_signature_header
from auth.token_requests import unknown_key
from auth.tokens import AccessTokens
from registry.paths import split_path
from storage.db import Database
from storage.digest import Digest
from storage.errors import StorageError
from storage.reference import RepositoryName, Tag
from storage.repositories import StoredManifest

EXTENSION: Final = "tonnage.records"

_TOKEN_RULE: Final = "/v2/token"  # noqa: S105  # a path
_NOTED: Final = "noted_refusal"
_ACTIONS: Final = {Right.PULL: "pull", Right.PUSH: "push", Right.DELETE: "delete"}
_log: Final = logging.getLogger("tonnage.audit")


@dataclass(frozen=True, slots=True)
class Records:
    """Where requests leave their traces, and who writes what nobody waits for."""

    trail: AuditTrail
    refused: RefusedKeys
    later: Later


def install(app: Flask, database: Database, tokens: AccessTokens) -> None:
    """Keep records of this app's requests. Starts nothing before the first of them has something to write."""
    trail, refused = AuditTrail(database), RefusedKeys(database)
    later = Later(database, (trail, refused, tokens.uses))
    tokens.uses.wake = later.wake
    app.extensions[EXTENSION] = Records(trail, refused, later)
    app.after_request(_watch)


def records() -> Records:
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Records)
    return found


def record(
    what: What,
    *,
    namespace: str | None = None,
    repository: RepositoryName | str | None = None,
    reference: object = None,
    detail: str | None = None,
) -> None:
    """Leave one row about the request in hand; who, from where and the request's id are added here.

    A change is written before this returns; what is free to do often, in a moment. Never raises: what has happened
    has happened, and a row that the database did not take waits for its next chance.
    """
    record_all([event(what, namespace=namespace, repository=repository, reference=reference, detail=detail)])


def record_all(events: Iterable[Event]) -> None:
    """The same for several rows, in one transaction."""
    kept, trail = tuple(events), records().trail
    free = [each for each in kept if each.what in FREE]
    for each in free:
        trail.count(each)
    if free:
        records().later.wake()
    changes = [each for each in kept if each.what not in FREE]
    if not changes:
        return
    try:
        trail.write(*changes)
    except StorageError as error:
        _log.warning("audit rows have to wait: %s request_id=%s", error, _request_id())
        trail.keep(*changes)
        records().later.wake()


def event(
    what: What,
    *,
    namespace: str | None = None,
    repository: RepositoryName | str | None = None,
    reference: object = None,
    detail: str | None = None,
    who: str = "",
) -> Event:
    """The row that `record` writes. who: of this request's sender, unless told otherwise."""
    name = None if repository is None else str(repository)
    return Event(
        what,
        who or who_is(current_gate().identify()),
        time.time(),
        namespace=name.partition("/")[0] if name is not None else namespace,
        repository=name,
        reference=None if reference is None else str(reference),
        detail=detail,
        address=current_gate().address(),
        request_id=_request_id(),
    )


def tag_moves(name: RepositoryName, stored: StoredManifest) -> list[Event]:
    """Of a manifest that has just been put: its tags that named another one before."""
    return [
        event(What.TAG_MOVE, repository=name, reference=tag, detail=f"from {old} to {stored.digest}")
        for tag, old in stored.replaced
        if old != stored.digest
    ]


def record_push(name: RepositoryName, reference: Tag | Digest, stored: StoredManifest, tags: list[Tag]) -> None:
    """A manifest that has just been put, and the tags that it took."""
    listed = " ".join(map(str, [stored.digest, *tags]))
    pushed = event(What.PUSH, repository=name, reference=reference, detail=listed)
    record_all([pushed, *tag_moves(name, stored)])


def recorded(
    what: What, handler: Callable[[RepositoryName, str], ResponseReturnValue]
) -> Callable[[RepositoryName, str], ResponseReturnValue]:
    """`handler`, leaving a row when it has not raised."""

    @wraps(handler)
    def recording(name: RepositoryName, reference: str) -> ResponseReturnValue:
        answer = handler(name, reference)
        record(what, repository=name, reference=reference)
        return answer

    return recording


def note(error: AuthError) -> None:
    """Why the request in hand is refused, for its row; called by whoever turns the error into an answer."""
    g.setdefault(_NOTED, error)


def _watch(response: Response) -> Response:
    """Leave a row for an answer that refuses somebody."""
    if response.status_code in (401, 403):
        _refused(response.status_code)
    return response


def _refused(status: int) -> None:
    error, identity = g.get(_NOTED), g.get("identity")
    is_token = request.url_rule is not None and request.url_rule.rule == _TOKEN_RULE
    known = identity if isinstance(identity, Identity) else None
    if status == 401 and not is_token and (known is None or _is_only_challenge(known)):
        return
    reason = str(error) if isinstance(error, AuthError) else "a page or host that may not call this server"
    if known is not None and known.rejected is not None and not is_token:
        reason = known.rejected
    key = _stranger(reason)
    if key is not None:
        records().refused.saw(key, address=current_gate().address(), wanted=_wanted())
    who = f"key:{key.fingerprint}" if key is not None else ("" if known is not None else "anonymous")
    name, reference = _object()
    place = "" if request.url_rule is None else f" {request.url_rule.rule}"
    told = f"{status} {request.method}{place}: {reason}"
    records().trail.count(event(What.REFUSE, repository=name, reference=reference, detail=told, who=who))
    records().later.wake()


def _is_only_challenge(identity: Identity) -> bool:
    """Whether a 401 only tells how to go on: nobody has shown credentials, or a bearer token is to be widened."""
    if not identity.is_known:
        return identity.rejected is None
    if identity.ceiling is None:
        return False
    path = split_path(str((request.view_args or {}).get("rest", "")))
    action = _ACTIONS.get(right_of(request.method, path.kind) or Right.PUBLIC) if path is not None else None
    return path is None or action is None or action in identity.actions(path.name.partition("/")[0])


def _stranger(reason: str) -> PublicKey | None:
    """The key that signed the request as it should, if its being unknown is why the request is refused."""
    authorization = request.headers.get("Authorization", "")
    if not is_signature_header(authorization):
        return None
    try:
        key = PublicKey.from_blob(authorization.partition(":")[0])
    except KeyInvalid:
        return None
    # what auth says of a key only after it has verified the signature
    return key if reason.startswith(unknown_key(key.fingerprint).partition(";")[0]) else None


def _wanted() -> str:
    """What a token was asked to cover first, `<repository>:<actions>`."""
    try:
        scopes = [each for each in parse_scopes(request.args.getlist("scope")) if each.type == "repository"]
    except AuthError:
        return ""
    return format_scopes(scopes[:1]).partition(":")[2]


def _object() -> tuple[str | None, str | None]:
    """The repository and reference that the path names, as they came; of a token request, the repository asked for."""
    path = split_path(str((request.view_args or {}).get("rest", "")))
    if path is not None:
        return path.name, path.reference or None
    return _wanted().rpartition(":")[0] or None, None


def _request_id() -> str:
    return str(g.get("request_id", "-"))
