"""Which parser reads an answer. Source: the Ollama API, "Which template is used", "Tool calls" and "Thinking"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from runtime.parsing import harmony
from runtime.parsing.calls import AnswerParser, Declared, Parsed
from runtime.parsing.dialects import PARSERS, PROBED, shown_tokens
from runtime.parsing.harmony import GLIMMER, HARMONY, MessageSplitter, primed_by
from runtime.parsing.probe import Probe, literal_format, shown_part
from runtime.parsing.splitter import Dialect, Opening, TagSplitter
from runtime.parsing.thinking import ThinkingSplitter
from runtime.parsing.tools import ToolSplitter

JSON = dict[str, Any]
_HARMONY_FAMILIES = {"gptoss", "gpt-oss"}


@dataclass(frozen=True, slots=True)
class GoFacts:
    """What the tree of a model's Go template says. text: its source."""

    tool_tag: str | None = None
    thinking_tags: tuple[str, str] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """How a model answers. dialect: "json" for JSON after `tool_tag`, else a built-in parser or a probed format.

    is_configured: the model's config names the parser, so its rules are strict.
    """

    dialect: str
    tool_tag: str = "{"
    thinking_tags: tuple[str, str] | None = None
    is_configured: bool = False


class GenericParser:
    """Reasoning is split off first, calls are looked for in the rest. Either part may be missing."""

    def __init__(self, thinking: ThinkingSplitter | None = None, tools: ToolSplitter | None = None) -> None:
        self._thinking, self._tools = thinking, tools

    def feed(self, text: str) -> Parsed:
        return self._called(self._thinking.feed(text) if self._thinking is not None else Parsed(content=text))

    def finish(self) -> Parsed:
        first = self._called(self._thinking.finish() if self._thinking is not None else Parsed())
        rest = self._tools.finish() if self._tools is not None else Parsed()
        return Parsed(first.thinking, first.content + rest.content, first.calls + rest.calls)

    def _called(self, split: Parsed) -> Parsed:
        if self._tools is None:
            return split
        called = self._tools.feed(split.content)
        return Parsed(split.thinking, called.content, called.calls)


def is_built_in(parser: str) -> bool:
    """Whether a config's parser name is one of ours; any other is as good as none."""
    return parser in PARSERS or parser in {"harmony", "glimmer", "passthrough"}


def is_harmony(family: str, template: str) -> bool:
    """Whether a Go template writes harmony messages for a model that was trained on them."""
    return family in _HARMONY_FAMILIES and "<|start|>" in template and "<|end|>" in template


def answer_format(parser: str, family: str, go: GoFacts | None, jinja: Probe | None) -> Format:
    """The format of a model's answers. go: when its Go template makes the prompt; jinja: when its Jinja one does."""
    if is_built_in(parser):
        own = PARSERS[parser].thinking if parser in PARSERS else None
        return Format(parser, thinking_tags=(go.thinking_tags if go is not None else None) or own, is_configured=True)
    if go is not None:
        if is_harmony(family, go.text):
            return Format("harmony", is_configured=True)
        dialect, tag = "json", go.tool_tag or "{"
        if tag == "{":
            dialect, tag = literal_format(go.text)
        return Format(dialect, tag, go.thinking_tags)
    if jinja is not None:
        return Format(jinja.dialect, jinja.tool_tag, jinja.thinking_tags)
    return Format("json")


def parser_for(
    form: Format,
    *,
    tools: Sequence[object] = (),
    think: bool | str | None = None,
    prompt: str = "",
    last: JSON | None = None,
) -> AnswerParser:
    """The parser of one answer.

    tools: as in the request. think: after the defaults of the API. prompt: what the model continues.
    last: the last message, when it is an assistant's that the answer continues.
    """
    declared = Declared.of(tools)
    if form.dialect == "harmony":
        return MessageSplitter(HARMONY, declared, primed_by(prompt, last))
    if form.dialect == "glimmer":
        return MessageSplitter(GLIMMER, declared, primed_by(prompt, last))
    if form.dialect == "passthrough":
        return GenericParser()
    dialect = _dialect(form)
    if dialect is None:
        return _generic(form, declared, bool(think), prompt, last)
    if form.dialect == "cogito" and declared.names:
        think = False
    return TagSplitter(dialect, declared, is_thinking=_begins_thinking(dialect, think, prompt, last))


def thought_of(
    form: Format, *, think: bool | str | None = None, prompt: str = "", last: JSON | None = None
) -> tuple[str, str, bool] | None:
    """How reasoning is marked that goes before the content: its tags, and whether the answer begins inside.

    None where no reasoning is to come. A NUL in the closing tag stands for some text, as headers have it.
    """
    is_final = form.dialect == "harmony" and prompt.rstrip().endswith(f"{harmony.CHANNEL}final{harmony.MESSAGE}")
    if form.dialect == "passthrough" or is_final or _continues_content(last):
        return None
    if form.dialect == "harmony":
        return f"{harmony.CHANNEL}analysis{harmony.MESSAGE}", f"{harmony.CHANNEL}final\0{harmony.MESSAGE}", True
    if form.dialect == "glimmer":
        return f"to=self{harmony.MESSAGE}", f"{harmony.START}assistant{harmony.MESSAGE}", True
    dialect = _dialect(form) or Dialect(form.thinking_tags)
    if dialect.thinking is None:
        return None
    thinks = dialect.thinks_by_default if think is None else bool(think)
    is_inside = _begins_thinking(dialect, think, prompt, last)
    # without a parser of its own, tags stay where they are unless reasoning was asked for
    if not thinks and (not is_inside or form.dialect == "json"):
        return None
    return *dialect.thinking, is_inside


def tool_tags(form: Format, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The texts with which an answer begins that calls a tool."""
    if form.dialect == "passthrough":
        return ()
    if form.dialect == "harmony":
        return (f"{harmony.CHANNEL}commentary", "to=")
    if form.dialect == "glimmer":
        return ("to=",)
    dialect = _dialect(form)
    if dialect is None:
        return (form.tool_tag,)
    sections = (*dialect.sections, *(dialect.named(names) if dialect.named else ()))
    return (*dialect.begins_calls, *(section.open for section in sections))


def preserved_tokens(form: Format) -> tuple[str, ...]:
    """The texts of special tokens that have to be shown for the answer to be read."""
    if form.dialect in {"harmony", "glimmer"}:
        return harmony.TOKENS
    if form.dialect == "passthrough":
        return ()
    dialect = _dialect(form)
    if dialect is not None:
        return shown_tokens(dialect)
    return (*(form.thinking_tags or ()), *shown_part(form.tool_tag))


def _dialect(form: Format) -> Dialect | None:
    if form.is_configured:
        return PARSERS[form.dialect]
    dialect = PARSERS.get(form.dialect) or PROBED.get(form.dialect)
    if dialect is None:
        return None
    thinking = form.thinking_tags or dialect.thinking
    return replace(dialect, thinking=thinking, opening=Opening.CONTENT, is_strict=False, is_closed=False)


def _generic(form: Format, declared: Declared, thinks: bool, prompt: str, last: JSON | None) -> AnswerParser:
    thinking = None
    if thinks and form.thinking_tags is not None and not _continues_content(last):
        thinking = ThinkingSplitter(prompt, *form.thinking_tags, is_inside=_continues_thinking(last, prompt))
    return GenericParser(thinking, ToolSplitter(form.tool_tag, declared.names) if declared.names else None)


def _begins_thinking(dialect: Dialect, think: bool | str | None, prompt: str, last: JSON | None) -> bool:
    """Whether the answer begins inside a thought. What the prompt shows outweighs what was asked for."""
    if dialect.thinking is None or _continues_content(last):
        return False
    if _continues_thinking(last, prompt):
        return True
    opening, closing = dialect.thinking
    end = prompt.rstrip()
    if end.endswith((opening, closing)):
        return end.endswith(opening)
    thinks = dialect.thinks_by_default if think is None else bool(think)
    return dialect.opening is Opening.ALWAYS or (dialect.opening is Opening.THINKING and thinks)


def _continues_content(last: JSON | None) -> bool:
    return bool(last and last.get("content"))


def _continues_thinking(last: JSON | None, prompt: str) -> bool:
    """Whether the prompt ends in reasoning that the client began; most templates close it."""
    begun = str(last.get("thinking") or "").rstrip() if last and not last.get("content") else ""
    return bool(begun) and prompt.rstrip().endswith(begun)
