"""Answers made of messages with headers: gpt-oss's harmony channels, and Glimmer's recipients.

Source: "OpenAI Harmony Response Format", "Message format" and "Function calling".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from runtime.parsing.calls import MAX_CALL_CHARS, Declared, Gathering, Parsed, new_call
from runtime.parsing.errors import CallInvalid
from runtime.parsing.json_text import arguments_of, lenient_json
from runtime.parsing.markers import Markers, Trimmed
from runtime.parsing.splitter import Call
from runtime.parsing.xml_calls import read_invocations

START, MESSAGE, END, CHANNEL = "<|start|>", "<|message|>", "<|end|>", "<|channel|>"
TOKENS = (START, END, MESSAGE, CHANNEL, "<|constrain|>")
_ENDS = (END, "<|call|>", "<|return|>")
_WORDS = {"assistant", "user", "system", "developer", "tool", "json", "code"}
_MAX_HEADER_CHARS = 4096
_BUILT_IN = {"browser.open", "browser.search", "browser.find", "python"}


class Kind(Enum):
    """What the body of a message is."""

    THINKING = "thinking"
    CONTENT = "content"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a body goes. recipient: the tool that it calls."""

    kind: Kind
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """route: header and the kind before it → where the body goes. read: a recipient's body → calls (ValueError)."""

    route: Callable[[str, Kind], Route]
    read: Callable[[str, str, Declared], Sequence[Call]]
    is_strict: bool = False


def model_names(names: Sequence[str]) -> dict[str, str]:
    """What a harmony model is told a tool is called → the name in the request."""
    known: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in dict.fromkeys(names):
        wanted = name if name in _BUILT_IN else _valid(name)
        candidate = wanted
        while candidate in known:
            counts[wanted] = counts.get(wanted, 1) + 1
            candidate = f"{wanted}_{counts[wanted]}"
        known[candidate] = name
    return known


def _valid(name: str) -> str:
    kept = re.sub(r"[ .-]", "_", name)
    kept = "".join(sign for sign in kept if sign.isalpha() or sign.isdecimal() or sign in "_$")
    if not kept:
        return "unnamed"
    return f"_{kept}" if kept[0] in "0123456789" else kept


def renamed_tools(tools: Sequence[Any]) -> list[Any]:
    """The tools of a request under the names that a harmony model is told."""
    told = {name: shown for shown, name in model_names(Declared.of(tools).names).items()}
    shown: list[Any] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(tool, dict) and isinstance(function, dict) and isinstance(name, str):
            tool = {**tool, "function": {**function, "name": told.get(name, name)}}  # noqa: PLW2901
        shown.append(tool)
    return shown


def _header(text: str) -> tuple[str, list[str]]:
    """A header's channel, and its other words."""
    text = text.replace("<|constrain|>", " <|constrain|>")
    left, _, right = text.partition(CHANNEL)
    channel = (re.match(r"\S*", right) or [""])[0]
    return channel, f"{left} {right[len(channel) :]}".split()


def stray_words(header: str) -> str:
    """What stands in a header and belongs into none: the model forgot to begin a message before it spoke."""
    _, words = _header(header)
    return " ".join(word for word in words if word not in _WORDS and not word.startswith(("to=", "<|constrain|>")))


def harmony_route(header: str, before: Kind) -> Route:
    """The channel and the recipient that a header names."""
    channel, words = _header(header)
    recipient = next((word[3:] for word in words[:2] if word.startswith("to=")), "")
    if recipient and channel in {"analysis", "commentary"}:
        return Route(Kind.CALL, recipient.removeprefix("functions."))
    return Route({"analysis": Kind.THINKING, "commentary": Kind.CONTENT, "final": Kind.CONTENT}.get(channel, before))


def read_harmony(recipient: str, body: str, tools: Declared) -> list[Call]:
    name = model_names(tools.names).get(recipient, recipient)
    return [(name, arguments_of(lenient_json(body)) if body.strip() else {})]


def glimmer_route(header: str, _: Kind) -> Route:
    """`to=self` is reasoning; nobody or the user is told content; anybody else is a tool."""
    recipient = next((word[3:] for word in header.split()[:2] if word.startswith("to=")), "")
    if recipient == "self":
        return Route(Kind.THINKING)
    return Route(Kind.CALL, recipient) if recipient not in {"", "user"} else Route(Kind.CONTENT)


def read_glimmer(_: str, body: str, tools: Declared) -> list[Call]:
    return read_invocations(body, tools)


HARMONY = MessageFormat(harmony_route, read_harmony, is_strict=True)
GLIMMER = MessageFormat(glimmer_route, read_glimmer)


class _State(Enum):
    BETWEEN = "no message is open"
    HEADER = "a header, up to its end"
    BODY = "the body that the header announced"


class MessageSplitter:
    """Feed it the whole answer. primed: how the prompt ends, from the last message that it opens."""

    def __init__(
        self, form: MessageFormat, tools: Declared, primed: str = f"{START}assistant", max_chars: int = MAX_CALL_CHARS
    ) -> None:
        self._format, self._tools, self._max_chars = form, tools, max_chars
        self._markers = {
            _State.BETWEEN: Markers((START, CHANNEL, *_ENDS)),
            _State.HEADER: Markers((START, MESSAGE, *_ENDS)),
            _State.BODY: Markers((START, *_ENDS)),
        }
        self._state, self._route = _State.BETWEEN, Route(Kind.CONTENT)
        self._held, self._calls = "", 0
        self._waiting: list[str] = []  # a header, or the body of a call
        self._waiting_chars = 0
        self._between = Trimmed()
        self._failure: CallInvalid | None = None
        self._primed = ""
        self.feed(primed)  # what the prompt already says is no part of the answer
        self._held = ""
        self._primed = "".join(self._waiting) if self._state is _State.HEADER else ""

    def feed(self, text: str) -> Parsed:
        out = Gathering()
        text, at = self._held + text, 0
        self._held = ""
        while at < len(text) and self._failure is None:
            at = self._step(text, at, out)
        parsed = out.parsed()
        if self._failure is not None and parsed == Parsed():
            raise self._failure  # what goes before it has been shown
        return parsed

    def finish(self) -> Parsed:
        """What was held; a call that has no end tag ends here."""
        out = Gathering()
        held, self._held = self._held, ""
        if self._state is _State.HEADER:
            self._abandon_header(held, out)
        elif self._state is _State.BODY and self._route.kind is Kind.CALL:
            self._waiting.append(held)
            self._end_body(out)
        elif self._state is _State.BETWEEN:
            out.content(self._between.push(held))
        else:
            self._say(held, out)
        if self._failure is not None:
            raise self._failure
        out.content(self._between.flush())
        return out.parsed()

    def _step(self, text: str, at: int, out: Gathering) -> int:
        markers = self._markers[self._state]
        match = markers.find(text, at)
        end = match.start() if match is not None else len(text) - markers.held(text, at)
        cut = self._collect(text, at, end, out)
        if cut < end:
            return cut
        if match is None:
            self._held = text[end:]
            return len(text)
        self._tag(match.group(), out)
        return match.end()

    def _collect(self, text: str, at: int, end: int, out: Gathering) -> int:
        """Take the text of the state that it stands in, up to the bound of what is held: how far that was."""
        if self._state is _State.BODY and self._route.kind is not Kind.CALL:
            self._say(text[at:end], out)
            return end
        if self._state is _State.BETWEEN:
            out.content(self._between.push(text[at:end]))
            return end
        most = _MAX_HEADER_CHARS if self._state is _State.HEADER else self._max_chars
        cut = min(end, at + most - self._waiting_chars)
        self._waiting.append(text[at:cut])
        self._waiting_chars += cut - at
        if cut < end:
            if self._state is _State.HEADER:
                self._abandon_header("", out)
                self._state, self._route = _State.BODY, Route(Kind.CONTENT)
            else:
                out.content("".join(self._take()))
                self._route = Route(Kind.CONTENT)
        return cut

    def _tag(self, tag: str, out: Gathering) -> None:
        if self._state is _State.HEADER:
            if tag == MESSAGE:
                header = "".join(self._take())
                out.content(stray_words(header))
                self._route = self._format.route(header, self._route.kind)
                if self._route.kind is Kind.CALL and not self._tools.names:
                    self._route = Route(Kind.CONTENT)  # the client could not answer
                self._state = _State.BODY
                return
            self._abandon_header("", out)
        elif self._state is _State.BODY:
            self._end_body(out)
        if tag != START or self._route.kind is Kind.CALL:
            self._route = Route(Kind.CONTENT)
        self._between.border()
        self._state = _State.BETWEEN
        if tag in {START, CHANNEL}:
            self._state, self._primed = _State.HEADER, ""
        if tag == CHANNEL:
            self._primed = f"assistant{CHANNEL}"
            self._waiting, self._waiting_chars = [self._primed], len(self._primed)

    def _end_body(self, out: Gathering) -> None:
        if self._route.kind is not Kind.CALL:
            return
        body = "".join(self._take())
        try:
            calls = self._format.read(self._route.recipient, body, self._tools)
            if not calls:
                raise ValueError("no call")
        except ValueError as error:
            if self._format.is_strict:
                self._failure = CallInvalid(f"error parsing tool call: raw='{body[:1000]}', err={error}")
            else:
                out.content(body)
            return
        for name, arguments in calls:
            out.call(new_call(name, arguments, self._calls))
            self._calls += 1

    def _abandon_header(self, rest: str, out: Gathering) -> None:
        """No body came: what the model wrote, beyond what the prompt had begun, is content."""
        text = "".join(self._take()) + rest
        self._state = _State.BETWEEN
        out.content(text.removeprefix(self._primed))

    def _take(self) -> list[str]:
        waiting, self._waiting, self._waiting_chars = self._waiting, [], 0
        return waiting

    def _say(self, text: str, out: Gathering) -> None:
        (out.thinking if self._route.kind is Kind.THINKING else out.content)(text)


def primed_by(prompt: str, last: dict[str, Any] | None) -> str:
    """What the model has been made to begin its answer with: the open message of the prompt."""
    tail = prompt[prompt.rfind(START) :] if START in prompt else ""
    if tail and len(tail) <= _MAX_HEADER_CHARS and not any(end in tail for end in _ENDS):
        return tail
    if last and last.get("content"):
        return f"{START}assistant{CHANNEL}final{MESSAGE}"
    return f"{START}assistant{CHANNEL}analysis{MESSAGE}" if last and last.get("thinking") else f"{START}assistant"
