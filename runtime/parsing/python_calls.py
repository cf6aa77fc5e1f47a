"""Calls written as Python: `[f(a='x', b=1), g()]`, or one a line. Parsed as literals, never evaluated."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from runtime.parsing.calls import Declared
from runtime.parsing.splitter import Call

MAX_CHARS = 256 * 1024
_MAX_DEPTH = 32
_NAMES = {"true": True, "false": False, "null": None, "none": None}
_TOKEN = re.compile(
    r"""(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
      |(?P<call>[A-Za-z_][\w.-]{0,255}(?=\s*\())
      |(?P<key>[A-Za-z_][\w-]{0,255}(?=\s*=))
      |(?P<word>[A-Za-z]+)
      |(?P<number>-?(?:[0-9][0-9_.]{0,400}(?:[eE][+-]?[0-9]{1,5})?|\.[0-9]{1,400}))
      |(?P<open>[\[({])|(?P<close>[\])}])
      |(?P<sign>[,=:])
      |(?P<line>\n)
      |(?P<space>[ \t\r]+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_VALUES = {"string", "word", "number", "close"}  # no value follows another: that keeps what is parsed flat


def read_python(text: str, _: Declared) -> list[Call]:
    """The calls that `text` is. Raises ValueError for anything else that Python knows."""
    if len(text) > MAX_CHARS:
        raise ValueError("the calls are too long")
    source, names = _plain(text)
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"no Python calls: {type(error).__name__}") from None
    calls: list[Call] = []
    for statement in module.body:
        if not isinstance(statement, ast.Expr):
            raise ValueError("not a call")
        value = statement.value
        items = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        calls += [_call(item, names) for item in items]
    return calls


def _plain(text: str) -> tuple[str, list[str]]:
    """`text` with nothing in it but literals and calls, and the names in it, each replaced by its number.

    Only these tokens reach Python's own parser, and only so deep: it is not made for hostile text. Names are replaced
    because those of tools and arguments need not be Python's; a string may go on in the next line.
    """
    out: list[str] = []
    names: list[str] = []
    depth = at = 0
    before: str | None = None
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError("neither a literal nor a call")
        at, kind, token = match.end(), match.lastgroup, match.group()
        depth += (kind == "open") - (kind == "close")
        if not 0 <= depth <= _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if kind == "space" or (kind == "line" and depth):
            continue
        if before in _VALUES and kind not in {"close", "sign", "line"}:
            raise ValueError("a value follows a value")
        if kind == "word" and token.lower() not in _NAMES:
            raise ValueError("neither a literal nor a call")
        out.append(_written(kind, token, names))
        before = kind
    return "".join(out), names


def _written(kind: str | None, token: str, names: list[str]) -> str:
    if kind in {"call", "key"}:
        names.append(token)
        return f"n{len(names) - 1}"
    if kind == "string":
        return _ESCAPE.sub(_escaped, token).replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\x00")
    return token


def _escaped(match: re.Match[str]) -> str:
    """An escape that Python knows, or the two characters themselves."""
    sign = match.group(1)
    return match.group() if sign in "\\'\"abfnrtvxuU01234567" else "\\n" if sign == "\n" else "\\\\" + sign


def _call(node: ast.expr, names: list[str]) -> Call:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("not a call with named arguments")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        name = names[int(keyword.arg[1:])] if keyword.arg is not None else ""
        if not name or name in arguments:
            raise ValueError("an argument has a name of its own")
        arguments[name] = _literal(keyword.value)
    return names[int(node.func.id[1:])], arguments


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.Name) and node.id.lower() in _NAMES:
        return _NAMES[node.id.lower()]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _literal(node.operand)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    raise ValueError("not a literal")


def _constant(value: object) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # escapes may leave half a pair
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("not a JSON value")


def _key(node: ast.expr | None) -> str:
    value = _literal(node) if node is not None else None
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
