"""Calls written as tags around each argument: their values are plain text, typed by the tool's schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.parsing.calls import MAX_NAME_CHARS, Declared
from runtime.parsing.json_calls import read_json
from runtime.parsing.markers import Markers
from runtime.parsing.splitter import Call
from runtime.parsing.typed_values import typed_value

# a closing tag that the model forgot is taken to stand before the next tag, where that begins a line
_PARAMETER = ("<parameter=", Markers(("</parameter>", "\n<parameter=", "\n</function>")), "</parameter>")
_ATEM_PARAMETER = (
    "<atem:parameter name=",
    Markers(("</atem:parameter>", "<atem:parameter name=", "</atem:invoke>")),
    "</atem:parameter>",
)
_KEY_ENDS = Markers(("</arg_key>", "<arg_value>"))
_VALUE_ENDS = Markers(("</arg_value>", "<arg_key>"))


@dataclass(slots=True)
class _Text:
    """Read from left to right; every step moves on or raises ValueError."""

    text: str
    at: int = 0

    def skips(self, token: str) -> bool:
        """Whether `token` comes next, white space aside; it is read if so."""
        start = self.at
        while start < len(self.text) and self.text[start].isspace():
            start += 1
        if not self.text.startswith(token, start):
            return False
        self.at = start + len(token)
        return True

    def until(self, token: str) -> str:
        """What stands before `token`, which is read too."""
        end = self.text.find(token, self.at)
        if end < 0:
            raise ValueError(f"{token} is missing")
        found, self.at = self.text[self.at : end], end + len(token)
        return found

    def before(self, ends: Markers) -> str:
        """What stands before the first of `ends`, which stays unread."""
        match = ends.find(self.text, self.at)
        if match is None:
            raise ValueError("a closing tag is missing")
        found = self.text[self.at : match.start()]
        self.at = match.start()
        return found

    def is_over(self) -> bool:
        return not self.text[self.at :].strip()


def _named(name: str) -> str:
    name = name.strip().strip("\"'")
    if not name or len(name) > MAX_NAME_CHARS or "<" in name:
        raise ValueError("a call has a name")
    return name


def _parameters(source: _Text, style: tuple[str, Markers, str], tools: Declared, name: str) -> dict[str, Any]:
    """The arguments of a call of `name`. style: what opens a parameter, what may end its value, what closes it."""
    opening, ends, closing = style
    arguments: dict[str, Any] = {}
    while source.skips(opening):
        key = _named(source.until(">"))
        value = source.before(ends)
        source.skips(closing)
        arguments[key] = typed_value(value, tools.schema(name, key))
    return arguments


def read_functions(text: str, tools: Declared) -> list[Call]:
    """`<function=NAME><parameter=KEY>value</parameter>…</function>`, once or several times."""
    if text.lstrip().startswith("{"):
        return read_json(text, tools)
    source, calls = _Text(text), list[Call]()
    while source.skips("<function="):
        name = _named(source.until(">"))
        arguments = _parameters(source, _PARAMETER, tools, name)
        if not source.skips("</function>") and not source.is_over():
            raise ValueError("text between parameters")
        calls.append((name, arguments))
    if not source.is_over():
        raise ValueError("text beside the calls")
    return calls


def read_arg_pairs(text: str, tools: Declared) -> list[Call]:
    """`NAME<arg_key>k</arg_key><arg_value>v</arg_value>…`; a closing tag that is missing is put in its place."""
    head, _, _ = text.partition("<arg_key>")
    source, name, arguments = _Text(text, len(head)), _named(head), dict[str, Any]()
    while source.skips("<arg_key>"):
        key = _named(source.before(_KEY_ENDS))
        source.skips("</arg_key>")
        if not source.skips("<arg_value>"):
            raise ValueError("an argument has a value")
        value = source.before(_VALUE_ENDS)
        source.skips("</arg_value>")
        arguments[key] = typed_value(value, tools.schema(name, key))
    if not source.is_over():
        raise ValueError("text between arguments")
    return [(name, arguments)]


def read_invocations(text: str, tools: Declared) -> list[Call]:
    """`<atem:invoke name="…"><atem:parameter name="k">v</atem:parameter>…</atem:invoke>`, in an outer tag or not."""
    source, calls = _Text(text), list[Call]()
    source.skips("<atem:function_calls>")
    while source.skips("<atem:invoke name="):
        name = _named(source.until(">"))
        arguments = _parameters(source, _ATEM_PARAMETER, tools, name)
        if not source.skips("</atem:invoke>"):
            raise ValueError("text between parameters")
        calls.append((name, arguments))
    source.skips("</atem:function_calls>")
    if not source.is_over():
        raise ValueError("text beside the calls")
    return calls
