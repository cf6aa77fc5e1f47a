"""What lists may show to somebody, told at once and not name by name: so one query can leave the rest out."""

from __future__ import annotations

from auth.identity import Identity, KeyHolder, TokenHolder
from auth.policy import Mode, Situation
from storage.listing import Readable


def in_catalog(identity: Identity, situation: Situation) -> Readable | None:
    """The repositories that the catalog names: those that `identity` may pull. None is all.

    The ceiling of a bearer token is not applied: a token for the catalog covers no repository by itself.
    """
    return None if situation.mode is Mode.OPEN else _of(_where(identity, "pull"))


def among_models(identity: Identity, situation: Situation) -> Readable | None:
    """The repositories whose models a list shows, as `Right.READ_MODELS` judges one of them. None is all."""
    if situation.mode is Mode.OPEN or situation.is_loopback:
        return None
    if identity.ceiling is not None:
        named = {scope.name for scope in identity.ceiling if scope.type == "repository" and "pull" in scope.actions}
        return Readable(
            repositories=frozenset(name for name in named if "pull" in identity.actions(name.partition("/")[0]))
        )
    pull, infer = _where(identity, "pull"), _where(identity, "infer")
    return _of(None if pull is None or infer is None else pull | infer)


def _of(namespaces: frozenset[str] | None) -> Readable | None:
    return None if namespaces is None else Readable(namespaces)


def _where(identity: Identity, action: str) -> frozenset[str] | None:
    """The namespaces in which `action` was granted; None is every one. An identity of another kind has none."""
    match identity:
        case KeyHolder():
            return frozenset(name for name, role in identity.roles.items() if action in role.actions)
        case TokenHolder() if identity.has_anywhere(action):
            return identity.namespaces
        case _:
            return frozenset()
