"""Template text → tokens. Source: Go's text/template documentation, "Text and spaces", "Actions"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from runtime.templates.errors import TemplateInvalid

MAX_TOKENS = 100_000  # templates of models have a few thousand

SPACE = " \t\r\n"
_SPACES = re.compile(r"[ \t\r\n]+")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
_CHARACTER = re.compile(r"'(?:[^'\\\n]|\\[^\n])*'")
_RAW = re.compile(r"`[^`]*`")
_WORD = re.compile(r"\w*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_KEYWORDS = frozenset(["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"])


class Kind(Enum):
    """What a token is; the values are how messages name it."""

    TEXT = "text"
    LEFT = "{{"
    RIGHT = "}}"
    SPACE = "space"
    ASSIGN = "="
    DECLARE = ":="
    PIPE = "|"
    OPEN = "("
    CLOSE = ")"
    STRING = "string"
    RAW = "raw string"
    CHARACTER = "character"
    NUMBER = "number"
    COMPLEX = "complex number"
    BOOL = "bool"
    NIL = "nil"
    DOT = "."
    FIELD = "field"
    VARIABLE = "variable"
    IDENTIFIER = "name"
    KEYWORD = "keyword"
    OTHER = "other character"
    END = "end of the template"


_QUOTES = {
    '"': (_QUOTED, Kind.STRING, "quoted string"),
    "'": (_CHARACTER, Kind.CHARACTER, "character constant"),
    "`": (_RAW, Kind.RAW, "raw quoted string"),
}
_PUNCTUATION = {"=": Kind.ASSIGN, "|": Kind.PIPE, "(": Kind.OPEN, ")": Kind.CLOSE}


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    line: int


class Lexer:
    """Cuts one template into tokens. White space inside actions is a token too: it separates operands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tokens: list[Token] = []
        self._line, self._counted = 1, 0

    def tokens(self) -> list[Token]:
        """All tokens, END last. Raises TemplateInvalid."""
        while True:
            left = self._text.find("{{", self._at)
            if left < 0:
                break
            trims = self._trims_left(left + 2)
            text = self._text[self._at : left]
            self._add(Kind.TEXT, text.rstrip(SPACE) if trims else text)
            inside = left + (4 if trims else 2)
            self._at = left
            if self._text.startswith("/*", inside):
                self._skip_comment(inside)
            else:
                self._add(Kind.LEFT, "{{")
                self._at = inside
                self._lex_action()
        self._add(Kind.TEXT, self._text[self._at :])
        self._at = len(self._text)
        self._add(Kind.END, "")
        return self._tokens

    def _trims_left(self, at: int) -> bool:
        return self._text.startswith("-", at) and self._text[at + 1 : at + 2] in tuple(SPACE)

    def _right(self, at: int) -> int:
        """How long the right delimiter at `at` is, its trim marker included; 0 when there is none."""
        if self._text.startswith("}}", at):
            return 2
        return 4 if self._text[at : at + 1] in tuple(SPACE) and self._text.startswith("-}}", at + 1) else 0

    def _close(self, at: int, length: int) -> None:
        """Go on after the right delimiter at `at`, and after the white space that it trims."""
        self._at = at + length
        spaces = _SPACES.match(self._text, self._at) if length > 2 else None
        if spaces:
            self._at = spaces.end()

    def _skip_comment(self, start: int) -> None:
        end = self._text.find("*/", start + 2)
        if end < 0:
            raise self._refused("unclosed comment")
        length = self._right(end + 2)
        if not length:
            raise self._refused("comment ends before closing delimiter")
        self._close(end + 2, length)

    def _lex_action(self) -> None:
        depth = 0
        while not (length := self._right(self._at)):
            token = self._lex_inside()
            depth += (token is Kind.OPEN) - (token is Kind.CLOSE)
            if depth < 0:
                raise self._refused("unexpected right paren")
        if depth:
            raise self._refused("unclosed left paren")
        self._add(Kind.RIGHT, "}}")
        self._close(self._at, length)

    def _lex_inside(self) -> Kind:
        """One token inside an action, `_at` moved behind it."""
        first = self._text[self._at : self._at + 1]
        second = self._text[self._at + 1 : self._at + 2]
        if first in _PUNCTUATION:
            return self._take(_PUNCTUATION[first], self._at + 1)
        if first == "$" or (first == "." and not "0" <= second <= "9"):
            return self._lex_name(first)
        if first and first in "+-.0123456789":
            return self._lex_number()
        if first and first in _QUOTES:
            return self._lex_quoted(first)
        return self._lex_word() if _is_word(first) else self._lex_other(first)

    def _lex_other(self, first: str) -> Kind:
        if not first:
            raise self._refused("unclosed action")
        if first in SPACE:
            return self._lex_space()
        if first == ":":
            if not self._text.startswith(":=", self._at):
                raise self._refused("expected :=")
            return self._take(Kind.DECLARE, self._at + 2)
        if not " " < first <= "~":
            raise self._refused(f"unrecognized character in action: U+{ord(first):04X}")
        return self._take(Kind.OTHER, self._at + 1)

    def _lex_name(self, first: str) -> Kind:
        end = self._word_end(self._at + 1)
        if first == "$":
            return self._take(Kind.VARIABLE, end)
        return self._take(Kind.DOT if end == self._at + 1 else Kind.FIELD, end)

    def _lex_space(self) -> Kind:
        spaces = _SPACES.match(self._text, self._at)
        assert spaces is not None
        end = spaces.end()
        # the last of them belongs to a trim marker, if one follows
        return self._take(Kind.SPACE, end - 1 if self._text.startswith("-}}", end) else end)

    def _lex_quoted(self, quote: str) -> Kind:
        pattern, kind, what = _QUOTES[quote]
        found = pattern.match(self._text, self._at)
        if not found:
            raise self._refused(f"unterminated {what}")
        return self._take(kind, found.end())

    def _lex_number(self) -> Kind:
        end = self._number_end(self._at)
        if self._text[end : end + 1] not in ("+", "-"):
            return self._take(Kind.NUMBER, end)
        end = self._number_end(end)
        if self._text[end - 1] != "i":
            raise self._refused("bad number syntax")
        return self._take(Kind.COMPLEX, end)

    def _number_end(self, at: int) -> int:
        found = _NUMBER.match(self._text, at)
        assert found is not None
        if _is_word(self._text[found.end() : found.end() + 1]):
            raise self._refused("bad number syntax")
        return found.end()

    def _lex_word(self) -> Kind:
        end = self._word_end(self._at)
        word = self._text[self._at : end]
        if word in _KEYWORDS:
            return self._take(Kind.KEYWORD, end)
        special = {"true": Kind.BOOL, "false": Kind.BOOL, "nil": Kind.NIL}
        return self._take(special.get(word, Kind.IDENTIFIER), end)

    def _word_end(self, at: int) -> int:
        """Where the letters, digits and underscores from `at` on end. What follows must be able to follow a name."""
        found = _WORD.match(self._text, at)
        assert found is not None
        end = found.end()
        if not self._text[at:end].isascii():
            end = next((each for each in range(at, end) if not _is_word(self._text[each])), end)
        following = self._text[end : end + 1]
        if following and following not in " \t\r\n.,|:()" and not self._text.startswith("}}", end):
            raise self._refused(f"bad character U+{ord(following):04X}")
        return end

    def _take(self, kind: Kind, end: int) -> Kind:
        self._add(kind, self._text[self._at : end])
        self._at = end
        return kind

    def _add(self, kind: Kind, text: str) -> None:
        """Append a token that begins at `_at`; empty text is none."""
        if kind is Kind.TEXT and not text:
            return
        if len(self._tokens) >= MAX_TOKENS:
            raise self._refused(f"the template has more than {MAX_TOKENS} parts")
        self._tokens.append(Token(kind, text, self._current_line()))

    def _current_line(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _refused(self, problem: str) -> TemplateInvalid:
        line = self._current_line()
        return TemplateInvalid(f"template error: line {line}: {problem}", line=line)


def _is_word(character: str) -> bool:
    """Whether Go takes it for a letter, a decimal digit or an underscore."""
    return character == "_" or character.isalpha() or character.isdecimal()
