"""What a template consists of, once parsed. Source: Go's text/template documentation, "Actions", "Pipelines".

Nodes are never changed: a template is parsed once and rendered by many threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as Either
from typing import TypeAlias


@dataclass(frozen=True, slots=True, eq=False)
class Dot:
    """The current value."""


@dataclass(frozen=True, slots=True, eq=False)
class Nil:
    """The word nil."""


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A string, number or bool. A value of None is an integer that fits no int: an error when it is used."""

    value: str | bool | int | float | complex | None


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """`.A.B`: fields of the current value."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """`$x.A.B`: a variable and fields of it; the name includes the dollar sign."""

    name: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function by its name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """`(pipeline).A.B`: fields of what an operand evaluates to."""

    operand: Operand
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """Operands between pipe signs; the first may be a function and the others its arguments."""

    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pipe:
    """Commands of which each receives the value of the one before, and the variables that the last value goes to."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...]
    assigns: bool  # `=`, not `:=`
    line: int


Operand: TypeAlias = Dot | Nil | Literal | Field | Variable | Function | Chain | Pipe


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Text outside of actions. `size` in UTF-8 bytes."""

    text: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """`{{ pipeline }}`: prints its value, unless that goes to a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """`if`, `with` or `range`, and its else."""

    kind: Either["if", "with", "range"]
    pipe: Pipe
    body: Block
    otherwise: Block | None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """`template "name" pipeline`; a block is a definition and a call of it."""

    name: str
    pipe: Pipe | None
    line: int


@dataclass(frozen=True, slots=True, eq=False)
class Jump:
    """`break` or `continue`."""

    kind: Either["break", "continue"]


Node: TypeAlias = Text | Action | Branch | Call | Jump


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What is rendered in sequence."""

    nodes: tuple[Node, ...]
