"""What a token is asked for and allows: `repository:<name>:pull,push`. Spec: "Token Scope Documentation"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from auth.errors import RequestRefused

# A token with all of them must still fit the server's limit for one header, 16 380 bytes.
MAX_SCOPES: Final = 32
MAX_TEXT: Final = 6 * 2**10  # characters of all scopes together

ACTIONS: Final = frozenset({"pull", "push", "delete", "*"})
TYPES: Final = frozenset({"repository", "registry"})


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Actions on one named thing; `actions` is sorted and without doubles by construction of `parse` and `of`."""

    type: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def of(cls, type_: str, name: str, actions: Iterable[str]) -> Self:
        return cls(type_, name, tuple(sorted(set(actions))))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """One scope; None if it is of no type or form we know. Unknown actions are dropped.

        The name may hold a port, so the type ends at the first colon and the actions begin at the last.
        """
        type_, colon, rest = text.partition(":")
        name, second, actions = rest.rpartition(":")
        if not colon or not second or not name:
            return None
        kind, bracket, class_ = type_.partition("(")
        if kind not in TYPES or (bracket and not class_.endswith(")")):
            return None
        return cls.of(kind, name, (action for action in actions.split(",") if action in ACTIONS))

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"

    def to_json(self) -> dict[str, object]:
        """As an entry of a token's `access` claim."""
        return {"type": self.type, "name": self.name, "actions": list(self.actions)}

    @classmethod
    def from_json(cls, entry: object) -> Self | None:
        """The inverse of `to_json`; None for anything else."""
        match entry:
            case {"type": str(type_), "name": str(name), "actions": [*actions]}:
                return cls.of(type_, name, (action for action in actions if isinstance(action, str)))
        return None


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes of any number of parameters, each a space-separated list; same names merged, sorted.

    What is no scope is left out: a client asks wide and is granted what there is. Raises RequestRefused when there are
    too many or they are too long.
    """
    merged: dict[tuple[str, str], set[str]] = {}
    count = length = 0
    for text in texts:
        length += len(text)
        count += text.count(" ") + 1
        if length > MAX_TEXT or count > MAX_SCOPES:
            raise RequestRefused("too many scopes", max_scopes=MAX_SCOPES, max_characters=MAX_TEXT)
        for part in text.split(" "):
            if (scope := Scope.parse(part)) is not None:
                merged.setdefault((scope.type, scope.name), set()).update(scope.actions)
    return tuple(sorted(Scope.of(type_, name, actions) for (type_, name), actions in merged.items()))


def format_scopes(scopes: Iterable[Scope]) -> str:
    """Space-separated, as in a challenge."""
    return " ".join(map(str, scopes))
