"""Reading `WWW-Authenticate`, and the scopes it asks for. Spec: "Authentication", token challenges."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_HEADER = 8192
_SCHEME = re.compile(r"\s*(Bearer|Basic)(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(r'([A-Za-z_-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for. scheme: `bearer` or `basic`."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(headers: Iterable[str]) -> Challenge | None:
    """The Bearer challenge among the `WWW-Authenticate` headers, else the Basic one, else None."""
    found: dict[str, Challenge] = {}
    for header in headers:
        match = _SCHEME.fullmatch(header[:MAX_HEADER])
        if match is None:
            continue
        values: dict[str, str] = {}
        for name, quoted, bare in _PARAMETER.findall(match[2] or ""):
            values.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare)
        scheme = match[1].lower()
        known = {key: values[key] for key in ("realm", "service", "scope") if key in values}
        found.setdefault(scheme, Challenge(scheme, **known))
    return found.get("bearer") or found.get("basic")


def merged_scope(wanted: str, challenged: str) -> str:
    """`wanted` and whatever `challenged` asks beyond it, in that order, actions joined per resource.

    A first challenge may name less than the whole operation needs: asking for all of it at once saves later 401s in
    the middle of big bodies.
    """
    actions: dict[str, list[str]] = {}
    for scope in f"{wanted} {challenged}".split():
        resource, _, listed = scope.rpartition(":")
        mine = actions.setdefault(resource, [])
        mine += [action for action in listed.split(",") if action not in mine]
    return " ".join(f"{resource}:{','.join(listed)}" if resource else listed[0] for resource, listed in actions.items())
