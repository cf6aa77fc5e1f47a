"""Who may do what: one pure decision from who asks, from where, for what. No request, no clock, no rows.

| access | reading repositories | writing them | inference | managing models | admin |
|---|---|---|---|---|---|
| keyed, loopback peer | public: all; private: `pull` | `push` | all | all | admin token |
| keyed, any other | the same | the same | token `infer` | rights on the namespace | admin token |
| open | all | all | all | all | all |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from auth.identity import Identity
from auth.scopes import Scope
from storage.errors import NameInvalid
from storage.reference import RepositoryName

Wanted = tuple[RepositoryName, str]
"""An action on a repository: `pull`, `push`, `delete` or `infer`."""

IsPrivate = Callable[[str], bool]
"""Whether a namespace is private; one that does not exist is, so that nobody can tell the difference."""

CATALOG: Final = Scope("registry", "catalog", ("*",))


class Right(StrEnum):
    """What a route asks for."""

    PUBLIC = "public"  # nothing
    PING = "ping"  # any accepted credentials, an anonymous bearer token among them
    LOGIN = "login"  # somebody known
    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    READ_MODELS = "read-models"
    INFER = "infer"
    MANAGE = "manage"
    ADMIN = "admin"


class Mode(StrEnum):
    """TONNAGE_ACCESS."""

    KEYED = "keyed"
    OPEN = "open"


class Decision(Enum):
    ALLOW = auto()
    IDENTIFY = auto()  # other credentials may do
    WIDEN = auto()  # the caller is entitled, the bearer token is too narrow
    REFUSE = auto()  # known, and not entitled


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a request stands, apart from who sends it."""

    mode: Mode
    is_loopback: bool = False


_LOOPBACK_RIGHTS: Final = frozenset({Right.LOGIN, Right.READ_MODELS, Right.INFER, Right.MANAGE})


def decide(
    right: Right, wanted: Sequence[Wanted], identity: Identity, situation: Situation, is_private: IsPrivate
) -> Decision:
    """What to answer a request that needs `right`, and every action of `wanted`.

    Rights on repositories (pull, push, delete) are never given without naming one.
    """
    is_free = right is Right.PUBLIC or situation.mode is Mode.OPEN
    if is_free or (situation.is_loopback and right in _LOOPBACK_RIGHTS):
        return Decision.ALLOW
    match right:
        case Right.PULL | Right.PUSH | Right.DELETE:
            return _on_repositories(wanted, identity, is_private) if wanted else Decision.REFUSE
        case Right.READ_MODELS | Right.MANAGE if wanted:
            return _on_repositories(wanted, identity, is_private, readers_may_infer=right is Right.READ_MODELS)
        case Right.CATALOG:
            return _catalog(identity)
        case Right.INFER if wanted:
            is_allowed = all(_may_infer(name, identity) for name, _ in wanted)
        case _:
            is_allowed = _may_enter(right, identity)
    return Decision.ALLOW if is_allowed else _beyond(identity)


def may(wanted: Wanted, identity: Identity, situation: Situation, is_private: IsPrivate) -> bool:
    """Whether `identity` may do one thing on one repository."""
    return situation.mode is Mode.OPEN or _allows(wanted, identity, is_private)


def grantable(
    scopes: Iterable[Scope], identity: Identity, situation: Situation, is_private: IsPrivate
) -> tuple[Scope, ...]:
    """Of what a token is asked to cover, what `identity` is entitled to; never more, possibly nothing."""
    granted = (_granted(scope, identity, situation, is_private) for scope in scopes)
    return tuple(scope for scope in granted if scope.actions)


def _granted(scope: Scope, identity: Identity, situation: Situation, is_private: IsPrivate) -> Scope:
    if scope.type == "registry":
        has_catalog = scope.name == "catalog" and (situation.mode is Mode.OPEN or identity.is_known)
        return Scope.of(scope.type, scope.name, scope.actions if has_catalog else ())
    try:
        name = RepositoryName.parse(scope.name)
    except NameInvalid:
        return Scope.of(scope.type, scope.name, ())
    asked = ("pull", "push", "delete") if "*" in scope.actions else scope.actions
    return Scope.of(
        scope.type, scope.name, (action for action in asked if may((name, action), identity, situation, is_private))
    )


def _on_repositories(
    wanted: Sequence[Wanted], identity: Identity, is_private: IsPrivate, *, readers_may_infer: bool = False
) -> Decision:
    missing = [
        each
        for each in wanted
        if not _allows(each, identity, is_private) and not (readers_may_infer and _may_infer(each[0], identity))
    ]
    if not missing:
        return Decision.ALLOW
    if all(_is_entitled(each, identity, is_private) for each in missing):
        return Decision.WIDEN
    return _beyond(identity)


def _beyond(identity: Identity) -> Decision:
    """What to say of something that the caller was never granted."""
    return Decision.REFUSE if identity.is_known else Decision.IDENTIFY


def _allows(wanted: Wanted, identity: Identity, is_private: IsPrivate) -> bool:
    name, action = wanted
    if action in identity.actions(name.namespace) and identity.is_within_ceiling("repository", name.text, action):
        return True
    return action == "pull" and not is_private(name.namespace)  # what all may do needs no token to cover it


def _is_entitled(wanted: Wanted, identity: Identity, is_private: IsPrivate) -> bool:
    name, action = wanted
    return action in identity.actions(name.namespace) or (action == "pull" and not is_private(name.namespace))


def _may_infer(name: RepositoryName, identity: Identity) -> bool:
    return identity.ceiling is None and "infer" in identity.actions(name.namespace)


def _may_enter(right: Right, identity: Identity) -> bool:
    """The rights that name no repository."""
    match right:
        case Right.PING:
            return identity.is_known or identity.ceiling is not None
        case Right.LOGIN | Right.READ_MODELS:
            return identity.is_known
        case Right.INFER:
            return identity.ceiling is None and identity.has_anywhere("infer")
        case Right.MANAGE:
            return identity.has_anywhere("push") or identity.has_anywhere("delete")
        case Right.ADMIN:
            return identity.is_admin
        case _:
            return False


def _catalog(identity: Identity) -> Decision:
    if not identity.is_known:
        return Decision.IDENTIFY
    return Decision.ALLOW if identity.is_within_ceiling(CATALOG.type, CATALOG.name, "*") else Decision.WIDEN
