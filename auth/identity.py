"""Who asks: nobody in particular, the holder of a key, the holder of an access token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self

from auth.scopes import Scope

ANONYMOUS: Final = "anonymous"


class Role(StrEnum):
    """What a key may do in a namespace; each role includes those before it."""

    PULL = "pull"
    PUSH = "push"
    ADMIN = "admin"

    @property
    def actions(self) -> frozenset[str]:
        return _ACTIONS_OF_ROLE[self]


_ACTIONS_OF_ROLE: Final = {
    Role.PULL: frozenset({"pull"}),
    Role.PUSH: frozenset({"pull", "push"}),
    Role.ADMIN: frozenset({"pull", "push", "delete"}),
}


class TokenScope(StrEnum):
    """What an access token may do."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    INFER = "infer"
    ADMIN = "admin"

    @property
    def actions(self) -> frozenset[str]:
        return _ACTIONS_OF_SCOPE[self]


_ACTIONS_OF_SCOPE: Final = {
    TokenScope.PULL: frozenset({"pull"}),
    TokenScope.PUSH: frozenset({"pull", "push"}),
    TokenScope.DELETE: frozenset({"delete"}),
    TokenScope.INFER: frozenset({"infer"}),
    TokenScope.ADMIN: frozenset({"pull", "push", "delete", "infer"}),
}


@dataclass(frozen=True)
class Identity:
    """Somebody, and what they were granted. This one is nobody.

    ceiling: the scopes of the bearer token through which somebody speaks; None when their own credentials are here.
    rejected: why the credentials that came were not accepted, and the caller therefore counts as nobody.
    """

    ceiling: tuple[Scope, ...] | None = field(default=None, kw_only=True)
    rejected: str | None = field(default=None, kw_only=True)

    @property
    def principal(self) -> str:
        """Who, in rows, tokens and logs; the same each time."""
        return ANONYMOUS

    @property
    def is_known(self) -> bool:
        return False

    @property
    def is_admin(self) -> bool:
        return False

    def actions(self, namespace: str) -> frozenset[str]:
        """What was granted in `namespace`, beyond what everybody may; a bearer token's ceiling is not applied."""
        return frozenset()

    def has_anywhere(self, action: str) -> bool:
        """Whether `action` was granted in at least one namespace."""
        return False

    def under(self, ceiling: tuple[Scope, ...]) -> Self:
        """The same, speaking through a bearer token."""
        return replace(self, ceiling=ceiling)

    def is_within_ceiling(self, scope_type: str, name: str, action: str) -> bool:
        """Whether the bearer token, if there is one, covers `action`."""
        if self.ceiling is None:
            return True
        return any(each.type == scope_type and each.name == name and action in each.actions for each in self.ceiling)


Anonymous = Identity


@dataclass(frozen=True)
class KeyHolder(Identity):
    """Somebody who signed with an ed25519 key that was granted something."""

    fingerprint: str
    roles: Mapping[str, Role]

    @property
    def principal(self) -> str:
        return f"key:{self.fingerprint}"

    @property
    def is_known(self) -> bool:
        return bool(self.roles)

    def actions(self, namespace: str) -> frozenset[str]:
        role = self.roles.get(namespace)
        return role.actions if role is not None else frozenset()

    def has_anywhere(self, action: str) -> bool:
        return any(action in role.actions for role in self.roles.values())


@dataclass(frozen=True)
class TokenHolder(Identity):
    """Somebody who presented an access token. namespaces: None means all of them."""

    token_id: str
    name: str
    scopes: frozenset[TokenScope]
    namespaces: frozenset[str] | None

    @property
    def principal(self) -> str:
        return f"token:{self.token_id}"

    @property
    def is_known(self) -> bool:
        return True

    @property
    def is_admin(self) -> bool:
        return TokenScope.ADMIN in self.scopes and self.namespaces is None and self.ceiling is None

    def actions(self, namespace: str) -> frozenset[str]:
        return self._granted if self.namespaces is None or namespace in self.namespaces else frozenset()

    def has_anywhere(self, action: str) -> bool:
        return action in self._granted and self.namespaces != frozenset()

    @property
    def _granted(self) -> frozenset[str]:
        return frozenset().union(*(scope.actions for scope in self.scopes))
