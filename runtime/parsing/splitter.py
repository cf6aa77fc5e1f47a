"""One machine for every format that puts tags around reasoning and calls; a `Dialect` says which tags, as data.

Source: the Ollama API, "Built-in parsers".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from runtime.parsing.braces import BraceScanner
from runtime.parsing.calls import MAX_CALL_CHARS, Declared, Gathering, Parsed, new_call
from runtime.parsing.errors import CallInvalid
from runtime.parsing.markers import Markers, Trimmed

Call = tuple[str, dict[str, Any]]
Reader = Callable[[str, Declared], Sequence[Call]]  # raises ValueError for what is no call


@dataclass(frozen=True, slots=True)
class Section:
    """Calls between two tags. Without a closing tag they end with the first JSON object.

    keeps_tags: the tags are part of what is read. only_first: counts only where the answer begins with it.
    whole_ends: when the answer ends inside, one of these must be the last thing it said.
    """

    open: str
    close: str
    read: Reader
    keeps_tags: bool = False
    only_first: bool = False
    whole_ends: tuple[str, ...] = ()


class Opening(Enum):
    """Where an answer begins when the prompt does not show it."""

    CONTENT = "the model writes the opening tag itself"
    THINKING = "the prompt opens the thought when thinking is on"
    ALWAYS = "inside a thought, whatever was asked"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one family of models writes.

    named: sections whose opening tags hold the names of declared tools. begins_calls: tags around
    several sections. dropped: other tags that say nothing.
    is_strict: a call that cannot be read is an error. is_closed: so is a call of an undeclared tool.
    """

    thinking: tuple[str, str] | None = None
    sections: tuple[Section, ...] = ()
    named: Callable[[Sequence[str]], tuple[Section, ...]] | None = None
    begins_calls: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()  # further special tokens that must be shown
    opening: Opening = Opening.CONTENT
    thinks_by_default: bool = False
    thinks_anywhere: bool = False
    calls_end_thinking: bool = False
    is_strict: bool = False
    is_closed: bool = False


class _State(Enum):
    CONTENT = "content"
    THINKING = "reasoning"
    CALL = "inside a section"


class TagSplitter:
    """Feed it the whole answer. is_thinking: the answer begins inside a thought."""

    def __init__(
        self, dialect: Dialect, tools: Declared, *, is_thinking: bool = False, max_chars: int = MAX_CALL_CHARS
    ) -> None:
        self._dialect, self._tools, self._max_chars = dialect, tools, max_chars
        sections = (*dialect.sections, *(dialect.named(tools.names) if dialect.named else ()))
        self._sections = {section.open: section for section in sections} if tools.names else {}
        self._opens, self._closes = dialect.thinking or ("", "")
        calls = tuple(self._sections)
        self._dropped = {*dialect.dropped, *dialect.begins_calls}
        self._in_content = Markers((self._opens, *self._dropped, *calls))
        self._in_thinking = Markers((self._opens, self._closes, *(calls if dialect.calls_end_thinking else ())))
        self._state = _State.THINKING if is_thinking and dialect.thinking else _State.CONTENT
        self._thinking, self._content = Trimmed(), Trimmed()
        self._held = ""
        self._section: Section | None = None
        self._closing, self._scanner = Markers(()), BraceScanner()
        self._body: list[str] = []
        self._body_chars = 0
        self._calls = 0
        self._failure: CallInvalid | None = None

    def feed(self, text: str) -> Parsed:
        out = Gathering()
        text, at = self._held + text, 0
        self._held = ""
        while at < len(text) and self._failure is None:
            at = self._call(text, at, out) if self._state is _State.CALL else self._text(text, at, out)
        parsed = out.parsed()
        if self._failure is not None and parsed == Parsed():
            raise self._failure  # what goes before it has been shown
        return parsed

    def finish(self) -> Parsed:
        """What was held; a call that lacks nothing but its closing tag is still a call."""
        out = Gathering()
        held, self._held = self._held, ""
        if self._section is not None:
            ends, body = self._section.whole_ends, "".join(self._body)
            if not ends or body.rstrip().endswith(ends):
                self._end_call(out, "", held)
            else:
                self._put_back(out, held)
        else:
            self._say(held, out)
        if self._failure is not None:
            raise self._failure
        out.thinking(self._thinking.flush())
        out.content(self._content.flush())
        return out.parsed()

    def _text(self, text: str, at: int, out: Gathering) -> int:
        markers = self._in_thinking if self._state is _State.THINKING else self._in_content
        match = markers.find(text, at)
        if match is None:
            end = len(text) - markers.held(text, at)
            self._say(text[at:end], out)
            self._held = text[end:]
            return len(text)
        self._say(text[at : match.start()], out)
        self._tag(match.group(), out)
        return match.end()

    def _say(self, text: str, out: Gathering) -> None:
        if self._state is _State.THINKING:
            out.thinking(self._thinking.push(text))
        else:
            out.content(self._content.push(text))

    def _tag(self, tag: str, out: Gathering) -> None:
        saying = self._thinking if self._state is _State.THINKING else self._content
        if tag in self._sections:
            self._begin_call(self._sections[tag], saying, out)
        elif tag in self._dropped:
            saying.border()
        elif tag == self._closes and self._state is _State.THINKING:
            self._turn(_State.CONTENT)
        elif tag == self._opens and self._state is _State.CONTENT and self._may_think():
            self._turn(_State.THINKING)
        elif tag == self._opens and self._state is _State.THINKING and saying.is_fresh:
            saying.border()  # the prompt opened the thought, and the model once more
        else:
            self._say(tag, out)

    def _may_think(self) -> bool:
        return self._dialect.thinks_anywhere or self._content.is_fresh

    def _turn(self, state: _State) -> None:
        self._thinking.border()
        self._content.border()
        self._state = state

    def _begin_call(self, section: Section, saying: Trimmed, out: Gathering) -> None:
        if section.only_first and not saying.is_fresh:
            self._say(section.open, out)
            return
        if self._state is _State.THINKING:
            self._thinking.border()
        self._state, self._section = _State.CALL, section
        self._body, self._body_chars = [], 0
        self._closing, self._scanner = Markers((section.close,)), BraceScanner()

    def _call(self, text: str, at: int, out: Gathering) -> int:
        """Collect the section's text up to its end; a section that is too long was none."""
        assert self._section is not None
        room = self._max_chars - self._body_chars
        closing = self._closing.find(text, at)
        if not self._section.close:
            end = following = self._scanner.scan(text, at)
            is_closed = end >= 0
        else:
            is_closed = closing is not None
            end, following = closing.span() if closing is not None else (-1, -1)
        if not is_closed:
            end = following = len(text) - self._closing.held(text, at)
        if end - at > room:
            self._body.append(text[at : at + room])
            self._put_back(out, "")
            return at + room
        self._body.append(text[at:end])
        self._body_chars += end - at
        if is_closed:
            self._end_call(out, self._section.close, "")
            return following
        self._held = text[end:]
        return len(text)

    def _end_call(self, out: Gathering, close: str, held: str) -> None:
        """Read the section: calls, or content as it came. held: the beginning of a closing tag that never came."""
        section, body = self._section, "".join(self._body)
        assert section is not None
        try:
            calls = section.read(f"{section.open}{body}{close}" if section.keeps_tags else body, self._tools)
            if not calls:
                raise ValueError("no call")
            self._check_declared(calls)
        except CallInvalid as error:
            self._fail(error)
            return
        except (ValueError, RecursionError) as error:
            if self._dialect.is_strict and close:
                self._fail(CallInvalid(f"error parsing tool call: {error}", raw=body[:1000]))
            else:
                self._put_back(out, close + held)
            return
        self._content.border()
        self._state, self._section = _State.CONTENT, None
        for name, arguments in calls:
            out.call(new_call(name, arguments, self._calls))
            self._calls += 1

    def _check_declared(self, calls: Iterable[Call]) -> None:
        if self._dialect.is_closed:
            for name, _ in calls:
                if name not in self._tools.schemas:
                    raise CallInvalid(f"tool '{name[:200]}' not found")

    def _fail(self, error: CallInvalid) -> None:
        self._failure, self._section, self._state = error, None, _State.CONTENT
        self._content.border()

    def _put_back(self, out: Gathering, rest: str) -> None:
        """The section is content after all."""
        assert self._section is not None
        text = self._section.open + "".join(self._body) + rest
        self._state, self._section = _State.CONTENT, None
        self._say(text, out)
