"""Tool calls as JSON after a tag, wherever the prompt comes from a template that says no more than the tag.

Source: the Ollama API, "Tool calls". A call is the name of a declared tool and a JSON object near it. What never
becomes a call is content, at the latest when the answer ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from runtime.parsing.backlog import Backlog, Wrapping
from runtime.parsing.braces import BraceScanner
from runtime.parsing.calls import MAX_CALL_CHARS, MAX_NAME_CHARS, Gathering, Parsed, new_call
from runtime.parsing.json_text import arguments_of, lenient_json, own_arguments, own_name
from runtime.parsing.markers import MAX_MARKER_CHARS, Markers
from runtime.parsing.names import NameAt, NameFinder

_SLICE_CHARS = 4096  # what is read at once: keeps a long piece as cheap as many short ones
_SLACK_CHARS = 1024  # a name is decided within this much text behind it


class _State(Enum):
    LOOKING = "content, until the tag comes"
    CALLING = "names and arguments; nothing is content before the end"
    DONE = "everything is content"


class ToolSplitter:
    """Feed it content, without reasoning. `tag` is what precedes the calls; `{` and `[` count only at the beginning."""

    def __init__(self, tag: str, names: Sequence[str], max_chars: int = MAX_CALL_CHARS) -> None:
        self._tag = tag[:MAX_MARKER_CHARS] or "{"
        self._is_bare = self._tag in {"{", "["}
        self._markers, self._wrapping = Markers([self._tag]), Wrapping(self._tag)
        self._max_chars = max_chars
        self._state = _State.LOOKING
        self._held = ""
        self._backlog, self._scanner, self._names = Backlog(), BraceScanner(), NameFinder(names)
        self._object_end = -1  # of an object that waits for a name
        self._spilled: list[str] = []  # text that is known to be no call
        self._spilled_chars = 0
        self._calls = 0

    def feed(self, text: str) -> Parsed:
        out = Gathering()
        for start in range(0, len(text), _SLICE_CHARS):
            self._read(text[start : start + _SLICE_CHARS], out)
        return out.parsed()

    def finish(self) -> Parsed:
        out = Gathering()
        if self._state is _State.CALLING:
            self._take_calls("", out, is_end=True)
        if self._state is _State.CALLING:
            self._take_unclosed(out)
            self._give_up(out)
        out.content(self._held)
        self._held, self._state = "", _State.DONE
        return out.parsed()

    def _read(self, piece: str, out: Gathering) -> None:
        if self._state is _State.LOOKING:
            piece = self._look(self._held + piece, out)
        if self._state is _State.CALLING:
            self._take_calls(piece, out)
        elif self._state is _State.DONE:
            out.content(piece)

    def _look(self, text: str, out: Gathering) -> str:
        """Emit what precedes the tag; the rest, from the tag on."""
        match = self._markers.find(text)
        end = match.start() if match is not None else len(text) - self._markers.held(text)
        self._held = ""
        if self._is_bare and text[:end].strip():
            self._state = _State.DONE
            return text
        out.content(text[:end])
        if match is None:
            self._held = text[end:]
            return ""
        self._state = _State.CALLING
        return text[end:]

    def _take_calls(self, piece: str, out: Gathering, *, is_end: bool = False) -> None:
        self._backlog.append(piece)
        self._names.feed(piece)
        unread, at = (piece, 0) if self._object_end < 0 else ("", 0)
        while self._state is _State.CALLING:
            if self._object_end < 0 and self._scanner.scan(unread, at) >= 0:
                self._object_end = self._scanner.position
            if self._is_no_call():
                self._give_up(out)
                break
            name = self._names.found(is_end=is_end)
            if self._object_end < 0 or name is None or (not is_end and self._awaits_name(name)):
                break
            self._settle(name, out)
            unread, at = self._backlog.whole(self._scanner.position)
        if len(self._backlog) > self._max_chars + _SLACK_CHARS:
            self._give_up(out)

    def _awaits_name(self, name: NameAt) -> bool:
        """Whether the text ends with the beginning of a name: as in the reference, no call is told before it goes on.

        Not for longer than there is slack, so that the limit of a call does not depend on what follows it.
        """
        end = self._backlog.end
        if end - max(self._object_end, name.end) > _SLACK_CHARS // 2:
            return False
        return self._names.is_begun(self._backlog.text(max(self._backlog.start, end - MAX_NAME_CHARS), end))

    def _is_no_call(self) -> bool:
        """With `{` and `[`: the first value is complete and calls nothing."""
        if not self._is_bare or self._calls:
            return False
        if self._object_end < 0:
            return self._tag == "[" and self._scanner.is_list_closed
        name = self._names.found()
        if name is not None:
            return name.start >= self._object_end
        return not self._names.has_any(self._backlog.text(self._backlog.start, self._object_end))

    def _settle(self, name: NameAt, out: Gathering) -> None:
        """A name and an object are there: a call, or text."""
        start, end = self._scanner.start, self._object_end
        if max(end, name.end) - self._backlog.start > self._max_chars:
            self._give_up(out)
            return
        gap = self._backlog.text(name.end, start) if name.end <= start else None
        call = self._call_in(self._backlog.text(start, end), name.name, gap)
        if call is None:
            if self._is_bare and not self._calls:
                self._give_up(out)
                return
            self._spill(end)
            self._resume(end, name if name.start >= end else None)
            if self._spilled_chars > self._max_chars:
                self._give_up(out)
            return
        self._emit(call, name, out)

    def _emit(self, call: tuple[str, dict[str, Any]], name: NameAt, out: Gathering) -> None:
        start, end = self._scanner.start, self._object_end
        is_inside = start <= name.start < end
        cut = end if is_inside or name.name != call[0] else max(end, name.end)
        around = [(self._backlog.start, start), (end, cut)]
        if not is_inside and name.name == call[0]:
            first, last = sorted([(start, end), (name.start, name.end)])
            around = [(self._backlog.start, first[0]), (first[1], last[0])]
            if name.end <= start and _is_separator(self._wrapping.peeled(self._backlog.text(name.end, start))):
                around.pop()  # `name: {…}`
        before = "".join(self._spilled)
        for begin, stop in around:
            out.content(self._wrapping.peeled(before + self._backlog.text(begin, stop)))
            before = ""
        self._spilled, self._spilled_chars = [], 0
        out.call(new_call(*call, self._calls))
        self._calls += 1
        self._backlog.release(cut)
        self._resume(cut, None)

    def _spill(self, end: int) -> None:
        text = self._backlog.release(end)
        self._spilled.append(text)
        self._spilled_chars += len(text)

    def _resume(self, position: int, name: NameAt | None) -> None:
        """Go on at `position`; `name` is kept if it was found behind it."""
        self._object_end = -1
        self._scanner = BraceScanner(position)
        if name is None:
            self._names.restart(position)
            self._names.feed(self._backlog.text(position, self._backlog.end))

    def _take_unclosed(self, out: Gathering) -> None:
        """The last object, if all that it lacks is its closing brackets."""
        name = self._names.found(is_end=True)
        if name is None or not self._scanner.depth or self._scanner.is_in_string:
            return
        start, end = self._scanner.start, self._backlog.end
        gap = self._backlog.text(name.end, start) if name.end <= start else None
        call = self._call_in(self._backlog.text(start, end), name.name, gap)
        if call is not None and end - self._backlog.start <= self._max_chars:
            self._object_end = end
            self._emit(call, name, out)

    def _give_up(self, out: Gathering) -> None:
        """All that waits is content: as it came, or without the wrapping of the calls that it stood between."""
        text = "".join(self._spilled) + self._backlog.release(self._backlog.end)
        out.content(self._wrapping.peeled(text) if self._calls else text)
        self._spilled, self._spilled_chars = [], 0
        self._state = _State.DONE

    def _call_in(self, text: str, name: str, gap: str | None) -> tuple[str, dict[str, Any]] | None:
        """The call that an object makes. gap: what stands between a name and the object behind it."""
        try:
            value = lenient_json(text)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        if (own := own_name(value)) is not None:
            called = own if own in self._names.names else self._names.within(own)
            arguments = own_arguments(value)
            if called is not None and arguments is not None:
                return called, arguments
            if gap is None or not _is_separator(self._wrapping.peeled(gap)):
                return None
            return name, value
        return self._nested(value, name) or (name, value)

    def _nested(self, value: dict[str, Any], name: str) -> tuple[str, dict[str, Any]] | None:
        """A call somewhere inside `value`, whose depth JSON from outside has bounded."""
        if name in value:
            try:
                return name, arguments_of(value[name])
            except ValueError:
                pass
        for child in value.values():
            for item in child if isinstance(child, list) else [child]:
                if not isinstance(item, dict):
                    continue
                own, arguments = own_name(item), own_arguments(item)
                if own in self._names.names and own is not None and arguments is not None:
                    return own, arguments
                if (found := self._nested(item, name)) is not None:
                    return found
        return None


def _is_separator(gap: str) -> bool:
    return len(gap) <= 64 and not any(sign.isalnum() for sign in gap)
