"""How one request and its model speak with each other: messages to prompt, and the answer's text to what it says.

Source: the Ollama API, "Prompt assembly", "Which template is used".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from runtime.model import Model
from runtime.parsing.calls import AnswerParser
from runtime.parsing.choice import (
    Format,
    GoFacts,
    answer_format,
    is_built_in,
    parser_for,
    preserved_tokens,
    thought_of,
    tool_tags,
)
from runtime.parsing.forced import ForcedCall, call_schema
from runtime.parsing.harmony import renamed_tools
from runtime.parsing.probe import Probe, probe
from runtime.prompts import images_of, mark_images, without_old_reasoning
from runtime.structured.schema import Constraint, constraint
from runtime.templates.chat import ChatTemplate
from runtime.templates.choose import HARMONY
from runtime.templates.errors import RendererBusy, TemplateFailed
from runtime.templates.go.template import GoTemplate, Values, load

JSON = dict[str, Any]
_FREE = Format("passthrough")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues. is_cut: it is not all that the client sent, or will not be.

    images: base64, each where the text has `[img-N]`, N counting from 0.
    """

    text: str
    messages: Sequence[JSON] = ()
    images: tuple[str, ...] = ()
    is_cut: bool = False

    @property
    def continued(self) -> JSON | None:
        """The last message, where it is the beginning of the answer."""
        last = self.messages[-1] if self.messages else {}
        return last if last.get("role") == "assistant" and not last.get("tool_calls") else None

    def debug_info(self) -> JSON:
        counted = {"image_count": len(self.images)} if self.images else {}
        return {"rendered_template": self.text} | counted


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """kind: "auto", "none" or "required"; `name` then says which tool."""

    kind: str = "auto"
    name: str = ""

    def of(self, tools: Sequence[JSON]) -> list[JSON]:
        """The tools that the model is shown."""
        return [] if self.kind == "none" else list(tools)

    def forced(self, tools: Sequence[JSON]) -> list[JSON]:
        """Those of which one has to be called."""
        if self.kind != "required":
            return []
        return [tool for tool in tools if not self.name or _name(tool) == self.name]


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer is read. special: the special tokens that must come as text. thought: see GenerateRequest."""

    parser: AnswerParser
    special: tuple[str, ...] = ()
    thought: tuple[str, str, bool] | None = None


@dataclass(frozen=True)
class Dialogue:
    """tools: those the model is shown; templates print none of them as null, and an empty list as one.

    think: None leaves it to the model.
    forced: tools of which one has to be called.
    """

    model: Model
    tools: Sequence[JSON] | None = None
    think: bool | str | None = None
    forced: Sequence[JSON] = ()

    @property
    def has_template(self) -> bool:
        """Whether a single prompt is rendered at all; without any template the model takes it as it is."""
        templates = self.model.templates
        return templates.uses_go or templates.jinja is not None or bool(templates.lacking)

    def conversation(self, messages: list[JSON]) -> list[JSON]:
        """`messages` without what this model must not see again."""
        name = str(self.model.name.repository).rpartition("/")[2]
        repeats = self.model.family == "qwen3" or name == "deepseek-r1"
        return without_old_reasoning(messages) if repeats else messages

    def render(self, messages: Sequence[JSON]) -> str:
        """The prompt of `messages`. Raises TemplateFailed."""
        templates = self.model.templates
        tools, think = self._shown
        if templates.go is None:
            return _characters(templates.chat_template.render(messages, tools or [], think))
        return _characters(templates.go.render(Values(messages=messages, tools=tools, think=think)))

    def final(self, messages: Sequence[JSON], text: str, *, is_cut: bool) -> Prompt:
        """The prompt of messages that have been chosen; rendered once more where there are images to be put in."""
        images = images_of(messages)
        if images:
            text = self.render(mark_images(messages))
        return Prompt(text, messages, images, is_cut)

    def direct(self, messages: Sequence[JSON], prompt: str, suffix: str, *, template: str = "") -> Prompt:
        """A prompt by another Go template, or with a gap before `suffix`. Raises TemplateFailed."""
        go = load(template) if template else self._filling
        tools, think = self._shown
        if suffix:
            prompt = mark_images(messages[-1:])[0]["content"] if images_of(messages) else prompt
            values = Values(prompt=prompt, suffix=suffix, think=think)
        else:
            values = Values(messages=mark_images(messages), tools=tools, think=think)
        return Prompt(_characters(go.render(values)), messages, images_of(messages))

    @staticmethod
    def bare(text: str, images: Sequence[str]) -> Prompt:
        """A prompt that no template is put around."""
        marked = mark_images([{"content": text, "images": images}]) if images else [{"content": text}]
        return Prompt(marked[0]["content"], images=tuple(images))

    def constraint(self, wanted: object) -> Constraint | None:
        """What the answer is held to: a call where one is forced, else the `format` of the request.

        Raises FormatInvalid.
        """
        if self.forced:
            return call_schema(self.forced)
        if not self.tools:
            return constraint(wanted)
        names = [_name(tool) for tool in self.tools]
        tags = tool_tags(self.format, names)
        bare = [tag for tag in tags if tag in ("{", "[")]
        found = constraint(wanted, [tag for tag in tags if tag not in bare])
        return _or_call(found, names) if found is not None and bare else found

    def reading(self, prompt: Prompt) -> Reading:
        """How the answer to `prompt` is read."""
        return self._reading(self.format, () if self.forced else self.tools or (), prompt.text, prompt.continued)

    def raw_reading(self, prompt: Prompt) -> Reading:
        """For a prompt that no template made: no format of the model's own, only the tags around its reasoning."""
        form = replace(self.format, dialect="json", is_configured=False) if self.think else _FREE
        return self._reading(form, (), prompt.text, None)

    def _reading(self, form: Format, tools: Sequence[JSON], prompt: str, last: JSON | None) -> Reading:
        parser = parser_for(form, tools=tools, think=self.think, prompt=prompt, last=last)
        thought = thought_of(form, think=self.think, prompt=prompt, last=last)
        return Reading(ForcedCall(parser) if self.forced else parser, preserved_tokens(form), thought)

    @cached_property
    def format(self) -> Format:
        """How the model answers. Raises TemplateFailed."""
        templates = self.model.templates
        go = templates.go
        if go is not None:
            facts = GoFacts(go.tool_tag, go.thinking_tags, templates.go_text or "")
            return answer_format(templates.parser, self.model.family, facts, None)
        if is_built_in(templates.parser):
            return answer_format(templates.parser, self.model.family, None, None)
        return answer_format("", self.model.family, None, _probed(templates.chat_template))

    @property
    def _filling(self) -> GoTemplate:
        templates = self.model.templates
        if templates.go_text is None:
            raise TemplateFailed("template error: the model has no template with a gap to fill")
        return load(templates.go_text)

    @cached_property
    def _shown(self) -> tuple[Sequence[JSON] | None, bool | str | None]:
        """Tools and level of reasoning, in the words that the model was trained on."""
        if (self.tools or self.think == "max") and self.format.dialect == HARMONY:
            tools = renamed_tools(self.tools) if self.tools else self.tools
            return tools, "high" if self.think == "max" else self.think
        return self.tools, self.think


def _characters(text: str) -> str:
    """`text` without halves of characters, which a template may print and nothing after it may carry."""
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=64)
def _probed(template: ChatTemplate) -> Probe:
    """What a chat template shows of its format; rendered a few times, once for each template."""
    busy: list[RendererBusy] = []

    def render(messages: list[JSON], tools: list[JSON], add_generation_prompt: bool) -> str:
        try:
            return template.render_whole(messages, tools, add_generation_prompt=add_generation_prompt)
        except RendererBusy as error:
            busy.append(error)
            raise

    found = probe(render, template.for_tools or template.source)
    if busy:
        raise busy[0]  # what was found in the meantime is not to be remembered
    return found


def _name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


def _or_call(wanted: Constraint, names: list[str]) -> Constraint:
    """Where calls begin as JSON does, an answer may be one of these as well."""
    schema = dict(wanted.schema)
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    calls = [
        {
            "type": "object",
            "properties": {"name": {"enum": names}, key: {"type": "object"}},
            "required": ["name", key],
            "additionalProperties": False,
        }
        for key in ("arguments", "parameters")
    ]
    return Constraint({"anyOf": [schema, *calls], **definitions}, wanted.unless)
