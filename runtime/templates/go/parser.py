"""Tokens → trees, one for each named template. Source: Go's text/template documentation.

Blocks are kept on a stack of our own, so that their nesting costs no recursion; parentheses recurse and are bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal as Either
from typing import NoReturn

from runtime.templates.errors import TemplateInvalid
from runtime.templates.go import literals, tree
from runtime.templates.go.lexer import Kind, Lexer, Token

MAX_BYTES = 1024**2
MAX_PARENTHESES = 100  # each level of them costs the evaluator four levels of Python's stack
MAIN = ""  # the name of the template around the definitions
# white space as Go has it, without the separators U+001C to U+001F that Python adds
GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

_BRANCHES: dict[str, Either["if", "with", "range"]] = {"if": "if", "with": "with", "range": "range"}
_CONSTANTS = (tree.Dot, tree.Nil, tree.Literal)


def parse(text: str, functions: frozenset[str]) -> dict[str, tree.Block]:
    """The trees of `text` by name; the one around the definitions is MAIN. Raises TemplateInvalid."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise TemplateInvalid(f"template error: the template is larger than {MAX_BYTES} bytes")
    return _Parser(Lexer(text).tokens(), functions).parse()


class _Scope:
    """The variables that may be named at a place of one template."""

    def __init__(self) -> None:
        self._names = ["$"]
        self._counts = Counter(self._names)
        self.ranges = 0  # how many bodies of range surround the place

    def __contains__(self, name: str) -> bool:
        return self._counts[name] > 0

    def __len__(self) -> int:
        return len(self._names)

    def declare(self, name: str) -> None:
        self._names.append(name)
        self._counts[name] += 1

    def cut(self, length: int) -> None:
        for name in self._names[length:]:
            self._counts[name] -= 1
        del self._names[length:]


@dataclass(slots=True)
class _Open:
    """A block whose end has not been read."""

    kind: Either["main", "define", "block", "if", "with", "range"]
    line: int
    scope: _Scope
    variables: int = 0  # as many were there before it
    name: str = MAIN
    pipe: tree.Pipe | None = None
    is_chained: bool = False  # it began with `else if`: the end of it is the end of the one around it, too
    body: tree.Block | None = None  # known once its else was read
    nodes: list[tree.Node] = field(default_factory=list)


class _Parser:
    def __init__(self, tokens: list[Token], functions: frozenset[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._functions = functions
        self._parentheses = 0
        self._scope = _Scope()
        self._open = [_Open("main", 1, self._scope)]
        self._trees: dict[str, tree.Block] = {}
        self._controls: dict[str, Callable[[Token], None]] = {
            "block": self._begin_block,
            "break": self._jump,
            "continue": self._jump,
            "define": self._begin_define,
            "else": self._else,
            "end": self._end,
            "if": self._begin_branch,
            "range": self._begin_branch,
            "template": self._call,
            "with": self._begin_branch,
        }

        self._terms: dict[Kind, Callable[[Token], tree.Operand]] = {
            Kind.BOOL: lambda token: tree.Literal(token.text == "true"),
            Kind.CHARACTER: self._number,
            Kind.COMPLEX: self._number,
            Kind.DOT: lambda token: tree.Dot(),
            Kind.FIELD: lambda token: tree.Field((token.text[1:],)),
            Kind.IDENTIFIER: self._function,
            Kind.NIL: lambda token: tree.Nil(),
            Kind.NUMBER: self._number,
            Kind.OPEN: self._parenthesis,
            Kind.RAW: lambda token: tree.Literal(self._string(token)),
            Kind.STRING: lambda token: tree.Literal(self._string(token)),
            Kind.VARIABLE: self._variable,
        }

    def parse(self) -> dict[str, tree.Block]:
        while (token := self._next()).kind is not Kind.END:
            if token.kind is Kind.TEXT:
                size = len(token.text.encode("utf-8", "surrogateescape"))
                self._open[-1].nodes.append(tree.Text(token.text, size))
            else:  # between actions the lexer finds nothing but text and delimiters
                self._action()
        if len(self._open) > 1:
            self._fail(f"unexpected end: {self._open[-1].kind} of line {self._open[-1].line} has no end")
        self._add_tree(MAIN, self._open[0].nodes)
        return self._trees

    # tokens

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _skip_space(self) -> Token:
        """The token after white space, still to be read."""
        while self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1
        return self._tokens[self._at]

    def _next_word(self) -> Token:
        self._skip_space()
        return self._next()

    def _fail(self, problem: str) -> NoReturn:
        line = self._tokens[max(self._at - 1, 0)].line
        raise TemplateInvalid(f"template error: line {line}: {problem}", line=line)

    def _unexpected(self, token: Token, where: str) -> NoReturn:
        shown = token.text if len(token.text) <= 20 else token.text[:20] + "…"
        self._fail(f"unexpected {shown or token.kind.value} in {where}")

    def _expect_right(self, where: str) -> None:
        token = self._next_word()
        if token.kind is not Kind.RIGHT:
            self._unexpected(token, where)

    # actions

    def _action(self) -> None:
        token = self._skip_space()
        if token.kind is Kind.KEYWORD:
            self._at += 1
            self._controls[token.text](token)
        else:
            self._open[-1].nodes.append(tree.Action(self._pipeline("command", Kind.RIGHT)))

    def _begin_branch(self, token: Token, *, is_chained: bool = False) -> None:
        kind = _BRANCHES[token.text]
        variables = len(self._scope)
        pipe = self._pipeline(kind, Kind.RIGHT)
        self._open.append(_Open(kind, token.line, self._scope, variables, pipe=pipe, is_chained=is_chained))
        self._scope.ranges += kind == "range"

    def _begin_define(self, token: Token) -> None:
        if len(self._open) > 1:
            self._unexpected(token, "command")
        name = self._template_name("define clause")
        self._expect_right("define clause")
        self._scope = _Scope()
        self._open.append(_Open("define", token.line, self._scope, name=name))

    def _begin_block(self, token: Token) -> None:
        name = self._template_name("block clause")
        pipe = self._pipeline("block clause", Kind.RIGHT)
        self._scope = _Scope()
        self._open.append(_Open("block", token.line, self._scope, name=name, pipe=pipe))

    def _call(self, token: Token) -> None:
        name = self._template_name("template clause")
        pipe = None
        if self._skip_space().kind is Kind.RIGHT:
            self._at += 1
        else:
            pipe = self._pipeline("template clause", Kind.RIGHT)
        self._open[-1].nodes.append(tree.Call(name, pipe, token.line))

    def _template_name(self, where: str) -> str:
        token = self._next_word()
        if token.kind not in (Kind.STRING, Kind.RAW):
            self._unexpected(token, where)
        return self._string(token)

    def _jump(self, token: Token) -> None:
        kind: Either["break", "continue"] = "break" if token.text == "break" else "continue"
        self._expect_right(kind)
        if not self._scope.ranges:
            self._fail(f"{kind} outside range")
        self._open[-1].nodes.append(tree.Jump(kind))

    def _else(self, token: Token) -> None:
        block = self._open[-1]
        following = self._skip_space()
        chains = following.kind is Kind.KEYWORD and following.text == block.kind and block.kind != "range"
        if not chains:
            self._expect_right("else")
        if block.kind not in ("if", "with", "range") or block.body is not None:
            self._unexpected(token, "input")
        self._scope.ranges -= block.kind == "range"
        block.body, block.nodes = tree.Block(tuple(block.nodes)), []
        if chains:
            self._at += 1
            self._begin_branch(following, is_chained=True)

    def _end(self, token: Token) -> None:
        self._expect_right("end")
        while True:
            if len(self._open) == 1:
                self._unexpected(token, "input")
            block = self._open.pop()
            if block.kind in ("define", "block"):
                self._end_tree(block)
                return
            self._end_branch(block)
            if not block.is_chained:
                return

    def _end_tree(self, block: _Open) -> None:
        self._scope = self._open[-1].scope
        self._add_tree(block.name, block.nodes)
        if block.kind == "block":
            self._open[-1].nodes.append(tree.Call(block.name, block.pipe, block.line))

    def _end_branch(self, block: _Open) -> None:
        assert block.pipe is not None
        assert block.kind in ("if", "with", "range")
        if block.body is None:
            self._scope.ranges -= block.kind == "range"
            body, otherwise = tree.Block(tuple(block.nodes)), None
        else:
            body, otherwise = block.body, tree.Block(tuple(block.nodes))
        self._scope.cut(block.variables)
        self._open[-1].nodes.append(tree.Branch(block.kind, block.pipe, body, otherwise))

    def _add_tree(self, name: str, nodes: list[tree.Node]) -> None:
        known = self._trees.get(name)
        if known is None or _is_empty(known.nodes):
            self._trees[name] = tree.Block(tuple(nodes))
        elif not _is_empty(tuple(nodes)):
            self._fail(f"multiple definition of template {name[:40]!r}")

    # pipelines

    def _pipeline(self, where: str, end: Kind) -> tree.Pipe:
        line = self._skip_space().line
        variables, assigns = self._declarations(where)
        commands: list[tree.Command] = []
        while (token := self._next_word()).kind is not end:
            if token.kind not in self._terms:
                self._unexpected(token, where)
            self._at -= 1
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {where}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.operands[0], _CONSTANTS):
                self._fail(f"non executable command in pipeline stage {stage}")
        return tree.Pipe(tuple(commands), variables, assigns, line)

    def _declarations(self, where: str) -> tuple[tuple[str, ...], bool]:
        """The variables that a pipeline begins with, and whether it assigns to them instead of declaring them."""
        names: list[str] = []
        while (token := self._skip_space()).kind is Kind.VARIABLE:
            start = self._at
            self._at += 1
            following = self._skip_space()
            if following.kind in (Kind.ASSIGN, Kind.DECLARE):
                self._at += 1
                self._scope.declare(token.text)
                return (*names, token.text), following.kind is Kind.ASSIGN
            if following.text != "," or following.kind is not Kind.OTHER:
                self._at = start  # it is an operand
                break
            self._at += 1
            names.append(token.text)
            self._scope.declare(token.text)
            if where != "range" or len(names) > 1:
                self._fail(f"too many declarations in {where}")
            if self._skip_space().kind not in (Kind.VARIABLE, Kind.RIGHT, Kind.CLOSE):
                self._fail("range can only initialize variables")
        return tuple(names), False

    def _command(self) -> tree.Command:
        operands: list[tree.Operand] = []
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.CLOSE):
                self._at -= 1
            elif token.kind is not Kind.PIPE:
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return tree.Command(tuple(operands))

    def _operand(self) -> tree.Operand | None:
        term = self._term()
        if term is None:
            return None
        names: list[str] = []
        while self._tokens[self._at].kind is Kind.FIELD:
            names.append(self._next().text[1:])
        if not names:
            return term
        if isinstance(term, tree.Field):
            return tree.Field((*term.names, *names))
        if isinstance(term, tree.Variable):
            return tree.Variable(term.name, (*term.fields, *names))
        if isinstance(term, _CONSTANTS):
            self._fail("unexpected . after a constant")
        return tree.Chain(term, tuple(names))

    def _term(self) -> tree.Operand | None:
        """An operand without the fields behind it; None, and nothing read, where none begins."""
        token = self._next_word()
        term = self._terms.get(token.kind)
        if term is None:
            self._at -= 1
            return None
        return term(token)

    def _function(self, token: Token) -> tree.Operand:
        if token.text not in self._functions:
            self._fail(f"function {token.text[:40]!r} not defined")
        return tree.Function(token.text)

    def _variable(self, token: Token) -> tree.Operand:
        if token.text not in self._scope:
            self._fail(f"undefined variable {token.text[:40]!r}")
        return tree.Variable(token.text, ())

    def _parenthesis(self, _: Token) -> tree.Operand:
        if self._parentheses >= MAX_PARENTHESES:
            self._fail("parentheses are nested too deeply")
        self._parentheses += 1
        pipe = self._pipeline("parenthesized pipeline", Kind.CLOSE)
        self._parentheses -= 1
        return pipe

    def _string(self, token: Token) -> str:
        try:
            return literals.string(token.text)
        except ValueError:
            self._fail(f"invalid string {token.text[:40]}")

    def _number(self, token: Token) -> tree.Operand:
        read = {Kind.COMPLEX: literals.complex_number, Kind.CHARACTER: literals.character}
        try:
            return tree.Literal(read.get(token.kind, literals.number)(token.text))
        except ValueError as error:
            self._fail(str(error))


def _is_empty(nodes: tuple[tree.Node, ...]) -> bool:
    """Whether a template has nothing but white space: then another definition replaces it."""
    return all(isinstance(node, tree.Text) and not node.text.strip(GO_SPACE) for node in nodes)
