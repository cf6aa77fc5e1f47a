"""What templates can call. Source: Go's text/template documentation, "Functions"; the Ollama API, "Template".

`and` and `or` are missing here but for their arguments: the evaluator stops at the first that decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from runtime.templates.go import comparison, quoting
from runtime.templates.go.budget import Budget, Refused
from runtime.templates.go.json_form import JSONRefused, json_form
from runtime.templates.go.printf import sprintf
from runtime.templates.go.printing import Printer, sprint
from runtime.templates.go.schema import typescript
from runtime.templates.go.values import (
    Blob,
    Byte,
    Held,
    List,
    Map,
    byte_length,
    decoded,
    encoded,
    truth,
    type_name,
)


@dataclass(frozen=True, slots=True)
class Context:
    """What functions depend on besides their arguments."""

    budget: Budget
    today: date


@dataclass(frozen=True, slots=True)
class Function:
    """most: of arguments, None for any number; texts: as many of the first arguments must be strings."""

    call: Callable[[list[object], Context], object]
    least: int = 1
    most: int | None = 1
    texts: int = 0


def _index(values: list[object], context: Context) -> object:
    value, *indexes = values
    if value is None:
        raise Refused("index of untyped nil")
    for index in indexes:
        if value is None:
            raise Refused("index of nil pointer")
        value = _item(value, index, context.budget)
    return value


def _item(value: object, index: object, budget: Budget) -> object:
    if isinstance(value, Map):
        if not isinstance(index, str):
            raise Refused(f"value has type {type_name(index)}; should be string")
        return value.entries.get(index, value.type.zero)
    if not isinstance(value, str | List | Blob):
        raise Refused(f"can't index item of type {type_name(value)}")
    size = _length(value, budget)
    at = _offset(index, size)
    if at == size:
        raise Refused(f"index out of range: {at}")
    if isinstance(value, List):
        return value[at]
    if isinstance(value, str):
        if not value.isascii():
            budget.read(2 * size)
        return Byte(ord(value[at]) if value.isascii() else encoded(value)[at])
    return Byte(value.data[at])


def _offset(index: object, most: int) -> int:
    if not isinstance(index, int) or isinstance(index, bool):
        raise Refused(f"cannot index slice/array with {'nil' if index is None else 'type ' + type_name(index)}")
    if not 0 <= index <= most:
        raise Refused(f"index out of range: {index}")
    return int(index)


def _slice(values: list[object], context: Context) -> object:
    value, *indexes = values
    if value is None:
        raise Refused("slice of untyped nil")
    if len(indexes) > 3:
        raise Refused(f"too many slice indexes: {len(indexes)}")
    if not isinstance(value, str | List | Blob):
        raise Refused(f"can't slice item of type {type_name(value)}")
    if isinstance(value, str) and len(indexes) == 3:
        raise Refused("cannot 3-index slice a string")
    size = _length(value, context.budget)
    capacity = value.capacity if isinstance(value, List) else size
    if any(isinstance(index, Held) for index in indexes):
        raise Refused("cannot index slice/array with type interface {}")
    offsets = [_offset(index, capacity) for index in indexes]
    start, stop, end = offsets + [0, size, capacity][len(offsets) :]
    if not start <= stop <= end:
        raise Refused(f"invalid slice index: {start}, {stop}, {end}")
    if isinstance(value, List):
        context.budget.charge(2)
        return value.window(start, stop, end)
    context.budget.make(stop - start)
    if isinstance(value, Blob):
        return Blob(value.data[start:stop])
    return value[start:stop] if value.isascii() else decoded(encoded(value)[start:stop])


def _length(value: object, budget: Budget) -> int:
    if isinstance(value, str):
        if not value.isascii():
            budget.read(len(value))
        return byte_length(value)
    if isinstance(value, List | Map):
        return len(value)
    if isinstance(value, Blob):
        return len(value.data)
    raise Refused(f"len of type {type_name(value)}")


def _printf(values: list[object], context: Context) -> object:
    template, *arguments = values
    assert isinstance(template, str)
    return context.budget.made(sprintf(template, arguments, context.budget))


def _println(values: list[object], context: Context) -> object:
    printer = Printer(context.budget)
    for index, value in enumerate(values):
        if index:
            printer.write(" ")
        printer.print(value, "v")
    printer.write("\n")
    return context.budget.made(printer.text())


def _print(values: list[object], context: Context) -> object:
    return context.budget.made(sprint(values, context.budget))


def _escaper(escape: Callable[[str], str]) -> Callable[[list[object], Context], object]:
    """A function that escapes its arguments as they print; a nil prints as in an action."""

    def escaped(values: list[object], context: Context) -> object:
        text = sprint(["<no value>" if value is None else value for value in values], context.budget)
        context.budget.make(8 * len(text))  # of which most is time: character by character
        return context.budget.made(escape(text))

    return escaped


def _equal(values: list[object], context: Context) -> object:
    return comparison.equal(values, context.budget)


def _order(name: str) -> Function:
    compare = comparison.ORDERS[name]
    return Function(lambda values, context: compare(values[0], values[1], context.budget), 2, 2)


def _call(values: list[object], _: Context) -> object:
    raise Refused(f"call of {'nil' if values[0] is None else 'non-function of type ' + type_name(values[0])}")


def _json(values: list[object], context: Context) -> object:
    try:
        return json_form(values[0], context.budget)
    except JSONRefused:
        return ""


def _never(values: list[object], context: Context) -> object:
    raise NotImplementedError("the evaluator stops at the argument that decides")


_ANY_TEXTS = 2**31

FUNCTIONS: dict[str, Function] = {
    "and": Function(_never, 1, None),
    "or": Function(_never, 1, None),
    "not": Function(lambda values, _: not truth(values[0])),
    "call": Function(_call, 1, None),
    "eq": Function(_equal, 1, None),
    "index": Function(_index, 1, None),
    "slice": Function(_slice, 1, None),
    "len": Function(lambda values, context: _length(values[0], context.budget)),
    "print": Function(_print, 0, None),
    "printf": Function(_printf, 1, None, 1),
    "println": Function(_println, 0, None),
    "html": Function(_escaper(quoting.html), 0, None),
    "js": Function(_escaper(quoting.js), 0, None),
    "urlquery": Function(_escaper(quoting.url_query), 0, None),
    "json": Function(_json),
    "currentDate": Function(lambda _, context: context.today.isoformat(), 0, None, _ANY_TEXTS),
    "yesterdayDate": Function(lambda _, context: (context.today - timedelta(days=1)).isoformat(), 0, None, _ANY_TEXTS),
    "toTypeScriptType": Function(lambda values, _: typescript(values[0])),
} | {name: _order(name) for name in comparison.ORDERS}
