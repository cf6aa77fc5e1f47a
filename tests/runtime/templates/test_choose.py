"""Which template is in force. Source: the Ollama API, "Which template is used"."""

from __future__ import annotations

import pytest

from runtime.templates.chat import CHATML, ChatTemplate
from runtime.templates.choose import TemplateChoice, choose
from runtime.templates.errors import TemplateFailed

GO = "{{ .Prompt }}"
GO_TOOLS = "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ end }}"
GO_TRIP = '{{ .Tools }}{{ range .Messages }}{{ if .ToolCalls }}<c>{{ end }}{{ if eq .Role "tool" }}r{{ end }}{{ end }}'
GO_HARMONY = "<|start|>{{ .Prompt }}<|end|>"
GO_BROKEN = "{{ if }}"
JINJA = "{{ messages }}"
JINJA_TOOLS = "{{ tools }}"
JINJA_TRIP = "{{ tools }}{{ tool_calls }}{{ tool_response }}"
JINJA_THINKING = "{{ tools }}<think></think>"


def chosen(go: str | None, jinja: str | None, **facts: object) -> TemplateChoice:
    given: dict[str, object] = {"renderer": "", "parser": "", "family": "llama", "go_templates": None} | facts
    return choose(go, ChatTemplate(jinja) if jinja else None, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("go", "jinja", "facts", "uses_go", "parser"),
    [
        (GO, None, {}, True, ""),
        (None, JINJA, {}, False, ""),
        (None, None, {}, False, ""),
        # the more capable one, and Go's where they are alike
        (GO, JINJA, {}, True, ""),
        (GO, JINJA_TOOLS, {}, False, ""),
        (GO_TOOLS, JINJA, {}, True, ""),
        (GO_TOOLS, JINJA_TOOLS, {}, True, ""),
        (GO_TOOLS, JINJA_TRIP, {}, False, ""),
        (GO_TRIP, JINJA_TOOLS, {}, True, ""),
        (GO_TRIP, JINJA_TRIP, {}, True, ""),
        (GO_TOOLS, JINJA_THINKING, {}, False, ""),
        (GO_TRIP, JINJA_THINKING, {}, True, ""),  # Go alone has the round trip
        (GO_BROKEN, JINJA_TOOLS, {}, True, ""),  # its error is to be seen
        # the operator decides
        (GO, JINJA_TOOLS, {"go_templates": True}, True, ""),
        (GO_TRIP, JINJA, {"go_templates": False}, False, ""),
        (GO, None, {"go_templates": False}, False, ""),
        # a parser wants the Go template it was made for
        (GO, JINJA_TOOLS, {"parser": "qwen3"}, True, "qwen3"),
        (GO, JINJA_TOOLS, {"parser": "qwen3", "go_templates": False}, True, "qwen3"),
        (None, JINJA, {"parser": "qwen3"}, False, "qwen3"),
        # harmony
        (GO_HARMONY, JINJA_TOOLS, {"family": "gptoss"}, True, "harmony"),
        (GO_HARMONY, JINJA_TOOLS, {"family": "gpt-oss", "go_templates": False}, True, "harmony"),
        (GO_HARMONY, JINJA_TOOLS, {"family": "llama"}, False, ""),
        (GO, JINJA_TOOLS, {"family": "gptoss"}, False, ""),
        # a renderer stands for the template in the weights
        (GO, JINJA, {"renderer": "qwen3-coder", "parser": "qwen3-coder"}, False, "qwen3-coder"),
        (GO, None, {"renderer": "qwen3-coder"}, True, ""),
        (GO, JINJA, {"renderer": "unheard-of"}, True, ""),
        (None, JINJA, {"renderer": "unheard-of"}, False, ""),
    ],
)
def test_the_template_in_force_follows_the_rows(
    go: str | None, jinja: str | None, facts: dict[str, object], uses_go: bool, parser: str
) -> None:
    found = chosen(go, jinja, **facts)

    assert (found.uses_go, found.parser) == (uses_go, parser)


def test_a_model_without_templates_speaks_chatml() -> None:
    assert chosen(None, None).chat_template == ChatTemplate(CHATML)


def test_a_renderer_that_nothing_stands_for_is_named_when_it_is_needed() -> None:
    found = chosen(None, None, renderer="unheard-of")

    assert found.capabilities == []
    with pytest.raises(TemplateFailed, match='unknown renderer "unheard-of"'):
        _ = found.chat_template


def test_a_template_that_does_not_parse_makes_nothing_possible() -> None:
    found = chosen(GO_BROKEN, None)

    assert found.capabilities == []
    with pytest.raises(TemplateFailed, match="line 1"):
        _ = found.go
