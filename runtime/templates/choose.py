"""Which template makes the prompts of a model, and which parser reads its answers.

Source: the Ollama API, "Which template is used". A renderer named in the config stands for the chat template in the
weights, which prints the same prompt; its parser is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from runtime import capabilities
from runtime.parsing.choice import is_harmony
from runtime.templates.chat import CHATML, ChatTemplate
from runtime.templates.errors import TemplateFailed
from runtime.templates.go.template import GoTemplate, load

HARMONY = "harmony"
# Renderers whose prompts the chat templates in the weights print too.
_RENDERERS = re.compile(
    r"qwen3(-coder|-vl-(instruct|thinking)|\.5|\.8)?|ornith|olmo3(-.+)?|nemotron-.+|lfm2(-.+)?|deepseek3\.1|cogito"
    r"|gemma4(-.+)?|functiongemma|glm-(4\.7|ocr)|laguna|poolside-v1|cohere|glimmer"
)


@dataclass(frozen=True)
class TemplateChoice:
    """The texts at hand, and which one is in force.

    parser: a built-in parser's name, "" for the generic ones. lacking: a renderer that nothing here can stand for.
    """

    go_text: str | None
    jinja: ChatTemplate | None
    uses_go: bool
    parser: str
    lacking: str = ""

    @cached_property
    def go(self) -> GoTemplate | None:
        """The Go template where that one is in force. Raises TemplateFailed."""
        return load(self.go_text) if self.uses_go and self.go_text is not None else None

    @property
    def chat_template(self) -> ChatTemplate:
        """What renders a conversation without a Go template: that of the weights, or ChatML. Raises TemplateFailed."""
        if self.lacking:
            raise TemplateFailed(f'unknown renderer "{self.lacking[:100]}"')
        return self.jinja or ChatTemplate(CHATML)

    @cached_property
    def capabilities(self) -> list[str]:
        """Those of the template in force; none for one that cannot be read."""
        if not self.uses_go:
            return capabilities.of_jinja(self.jinja.source if self.jinja else "")
        try:
            return list(self.go.capabilities) if self.go is not None else []
        except TemplateFailed:
            return []


def choose(
    go_text: str | None,
    jinja: ChatTemplate | None,
    *,
    renderer: str,
    parser: str,
    family: str,
    go_templates: bool | None,
) -> TemplateChoice:
    """go_templates: the operator's word; None lets the more capable template be used."""

    def chosen(uses_go: bool, parser: str) -> TemplateChoice:
        return TemplateChoice(go_text, jinja, uses_go, parser)

    if renderer and go_text is None and jinja is None:
        return TemplateChoice(None, None, uses_go=False, parser=parser, lacking=renderer)
    if renderer:
        is_known = _RENDERERS.fullmatch(renderer) is not None
        return chosen(jinja is None or (not is_known and go_text is not None), parser)
    if go_text is None or parser:
        return chosen(go_text is not None, parser)
    if is_harmony(family, go_text):
        return chosen(True, HARMONY)
    prefers_go = jinja is None or not _prefers_jinja(go_text, jinja.source)
    return chosen(prefers_go if go_templates is None else go_templates, "")


def _prefers_jinja(go_text: str, jinja: str) -> bool:
    """Whether the template in the weights can do more than the Go template beside it."""
    try:
        go = load(go_text)
    except TemplateFailed:
        return False  # let its error be seen
    go_can, jinja_can = set(go.capabilities), set(capabilities.of_jinja(jinja))
    jinja_trips = capabilities.has_round_trip(jinja)
    if len(jinja_can) > len(go_can):
        return jinja_trips or not go.has_tool_round_trip
    return jinja_can == go_can and "tools" in jinja_can and jinja_trips and not go.has_tool_round_trip
