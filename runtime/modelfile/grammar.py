"""Text to commands, one pass. Source: the Ollama API, "Modelfile", "Grammar"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runtime.errors import ModelfileInvalid

ROLES: Final = ("system", "user", "assistant")
_COMMANDS: Final = ("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter",
                    "message", "requires")  # fmt: skip
_UNKNOWN: Final = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", '
    '"parameter", "message", or "requires"'
)
_BAD_ROLE: Final = 'message role must be one of "system", "user", or "assistant"'
_NO_VALUE: Final = "unexpected EOF"
_BLANKS: Final = " \t"
_LINE_END = re.compile(r"(\r\n|\r|\n)")
_NAME = re.compile(r"([A-Za-z]*)(.?)", re.DOTALL)
_SUBJECT = {"parameter": re.compile(r"[ \t]*([A-Za-z0-9_]*)(.?)", re.DOTALL),
            "message": re.compile(r"[ \t]*([A-Za-z]*)(.?)", re.DOTALL)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """name: in lower case. subject: the name of a PARAMETER, the role of a MESSAGE, else ""."""

    name: str
    subject: str
    value: str
    line: int


def commands(text: str) -> Iterator[Command]:
    """The commands of `text` in their order. Raises ModelfileInvalid."""
    pieces = _LINE_END.split(text)  # line, end, line, end … line
    lines = _Lines(pieces[::2], [*pieces[1::2], ""])
    while (line := lines.take()) is not None:
        start = line.lstrip(_BLANKS)
        if start and not start.startswith("#"):
            yield _command(lines, start)


class _Lines:
    """Lines in their order, and how each one ended; `number` is that of the last one taken."""

    def __init__(self, lines: list[str], ends: list[str]) -> None:
        self._lines, self._ends = lines, ends
        self.number = 0

    def take(self) -> str | None:
        if self.number == len(self._lines):
            return None
        self.number += 1
        return self._lines[self.number - 1]

    @property
    def end(self) -> str:
        """How the last line taken ended: "" at the end of the text."""
        return self._ends[self.number - 1]


def _command(lines: _Lines, start: str) -> Command:
    line = lines.number
    match = _NAME.match(start)
    assert match is not None  # it matches anything
    name, after = match[1].lower(), match[2]
    if not after and not lines.end and name:
        raise ModelfileInvalid(_NO_VALUE, line=line)
    if name not in _COMMANDS or after not in _BLANKS or not after:
        raise ModelfileInvalid(f"(line {line}): {_UNKNOWN}", line=line)
    rest, subject = start[match.end() :], ""
    if name in _SUBJECT:
        subject, rest = _subject(name, rest, line)
    return Command(name, subject, _value(lines, rest), line)


def _subject(name: str, rest: str, line: int) -> tuple[str, str]:
    """The word that a PARAMETER or a MESSAGE is about, and what follows it."""
    match = _SUBJECT[name].match(rest)
    assert match is not None  # it matches anything
    word, after = match[1], match[2]
    if not word or not after or after not in _BLANKS:
        raise ModelfileInvalid(f"{_NO_VALUE}: {word[:200]}", line=line)
    if name == "message" and word not in ROLES:
        raise ModelfileInvalid(f"(line {line}): {_BAD_ROLE}", line=line)
    return word, rest[match.end() :]


def _value(lines: _Lines, rest: str) -> str:
    """What is left of the line, or, after an opening quote, all up to the line that ends with a closing one."""
    text = _printing(rest).lstrip(_BLANKS)
    bare = text.rstrip(_BLANKS)
    if not bare.startswith('"'):
        return bare
    quote = '"""' if bare.startswith('"""') else '"'
    parts, is_open = [text], len(bare) < 2 * len(quote) or not bare.endswith(quote)
    while is_open:
        parts.append(lines.end)
        following = lines.take()
        if following is None:
            raise ModelfileInvalid(_NO_VALUE, line=lines.number)
        parts.append(_printing(following))
        is_open = not parts[-1].rstrip(_BLANKS).endswith(quote)
    return "".join(parts).rstrip(_BLANKS)[len(quote) : -len(quote)]


def _printing(line: str) -> str:
    """`line` without what does not print: the reference drops it, so the layers made of it have the same digest."""
    return line if line.isprintable() else "".join(char for char in line if char == "\t" or char.isprintable())
