"""Whether no value fits two schemas: then `oneOf` says the same as `anyOf`, which a grammar can express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

Schema = dict[str, Any] | bool
_MOST_PAIRS = 2_000
_MOST_STEPS = 8  # references and properties followed


def are_disjoint(schemas: Sequence[Schema], definitions: Mapping[str, Schema]) -> bool:
    """True only where it is certain. definitions: targets of `$ref`, by name."""
    if len(schemas) * (len(schemas) - 1) // 2 > _MOST_PAIRS:
        return False
    return all(_apart(left, right, definitions, _MOST_STEPS) for left, right in combinations(schemas, 2))


def _apart(left: Schema, right: Schema, definitions: Mapping[str, Schema], steps: int) -> bool:
    left, right = _resolve(left, definitions), _resolve(right, definitions)
    if left is False or right is False:
        return True
    if isinstance(left, bool) or isinstance(right, bool) or not steps:
        return False
    return (
        _types(left).isdisjoint(_types(right))
        or _have_other_values(left, right)
        or _differ_in_a_property(left, right, definitions, steps - 1)
    )


def _resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """What a schema that is nothing but a reference stands for; True, which promises nothing, where that is unknown."""
    for _ in range(_MOST_STEPS):
        if not isinstance(schema, dict) or set(schema) != {"$ref"}:
            return schema
        schema = definitions.get(schema["$ref"].rsplit("/", 1)[-1], True)  # a definition still being read is unknown
    return True


def _types(schema: dict[str, Any]) -> set[str]:
    """The types that may fit; integers are numbers."""
    named = schema.get("type")
    if named is None:
        literals = _literals(schema)
        return {_type(literal) for literal in literals} if literals is not None else set(_NAMES.values())
    return {"number" if name == "integer" else name for name in (named if isinstance(named, list) else [named])}


_NAMES = {type(None): "null", bool: "boolean", int: "number", str: "string", list: "array", dict: "object"}


def _type(value: Any) -> str:
    return _NAMES.get(type(value), "number")


def _literals(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _have_other_values(left: dict[str, Any], right: dict[str, Any]) -> bool:
    ours, theirs = _literals(left), _literals(right)
    if ours is None or theirs is None or len(ours) * len(theirs) > _MOST_PAIRS:
        return False
    return not any(one == other for one in ours for other in theirs)  # 1 equals true here: rather unsure than wrong


def _differ_in_a_property(
    left: dict[str, Any], right: dict[str, Any], definitions: Mapping[str, Schema], steps: int
) -> bool:
    """Whether both are objects, and a property that both require cannot fit both."""
    if _types(left) != {"object"} or _types(right) != {"object"}:
        return False
    shared = set(left.get("required", ())) & set(right.get("required", ()))
    ours, theirs = left.get("properties", {}), right.get("properties", {})
    return any(_apart(ours[name], theirs[name], definitions, steps) for name in shared & set(ours) & set(theirs))
