"""Trees and data → text. Source: Go's text/template documentation.

Blocks are walked with a stack of our own: templates that call themselves, and blocks in blocks, cost no recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.templates.errors import TemplateFailed
from runtime.templates.go import tree
from runtime.templates.go.budget import MAX_CALLS, Exhausted, Refused
from runtime.templates.go.functions import FUNCTIONS, Context
from runtime.templates.go.parser import MAIN
from runtime.templates.go.printing import sprint, text_of
from runtime.templates.go.schema import typescript
from runtime.templates.go.values import (
    INVALID,
    Byte,
    Held,
    List,
    Map,
    Struct,
    byte_length,
    canonical,
    readable,
    truth,
    type_name,
)

_NOTHING = object()  # in front of a pipe sign there is nothing yet


def render(templates: Mapping[str, tree.Block], data: object, context: Context, *, missing_is_nil: bool = True) -> str:
    """The text of the template MAIN. Raises TemplateFailed.

    missing_is_nil: a field of a key that a map lacks is an error; otherwise it is missing, too.
    """
    return _Evaluator(templates, context, missing_is_nil).render(data)


class _Scope:
    """The variables of one template; blocks declare and forget them in the order of a stack."""

    def __init__(self, data: object) -> None:
        self._cells: list[tuple[str, list[object]]] = []
        self._named: dict[str, list[list[object]]] = {}
        self.declare("$", data)

    def __len__(self) -> int:
        return len(self._cells)

    def declare(self, name: str, value: object) -> None:
        cell = [value]
        self._cells.append((name, cell))
        self._named.setdefault(name, []).append(cell)

    def value(self, name: str) -> object:
        return self._cell(name)[0]

    def assign(self, name: str, value: object) -> None:
        self._cell(name)[0] = value

    def assign_newest(self, nth: int, value: object) -> None:
        """The value of the nth variable from the end."""
        self._cells[-nth][1][0] = value

    def cut(self, length: int) -> None:
        while len(self._cells) > length:
            name, _ = self._cells.pop()
            self._named[name].pop()

    def _cell(self, name: str) -> list[object]:
        cells = self._named.get(name)
        if not cells:
            raise Refused(f"undefined variable: {name[:40]}")
        return cells[-1]


@dataclass(slots=True)
class _Frame:
    """A block under way. mark: how many variables there were before it. stops_break: a loop, or the else of one."""

    nodes: tuple[tree.Node, ...]
    dot: object
    mark: int = 0
    at: int = 0
    loop: _Loop | None = None
    stops_break: bool = False
    caller: _Scope | None = None  # whose template goes on when this one ends


@dataclass(slots=True)
class _Loop:
    """The elements still to come. mark: how many variables there are before each of them."""

    elements: Iterator[tuple[object, object]]
    pipe: tree.Pipe
    mark: int


class _Evaluator:
    def __init__(self, templates: Mapping[str, tree.Block], context: Context, missing_is_nil: bool) -> None:
        self._templates = templates
        self._context = context
        self._budget = context.budget
        self._missing_is_nil = missing_is_nil
        self._parts: list[str] = []
        self._frames: list[_Frame] = []
        self._scope = _Scope(None)
        self._calls = 0
        self._line = 1
        self._statements: dict[type, Callable[[_Frame, Any], None]] = {
            tree.Text: self._text,
            tree.Action: self._action,
            tree.Branch: self._branch,
            tree.Call: self._call,
            tree.Jump: self._jump,
        }

    def render(self, data: object) -> str:
        try:
            self._scope = _Scope(data)
            self._frames.append(_Frame(self._templates[MAIN].nodes, data))
            self._run()
        except Exhausted as error:
            raise self._failure(str(error), exhausted=True) from None
        except Refused as error:
            raise self._failure(str(error)) from None
        except (RecursionError, MemoryError):
            raise self._failure("the template needs too much memory", exhausted=True) from None
        return readable(canonical("".join(self._parts)))

    def _failure(self, problem: str, **detail: object) -> TemplateFailed:
        return TemplateFailed(f"template error: line {self._line}: {problem}", line=self._line, **detail)

    def _run(self) -> None:
        frames, statements, charge = self._frames, self._statements, self._budget.charge
        while frames:
            frame = frames[-1]
            if frame.at < len(frame.nodes):
                node = frame.nodes[frame.at]
                frame.at += 1
                charge()
                statements[type(node)](frame, node)
            elif frame.loop is None or not self._repeat(frame, frame.loop):
                self._leave()

    def _leave(self) -> None:
        frame = self._frames.pop()
        if frame.caller is not None:
            self._scope = frame.caller
            self._calls -= 1
        else:
            self._scope.cut(frame.mark)

    # statements

    def _print(self, text: str, size: int) -> None:
        self._budget.print(size)
        self._parts.append(text)

    def _text(self, _: _Frame, node: tree.Text) -> None:
        self._print(node.text, node.size)

    def _action(self, frame: _Frame, node: tree.Action) -> None:
        self._line = node.pipe.line
        value = self._pipe(frame.dot, node.pipe)
        if node.pipe.variables:
            return
        text = value if isinstance(value, str) else "<no value>" if value is INVALID else sprint([value], self._budget)
        self._print(text, byte_length(text))

    def _branch(self, frame: _Frame, node: tree.Branch) -> None:
        self._line = node.pipe.line
        mark = len(self._scope)
        value = self._pipe(frame.dot, node.pipe)
        if node.kind == "range":
            elements = self._elements(value, node.pipe)
            loop = _Frame((), frame.dot, mark, loop=_Loop(elements, node.pipe, len(self._scope)), stops_break=True)
            assert loop.loop is not None
            if self._repeat(loop, loop.loop):
                loop.nodes = node.body.nodes
                self._frames.append(loop)
                return
        elif truth(value):
            self._frames.append(_Frame(node.body.nodes, value if node.kind == "with" else frame.dot, mark))
            return
        nodes = node.otherwise.nodes if node.otherwise else ()
        self._frames.append(_Frame(nodes, frame.dot, mark, stops_break=node.kind == "range"))

    def _elements(self, value: object, pipe: tree.Pipe) -> Iterator[tuple[object, object]]:
        """What `range` goes over, with its index or key."""
        if isinstance(value, List):
            return enumerate(value)
        if isinstance(value, Map):
            self._budget.charge(len(value))
            return ((key, value.entries[key]) for key in value.keys)
        if value is INVALID:
            return iter(())
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused(f"range can't iterate over {type_name(value)}")
        if len(pipe.variables) > 1:
            raise Refused("can't use a number to iterate over more than one variable")
        kind = Byte if isinstance(value, Byte) else int
        return ((INVALID, kind(number)) for number in range(value))

    def _repeat(self, frame: _Frame, loop: _Loop) -> bool:
        """Begin the next element of a loop, if there is one."""
        self._scope.cut(loop.mark)
        element = next(loop.elements, None)
        if element is None:
            return False
        self._budget.step()
        key, frame.dot = element
        frame.at = 0
        names = loop.pipe.variables
        if not names:
            return True
        if not loop.pipe.assigns:
            self._scope.assign_newest(1, frame.dot)
            if len(names) > 1:
                self._scope.assign_newest(2, key)
        elif len(names) > 1:
            self._scope.assign(names[0], key)
            self._scope.assign(names[1], frame.dot)
        else:
            self._scope.assign(names[0], frame.dot)
        return True

    def _jump(self, _: _Frame, node: tree.Jump) -> None:
        if node.kind == "break":
            while not self._frames[-1].stops_break:
                self._leave()
            self._leave()
        else:
            while self._frames[-1].loop is None:
                self._leave()
            self._frames[-1].at = len(self._frames[-1].nodes)

    def _call(self, frame: _Frame, node: tree.Call) -> None:
        self._line = node.line
        called = self._templates.get(node.name)
        if called is None:
            raise Refused(f"template {node.name[:40]!r} not defined")
        if self._calls >= MAX_CALLS:
            raise Exhausted(f"templates call each other more than {MAX_CALLS} deep")
        data = INVALID if node.pipe is None else self._pipe(frame.dot, node.pipe)
        self._calls += 1
        self._budget.charge(2)
        self._frames.append(_Frame(called.nodes, data, caller=self._scope))
        self._scope = _Scope(data)

    # expressions

    def _pipe(self, dot: object, pipe: tree.Pipe) -> object:
        value: object = _NOTHING
        for command in pipe.commands:
            self._budget.charge()
            value = self._command(dot, command.operands, value)
            if value is None:
                value = INVALID
            elif type(value) is Held:
                value = int(value)
        for name in pipe.variables:
            if pipe.assigns:
                self._scope.assign(name, value)
            else:
                self._scope.declare(name, value)
        return value

    def _command(self, dot: object, operands: tuple[tree.Operand, ...], final: object) -> object:
        first = operands[0]
        if isinstance(first, tree.Function):
            return self._function(dot, first.name, operands[1:], final)
        has_arguments = len(operands) > 1 or final is not _NOTHING
        if isinstance(first, tree.Nil):
            raise Refused("nil is not a command")
        if has_arguments and (not isinstance(first, tree.Field | tree.Variable | tree.Chain) or _is_bare(first)):
            raise Refused("can't give argument to non-function")
        return self._operand(dot, first, has_arguments)

    def _operand(self, dot: object, operand: tree.Operand, has_arguments: bool = False) -> object:
        value: object = None
        match operand:
            case tree.Field():
                value = self._fields(dot, operand.names, has_arguments)
            case tree.Literal():
                value = operand.value
                if value is None:
                    raise Refused("a constant overflows int")
            case tree.Variable():
                value = self._fields(self._scope.value(operand.name), operand.fields, has_arguments)
            case tree.Pipe():
                value = self._pipe(dot, operand)
            case tree.Chain():
                value = self._fields(self._operand(dot, operand.operand), operand.fields, has_arguments)
            case tree.Function():
                value = self._function(dot, operand.name, (), _NOTHING)
            case tree.Dot():
                value = dot
        return value

    def _fields(self, value: object, names: tuple[str, ...], has_arguments: bool) -> object:
        last = len(names) - 1
        for index, name in enumerate(names):
            if value is INVALID:
                return INVALID
            value = self._field(value, name, has_arguments and index == last)
        return value

    def _field(self, value: object, name: str, has_arguments: bool) -> object:
        if value is None:
            raise Refused(f"nil pointer evaluating interface {{}}.{name[:40]}")
        method = _METHODS.get(name)
        found = method(value, self._context) if method else None
        if found is None and isinstance(value, Struct):
            found = value.fields.get(name, _NOTHING)
        elif found is None and isinstance(value, Map):
            found = value.entries.get(name, value.type.zero if self._missing_is_nil else INVALID)
        elif found is None:
            found = _NOTHING
        if found is _NOTHING:
            raise Refused(f"can't evaluate field {name[:40]} in type {type_name(value)}")
        if has_arguments:
            raise Refused(f"{name[:40]} is not a method but has arguments")
        return found

    def _function(self, dot: object, name: str, operands: tuple[tree.Operand, ...], final: object) -> object:
        function = FUNCTIONS[name]
        given = len(operands) + (final is not _NOTHING)
        if given < function.least or (function.most is not None and given > function.most):
            raise Refused(f"wrong number of args for {name}: got {given}")
        if name in ("and", "or"):
            return self._decide(dot, operands, final, name == "or")
        values = [self._argument(dot, operand) for operand in operands]
        if final is not _NOTHING:
            values.append(None if final is INVALID else final)
        for value in values[: function.texts]:
            if not isinstance(value, str):
                raise Refused(f"wrong type for value of {name}; expected string; got {type_name(value)}")
        self._budget.charge(1 + len(values))
        return function.call(values, self._context)

    def _argument(self, dot: object, operand: tree.Operand) -> object:
        value = self._operand(dot, operand)
        return None if value is INVALID else value

    def _decide(self, dot: object, operands: tuple[tree.Operand, ...], final: object, decisive: bool) -> object:
        """`and`, `or`: the first argument whose truth decides, or the last; those after it are not evaluated."""
        value: object = None
        for operand in operands:
            self._budget.charge()
            value = self._argument(dot, operand)
            if truth(value) is decisive:
                return value
        return value if final is _NOTHING else final


def _is_bare(operand: tree.Field | tree.Variable | tree.Chain) -> bool:
    return isinstance(operand, tree.Variable) and not operand.fields


def _string_method(value: object, context: Context) -> object:
    return text_of(value, context.budget) if isinstance(value, List | Map | Struct) else None


def _typescript_method(value: object, _: Context) -> object:
    return typescript(value) if isinstance(value, Struct) and "AnyOf" in value.fields else None


# the two that the types of a conversation have; a method comes before a key of the same name
_METHODS: dict[str, Callable[[object, Context], object]] = {
    "String": _string_method,
    "ToTypeScriptType": _typescript_method,
}
