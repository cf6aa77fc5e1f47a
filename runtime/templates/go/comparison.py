"""eq, ne, lt, le, gt, ge. Source: Go's text/template documentation, "Functions"."""

from __future__ import annotations

from collections.abc import Callable

from runtime.templates.go.budget import Budget, Refused
from runtime.templates.go.values import INVALID, Blob, List, Map, Struct, encoded, is_nil, type_name

_KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", complex: "complex", str: "string"}
_KINDLESS = ""


def equal(values: list[object], budget: Budget) -> bool:
    """Whether the first equals any of the others. Raises Refused for kinds that cannot be compared."""
    first, others = values[0], values[1:]
    if not others:
        raise Refused("missing argument for comparison")
    return any(_equals(first, other, budget) for other in others)


def less(left: object, right: object, budget: Budget) -> bool:
    kinds = _kind(left), _kind(right)
    if _KINDLESS in kinds or (kinds[0] == kinds[1] and kinds[0] in ("bool", "complex")):
        raise Refused("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise _incompatible(left, right)
    if isinstance(left, str) and isinstance(right, str):
        _read(left, right, budget)
        if left.isascii() and right.isascii():
            return left < right
        budget.read(4 * (len(left) + len(right)))
        return encoded(left) < encoded(right)
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    return left < right


def _less_or_equal(left: object, right: object, budget: Budget) -> bool:
    return less(left, right, budget) or _equals(left, right, budget)


ORDERS: dict[str, Callable[[object, object, Budget], bool]] = {
    "ne": lambda left, right, budget: not _equals(left, right, budget),
    "lt": less,
    "le": _less_or_equal,
    "gt": lambda left, right, budget: not _less_or_equal(left, right, budget),
    "ge": lambda left, right, budget: not less(left, right, budget),
}


def _kind(value: object) -> str:
    return "int" if isinstance(value, int) and type(value) is not bool else _KINDS.get(type(value), _KINDLESS)


def _equals(left: object, right: object, budget: Budget) -> bool:
    budget.charge()
    kind = _kind(left)
    if kind != _kind(right):
        if _is_none(left) or _is_none(right):
            return False
        raise _incompatible(left, right)
    if kind != _KINDLESS:
        if isinstance(left, str) and isinstance(right, str):
            _read(left, right, budget)
        return left == right
    if _shape(left) != _shape(right) and not (_is_none(left) or _is_none(right)):
        raise _incompatible(left, right)
    if is_nil(left) or is_nil(right):
        return is_nil(left) == is_nil(right)
    raise Refused(f"non-comparable type {type_name(right)}")


def _is_none(value: object) -> bool:
    return value is None or value is INVALID


def _shape(value: object) -> str:
    return next((each.__name__ for each in (List, Blob, Map, Struct) if isinstance(value, each)), "")


def _read(left: str, right: str, budget: Budget) -> None:
    budget.read(min(len(left), len(right)))


def _incompatible(left: object, right: object) -> Refused:
    return Refused(f"incompatible types for comparison: {type_name(left)} and {type_name(right)}")
