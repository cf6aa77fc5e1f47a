"""The end of a JSON object in a stream, found in one pass."""

from __future__ import annotations

import re

# as the reference counts: a backslash escapes what follows it inside strings and outside
_SIGNS = re.compile(r'[\\"{}\[\]]')


class BraceScanner:
    """Finds objects whose braces balance, aware of strings; positions are those of the whole stream."""

    def __init__(self, position: int = 0) -> None:
        self.position = position  # the next character to be read
        self.depth = 0
        self.start = -1  # where the object that is open, or was closed last, begins
        self.square_depth = 0  # brackets of lists, counted outside strings
        self.is_list_closed = False  # a list that was open has been closed at least once
        self._in_string = False
        self._escapes = False

    @property
    def is_in_string(self) -> bool:
        return self._in_string

    def scan(self, text: str, at: int) -> int:
        """Read `text[at:]` up to the end of an object: the index behind its last brace, or -1 after all of it."""
        begin = at
        if self._escapes and at < len(text):
            self._escapes, at = False, at + 1
        while (sign := _SIGNS.search(text, at)) is not None:
            at = sign.end()
            if sign.group() == "\\":
                if at == len(text):
                    self._escapes = True
                at += 1
            elif self._closes(sign.group(), self.position + sign.start() - begin):
                self.position += at - begin
                return at
        self.position += len(text) - begin
        return -1

    def _closes(self, sign: str, position: int) -> bool:
        """Take one sign into account; True when it ends an object."""
        if sign == '"':
            self._in_string = not self._in_string
        elif self._in_string:
            return False
        elif sign == "{":
            if self.depth == 0:
                self.start = position
            self.depth += 1
        elif sign == "}":
            if self.depth == 0:
                return False  # closes nothing
            self.depth -= 1
            return self.depth == 0
        else:
            self._count_square(sign)
        return False

    def _count_square(self, sign: str) -> None:
        if sign == "[":
            self.square_depth += 1
        elif self.square_depth:
            self.square_depth -= 1
            self.is_list_closed = self.is_list_closed or self.square_depth == 0
