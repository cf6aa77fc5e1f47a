"""What a template's tree tells about the model: its variables, how it marks tool calls and thinking, where it answers.

Source: the Ollama API, "Template", "Tool calling", "Thinking". Walks keep their own stack: blocks nest without bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from runtime.templates.go import tree
from runtime.templates.go.parser import GO_SPACE

_NO_TAG = "{"


def variables(templates: Mapping[str, tree.Block]) -> frozenset[str]:
    """The names in the field chains and variables of all pipelines, in lower case.

    What is declared only, functions, and all that stands around fields behind parentheses does not count.
    """
    names: set[str] = set()
    for block in templates.values():
        for pipe in _pipes(block):
            names.update(_names(pipe))
    return frozenset(name.lower() for name in names)


def bare_call(templates: Mapping[str, tree.Block]) -> tree.Call | None:
    """A call of a template that is given no data, if there is one."""
    nodes = (node for block in templates.values() for node in _nodes(block))
    return next((node for node in nodes if isinstance(node, tree.Call) and node.pipe is None), None)


def _nodes(block: tree.Block) -> Iterator[tree.Node]:
    """All nodes of `block`, in document order."""
    stack: list[Iterator[tree.Node]] = [iter(block.nodes)]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        yield node
        if isinstance(node, tree.Branch):
            if node.otherwise is not None:
                stack.append(iter(node.otherwise.nodes))
            stack.append(iter(node.body.nodes))


def _pipes(block: tree.Block) -> Iterator[tree.Pipe]:
    for node in _nodes(block):
        pipe = None if isinstance(node, tree.Text | tree.Jump) else node.pipe
        if pipe is not None:
            yield pipe


def _operands(pipe: tree.Pipe) -> Iterator[tree.Operand]:
    """The operands of `pipe` and of the parentheses in it; what fields are taken of is not looked into."""
    for command in pipe.commands:
        for operand in command.operands:
            yield operand
            if isinstance(operand, tree.Pipe):
                yield from _operands(operand)


def _names(pipe: tree.Pipe) -> Iterator[str]:
    for operand in _operands(pipe):
        if isinstance(operand, tree.Field):
            yield from operand.names
        elif isinstance(operand, tree.Variable):
            yield operand.name
            yield from operand.fields


def tool_tag(main: tree.Block) -> str:
    """The text that begins a tool call: the first in the body of the first `if` that asks for .ToolCalls."""
    branch = next((node for node in _nodes(main) if isinstance(node, tree.Branch) and _asks_for_calls(node)), None)
    text = _first_text(branch.body) if branch else ""
    return text.replace("\r\n", "\n").partition("{")[0].strip(GO_SPACE) or _NO_TAG


def _asks_for_calls(branch: tree.Branch) -> bool:
    operands = (operand for command in branch.pipe.commands for operand in command.operands)
    return branch.kind == "if" and any(
        isinstance(operand, tree.Field) and "ToolCalls" in operand.names for operand in operands
    )


def _first_text(block: tree.Block) -> str:
    """The first text that is not only white space; an action, or the end of a branch, ends the search in a block."""
    blocks = [block]
    while blocks:
        decisive = next((node for node in blocks.pop().nodes if _is_decisive(node)), None)
        if isinstance(decisive, tree.Text):
            return decisive.text
        if isinstance(decisive, tree.Branch):
            blocks += [decisive.otherwise] if decisive.otherwise else []
            blocks.append(decisive.body)
    return ""


def _is_decisive(node: tree.Node) -> bool:
    if isinstance(node, tree.Text):
        return bool(node.text.strip(GO_SPACE))
    return isinstance(node, tree.Action | tree.Branch)


def thinking_tags(main: tree.Block) -> tuple[str, str]:
    """The first and the last text around .Thinking in a range over .Messages, trimmed; "" for what is not there."""
    opening = closing = ""
    # each entry: a node still to be looked at, the block around it, and whether the range around it is over messages
    stack: list[tuple[tree.Node, tree.Block, bool]] = _entries(main, False)
    while stack:
        node, block, is_over_messages = stack.pop()
        pipe = None if isinstance(node, tree.Text | tree.Jump) else node.pipe
        if isinstance(node, tree.Branch):
            is_over_messages = _mentions(node.pipe, "Messages") if node.kind == "range" else is_over_messages
            if node.otherwise is not None:
                stack += _entries(node.otherwise, is_over_messages)
            stack += _entries(node.body, is_over_messages)
        if is_over_messages and pipe is not None and _mentions(pipe, "Thinking"):
            first, last = block.nodes[0], block.nodes[-1]
            opening = first.text.strip(GO_SPACE) if isinstance(first, tree.Text) else opening
            closing = last.text.strip(GO_SPACE) if isinstance(last, tree.Text) else closing
    return opening, closing


def _entries(block: tree.Block, is_over_messages: bool) -> list[tuple[tree.Node, tree.Block, bool]]:
    return [(node, block, is_over_messages) for node in reversed(block.nodes)]


def _mentions(pipe: tree.Pipe, name: str) -> bool:
    return any(isinstance(operand, tree.Field) and operand.names[0] == name for operand in _operands(pipe))


def cut(main: tree.Block) -> tree.Block:
    """`main` without all that comes after the first field .Response in document order; the field itself stays."""
    return _Cut().block(main)


@dataclass(slots=True)
class _Level:
    """A block that is being copied. branch: whose body it is, or whose else once the body is known."""

    coming: Iterator[tree.Node]
    branch: tree.Branch | None = None
    body: tree.Block | None = None
    kept: list[tree.Node] = field(default_factory=list)


class _Cut:
    """Copies blocks up to the answer. Conditions and called templates are not searched."""

    def __init__(self) -> None:
        self._is_done = False

    def block(self, main: tree.Block) -> tree.Block:
        levels = [_Level(iter(main.nodes))]
        while True:
            level = levels[-1]
            node = None if self._is_done else next(level.coming, None)
            if isinstance(node, tree.Branch):
                levels.append(_Level(iter(node.body.nodes), node))
            elif isinstance(node, tree.Action):
                pipe = self._pipe(node.pipe)
                level.kept += [tree.Action(pipe)] if pipe else []
            elif node is not None:
                level.kept.append(node)
            elif level.branch is None:
                return tree.Block(tuple(level.kept))
            else:
                self._close(levels, level.branch)

    def _close(self, levels: list[_Level], branch: tree.Branch) -> None:
        """The innermost block is copied: go on with its else, or put the branch into the block around it."""
        level = levels.pop()
        block = tree.Block(tuple(level.kept))
        if level.body is None and branch.otherwise is not None and not self._is_done:
            levels.append(_Level(iter(branch.otherwise.nodes), branch, block))
            return
        body, otherwise = (block, None) if level.body is None else (level.body, block)
        levels[-1].kept.append(tree.Branch(branch.kind, branch.pipe, body, otherwise))

    def _pipe(self, pipe: tree.Pipe) -> tree.Pipe | None:
        """`pipe` up to the answer; None when a later command, or a parenthesis, has nothing left."""
        commands = []
        for command in pipe.commands:
            operands: list[tree.Operand] = []
            for operand in command.operands:
                kept = self._operand(operand)
                operands += [kept] if kept else []
            if not operands:
                return None
            commands.append(tree.Command(tuple(operands)))
        return tree.Pipe(tuple(commands), pipe.variables, pipe.assigns, pipe.line)

    def _operand(self, operand: tree.Operand) -> tree.Operand | None:
        if isinstance(operand, tree.Field) and "Response" in operand.names:
            self._is_done = True  # the same field again, in the same action, stays as well
            return operand
        if self._is_done:
            return None
        return self._pipe(operand) if isinstance(operand, tree.Pipe) else operand
