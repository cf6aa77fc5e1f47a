"""A Go template, loaded once, rendered for every request. Source: the Ollama API, "Template"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, lru_cache
from typing import Any

from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go import analysis, tree
from runtime.templates.go.budget import Budget, Refused
from runtime.templates.go.conversation import Turn, collate, messages_value, think_fields
from runtime.templates.go.evaluator import render
from runtime.templates.go.functions import FUNCTIONS, Context
from runtime.templates.go.parser import MAIN, parse
from runtime.templates.go.schema import text, tools_value
from runtime.templates.go.values import Map, readable

_CACHED = 16  # the largest templates that are accepted take some 20 MiB each
_ROUND_TRIPS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
_ANSWER = tree.Action(tree.Pipe((tree.Command((tree.Field(("Response",)),)),), (), False, 1))


@dataclass(frozen=True, slots=True)
class Values:
    """What a prompt is made of, in the JSON forms of an API request.

    tools: None where the request has no such key. think: None where nobody chose; a string is a level.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] | None = None
    prompt: str = ""
    suffix: str = ""
    think: bool | str | None = None


@lru_cache(maxsize=_CACHED)
def load(source: str) -> GoTemplate:
    """The template with the text `source`. Raises TemplateInvalid."""
    return GoTemplate(source)


class GoTemplate:
    """A template that parses."""

    def __init__(self, source: str) -> None:
        self._source = readable(source)
        trees = parse_template(self._source)
        bare = analysis.bare_call(trees)
        if bare is not None:
            raise TemplateInvalid(
                f"template error: line {bare.line}: template {bare.name[:40]!r} is called without data", line=bare.line
            )
        if analysis.variables(trees).isdisjoint({"messages", "response"}):
            trees[MAIN] = tree.Block((*trees[MAIN].nodes, _ANSWER))
        self._trees = trees

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template uses, in lower case, variables with their dollar sign."""
        return analysis.variables(self._trees)

    @cached_property
    def tool_tag(self) -> str:
        """The text that begins a tool call; "{" where the template shows no other."""
        return analysis.tool_tag(self._trees[MAIN])

    @cached_property
    def inferred_tags(self) -> tuple[str, str]:
        """The texts before and after thinking, each "" when the template does not show it."""
        return analysis.thinking_tags(self._trees[MAIN])

    @property
    def thinking_tags(self) -> tuple[str, str] | None:
        """The texts before and after thinking; None when the template does not show both."""
        return self.inferred_tags if all(self.inferred_tags) else None

    @cached_property
    def capabilities(self) -> tuple[str, ...]:
        """Those of "tools", "insert" and "thinking" that the template serves."""
        served = (
            ("tools", "tools" in self.variables),
            ("insert", "suffix" in self.variables),
            ("thinking", self.thinking_tags is not None),
        )
        return tuple(name for name, is_served in served if is_served)

    @cached_property
    def has_tool_round_trip(self) -> bool:
        """Whether it prints tool calls of the past and what came of them."""
        return {"tools", "toolcalls"} <= self.variables and any(each in self._source for each in _ROUND_TRIPS)

    @cached_property
    def _until_answer(self) -> dict[str, tree.Block]:
        return self._trees | {MAIN: analysis.cut(self._trees[MAIN])}

    def render(self, values: Values, *, today: date | None = None) -> str:
        """The prompt text. Raises TemplateFailed.

        today: of currentDate; the local date unless given.
        """
        context = Context(Budget(), today or datetime.now().astimezone().date())
        try:
            return self._render(values, context)
        except Refused as error:
            raise TemplateFailed(f"template error: {error}") from None

    def _render(self, values: Values, context: Context) -> str:
        think = think_fields(values.think)
        if values.prompt and values.suffix:
            root: dict[str, object] = {"Prompt": text(values.prompt), "Suffix": text(values.suffix), "Response": ""}
            return render(self._trees, Map(root | think), context)
        system, turns = collate(values.messages)
        if "messages" not in self.variables:
            return self._render_rounds(turns, think, context)
        tools = None if values.tools is None else list(values.tools)
        root = {"System": system, "Messages": messages_value(turns), "Tools": tools_value(tools), "Response": ""}
        return render(self._trees, Map(root | think), context)

    def _render_rounds(self, turns: Sequence[Turn], think: dict[str, object], context: Context) -> str:
        """For templates that know a prompt and its answer instead of messages: once for each pair of them."""
        parts: list[str] = []
        held = {"System": "", "Prompt": "", "Response": ""}

        def end_round() -> None:
            parts.append(render(self._trees, Map(held | think), context))
            held.update(System="", Prompt="", Response="")

        for turn in turns:
            if turn.role == "system":
                if held["Prompt"] or held["Response"]:
                    end_round()
                held["System"] = turn.content
            elif turn.role == "user":
                if held["Response"]:
                    end_round()
                held["Prompt"] = turn.content
            elif turn.role == "assistant":
                held["Response"] = turn.content
        parts.append(render(self._until_answer, Map(held | think), context, missing_is_nil=False))
        return "".join(parts)


def parse_template(source: str) -> dict[str, tree.Block]:
    """The trees of `source`, which may call the functions of this package. Raises TemplateInvalid."""
    return parse(readable(source), frozenset(FUNCTIONS))


def render_raw(source: str, data: object, *, today: date | None = None) -> str:
    """`source` evaluated as it is, with `data` as its root. Raises TemplateFailed, or TemplateInvalid."""
    context = Context(Budget(), today or datetime.now().astimezone().date())
    return render(parse_template(source), data, context)
