"""Gemma's calls: `call:NAME{key:value,…}` with bare keys, and a token of their own for quotes."""

from __future__ import annotations

import re
from typing import Any

from runtime.parsing.calls import Declared
from runtime.parsing.json_text import whole_json
from runtime.parsing.splitter import Call, Reader

_MAX_DEPTH = 64
_NAME = re.compile(r"\s*call:\s*([^\s{}]{1,256})\s*\{")
_BARE = re.compile(r"[^,}\]]*")
_KEY = re.compile(r"[^:{}\[\],]{1,256}")
_SPACE = re.compile(r"\s*")
_CLOSES_QUOTE = re.compile(r"\s*[,}\]]")


class _Reader:
    """One call after another. What is missing at the end, a quote or brackets, is taken as written."""

    def __init__(self, text: str, quote: str) -> None:
        self._text, self._quote, self._at = text, quote, 0

    def calls(self) -> list[Call]:
        found: list[Call] = []
        while (match := _NAME.match(self._text, self._at)) is not None:
            self._at = match.end()
            found.append((match.group(1), self._object(1)))
            self._skips(",")
        if not self._is_over():
            raise ValueError("text beside the calls")
        return found

    def _is_over(self) -> bool:
        return _end(_SPACE, self._text, self._at) == len(self._text)

    def _skips(self, token: str) -> bool:
        start = _end(_SPACE, self._text, self._at)
        if not self._text.startswith(token, start):
            return False
        self._at = start + len(token)
        return True

    def _object(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not self._skips("}") and not self._is_over():
            key = self._key()
            values[key] = self._value(depth)
            self._skips(",")
        return values

    def _list(self, depth: int) -> list[Any]:
        values: list[Any] = []
        while not self._skips("]") and not self._is_over():
            values.append(self._value(depth))
            if not self._skips(",") and not self._is_over() and not self._comes("]"):
                raise ValueError("an item ends with a comma or a bracket")
        return values

    def _comes(self, token: str) -> bool:
        return self._text.startswith(token, _end(_SPACE, self._text, self._at))

    def _key(self) -> str:
        for quote in (self._quote, '"', "'"):
            if self._skips(quote):
                key = self._quoted(quote)
                if not self._skips(":"):
                    raise ValueError("a key ends with a colon")
                return key
        match = _KEY.match(self._text, _end(_SPACE, self._text, self._at))
        if match is None or not self._text.startswith(":", match.end()):
            raise ValueError("a key ends with a colon")
        self._at = match.end() + 1
        return match.group().strip()

    def _value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if self._skips(self._quote):
            return self._quoted(self._quote)
        if self._skips("{"):
            return self._object(depth + 1)
        if self._skips("["):
            return self._list(depth + 1)
        for quote in ('"', "'"):
            if self._skips(quote):
                return self._plain_quoted(quote)
        return self._bare()

    def _quoted(self, quote: str) -> str:
        end = self._text.find(quote, self._at)
        if end < 0:  # the quote was forgotten: the text goes on to the call's own brace
            text = self._text[self._at :].rstrip().removesuffix("}")
            self._at = len(self._text)
            return text
        text, self._at = self._text[self._at : end], end + len(quote)
        return text

    def _plain_quoted(self, quote: str) -> str:
        """A string in ordinary quotes; a quote inside it ends it only where a value may end."""
        start = at = self._at
        while (end := self._text.find(quote, at)) >= 0:
            after = end + len(quote)
            if self._text[end - 1] != "\\" and (
                after == len(self._text) or _CLOSES_QUOTE.match(self._text, after) is not None
            ):
                self._at = after
                return _unescaped(self._text[start:end], quote)
            at = after
        raise ValueError("a quote is missing")

    def _bare(self) -> Any:
        end = _end(_BARE, self._text, self._at)
        text, self._at = self._text[self._at : end].strip(), end
        if not text:
            raise ValueError("a value is missing")
        try:
            return whole_json(text)
        except ValueError:
            return text


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _unescaped(text: str, quote: str) -> str:
    if quote == '"':
        try:
            return str(whole_json(f'"{text}"'))
        except ValueError:
            pass
    return text.replace("\\" + quote, quote)


def brace_reader(quote: str) -> Reader:
    """A reader of calls whose strings stand between two `quote` tokens."""

    def read(text: str, _: Declared) -> list[Call]:
        return _Reader(text, quote).calls()

    return read
