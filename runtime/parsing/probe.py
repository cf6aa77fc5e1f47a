"""What a chat template shows of its model's format: rendered with and without a call, and compared.

Source: the Ollama API, "Jinja path". Nothing is assumed of the template; where it cannot be rendered so, the markers
in its text decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import RuntimeFailure
from runtime.parsing.json_calls import DEEPSEEK_SEPARATOR

JSON = dict[str, Any]
Render = Callable[[list[JSON], list[JSON], bool], str]  # messages, tools, add_generation_prompt → prompt

NAME, KEY, VALUE, ANSWER, THOUGHT = "zq_tool", "zq_key", "zq_value", "Zq_answer", "Zq_thought"
_USER = {"role": "user", "content": "Zq_question"}
_PARAMETERS = {"type": "object", "properties": {KEY: {"type": "string", "description": "a word"}}, "required": [KEY]}
_TOOLS = [{"type": "function", "function": {"name": NAME, "description": "a tool", "parameters": _PARAMETERS}}]

_TAG = r"<[^<>\s]{1,60}>|\[/?[A-Z_]{1,40}\]"
_TAG_AT_END = re.compile(rf"(<\|channel>thought|{_TAG})\s*$")
_TAG_AT_START = re.compile(rf"\s*({_TAG})")
_OPEN_TAG_AT_END = re.compile(rf"({_TAG})[\s\[]*$")

# (all of these texts, the dialect, the tag of JSON calls); the first row that a template's text holds
_LITERALS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("<|start|>", "<|channel|>", "<|message|>"), "harmony", ""),
    (("<function=", "<parameter="), "qwen3-coder", ""),
    (("<arg_key>",), "glm-4.7", ""),
    ((DEEPSEEK_SEPARATOR,), "deepseek3", ""),
    (("<|tool_call_argument_begin|>",), "kimi", ""),
    (("<start_function_call>", "call:"), "functiongemma", ""),
    (("<|tool_call>", "call:"), "gemma4", ""),
    (("[TOOL_CALLS]", "[ARGS]"), "ministral", ""),
    (("<|START_ACTION|>",), "cohere", ""),
    (("<|tool_call_start|>",), "lfm2", ""),
    (("<function_calls>",), "olmo3", ""),
    (("[TOOL_CALLS]",), "json", "[TOOL_CALLS]"),
    (("<tool_call>",), "json", "<tool_call>"),
    (("<|tool_call|>",), "json", "<|tool_call|>"),
    (("<TOOLCALL>",), "json", "<TOOLCALL>"),
    (("functools[",), "json", "functools["),
)
_THINKING_LITERALS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
_SPLITS = ("content.split('</think>')", 'content.split("</think>")')


@dataclass(frozen=True, slots=True)
class Probe:
    """dialect: a key of the dialects, or "json" for JSON after `tool_tag`."""

    dialect: str = "json"
    tool_tag: str = "{"
    thinking_tags: tuple[str, str] | None = None


def probe(render: Render, source: str) -> Probe:
    """What the template `source` shows; `render` is called four times at most, and may raise RuntimeFailure."""
    shown = _Shown(render)
    said = shown.with_answer({"content": ANSWER}) or ""
    called = shown.with_answer(_calling({KEY: VALUE})) if said else None
    if said and (called is None or NAME not in _added(called, said)):
        called = shown.with_answer(_calling(f'{{"{KEY}": "{VALUE}"}}'))
    thought = shown.with_answer({"content": ANSWER, "thinking": THOUGHT, "reasoning_content": THOUGHT})
    literal = literal_format(source)
    found = _classified(_added(called, said)) if called and literal[0] != "harmony" else None  # its headers share texts
    dialect, tag = found or literal
    return Probe(dialect, tag, _thinking_tags(thought, said) or _literal_thinking(source))


class _Shown:
    """Renders of one template, until one has cost all that a render may."""

    def __init__(self, render: Render) -> None:
        self._render, self._is_exhausted = render, False

    def with_answer(self, answer: JSON) -> str | None:
        """A question and `answer`, or None where the template refuses them."""
        if self._is_exhausted:
            return None
        try:
            return self._render([dict(_USER), {"role": "assistant"} | answer], _TOOLS, False)
        except RuntimeFailure as failure:
            self._is_exhausted = bool(failure.detail.get("exhausted"))
            return None


def literal_format(source: str) -> tuple[str, str]:
    """The dialect and the tag of JSON calls that a template's text names."""
    for texts, dialect, tag in _LITERALS:
        if all(text in source for text in texts):
            return dialect, tag or "{"
    return "json", "{"


def _calling(arguments: JSON | str) -> JSON:
    # Mistral's templates refuse ids of any length but nine
    function = {"name": NAME, "arguments": arguments}
    return {"content": "", "tool_calls": [{"id": "zq0000001", "type": "function", "function": function}]}


def _added(called: str, said: str) -> str:
    """What the call adds: the text from where the two prompts part, or from the tag in which they do."""
    apart = (at for at, signs in enumerate(zip(called, said, strict=False)) if signs[0] != signs[1])
    start = next(apart, min(len(called), len(said)))
    for opening, closing in ("<>", "[]"):
        begun = called.rfind(opening, max(0, start - 60), start)
        if begun >= 0 and closing not in called[begun:start] and "\n" not in called[begun:start]:
            start = begun
    return called[start:]


def _classified(added: str) -> tuple[str, str] | None:  # noqa: PLR0911  # one line a format
    """The dialect and tag of a rendered call; None when the name or the arguments are not to be found."""
    at = added.find(NAME)
    value = added.find(VALUE, max(at, 0))
    if at < 0 or value < 0:
        return None
    head, between = added[:at], added[at + len(NAME) : value]
    if "<|channel|>" in added and "<|message|>" in between:
        return "harmony", "{"
    if head.endswith("<function="):
        return "qwen3-coder", "{"
    if "<arg_key>" in between:
        return "glm-4.7", "{"
    if DEEPSEEK_SEPARATOR in head + between:
        return "deepseek3", "{"
    if "<|tool_call_argument_begin|>" in between:
        return "kimi", "{"
    if head.endswith("call:"):
        return ("functiongemma" if "<start_function_call>" in head else "gemma4"), "{"
    if head.rstrip().endswith("[TOOL_CALLS]"):
        return "ministral", "{"
    if "<|START_ACTION|>" in head:
        return "cohere", "{"
    if between.startswith("("):
        tagged = {"<|tool_call_start|>": "lfm2", "<function_calls>": "olmo3"}
        return next((name for tag, name in tagged.items() if tag in head), "python"), "{"
    return "json", _json_tag(head)


def _json_tag(head: str) -> str:
    """The tag before JSON calls: the last one in `head`, else all of it up to the first brace."""
    before = head.partition("{")[0].replace("\r\n", "\n").strip()
    if (tag := _OPEN_TAG_AT_END.search(before[-200:])) is not None and not tag.group(1).startswith("</"):
        return tag.group(1)
    return before if 0 < len(before) <= 100 else "{"


def _thinking_tags(thought: str | None, said: str) -> tuple[str, str] | None:
    """The tags around reasoning, unless they are those around any answer."""
    if thought is None or (at := thought.find(THOUGHT)) < 0:
        return None
    opening = _TAG_AT_END.search(thought[max(0, at - 100) : at])
    closing = _TAG_AT_START.match(thought, at + len(THOUGHT))
    if opening is None or closing is None or said[: said.find(ANSWER)].rstrip().endswith(opening.group(1)):
        return None
    return opening.group(1), closing.group(1)


def _literal_thinking(source: str) -> tuple[str, str] | None:
    for tags in _THINKING_LITERALS:
        if all(tag in source for tag in tags):
            return tags
    splits = any(split in source for split in _SPLITS)
    return _THINKING_LITERALS[0] if splits and "<SPECIAL_12>" not in source else None


def shown_part(tag: str) -> Sequence[str]:
    """The part of a tag that may be a special token: `[…]` or `<…>` at its beginning."""
    match = _TAG_AT_START.match(tag)
    return [match.group(1)] if match is not None else []
