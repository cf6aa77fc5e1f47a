"""What chat templates show of their models' formats."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.parsing.probe import Probe, probe
from runtime.templates.errors import TemplateFailed
from runtime.templates.renderer import render
from tests.runtime.parsing import chat_templates as templates

THINK = ("<think>", "</think>")


class Rendering:
    """A template, rendered as it is, and how often."""

    def __init__(self, source: str) -> None:
        self.source, self.count = source, 0

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        self.count += 1
        variables: dict[str, object] = {"messages": messages, "tools": tools, "bos_token": "<s>", "eos_token": "</s>"}
        return render(self.source, variables | {"add_generation_prompt": add_generation_prompt})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(getattr(templates, name), expected, id=name)
        for name, expected in {
            "QWEN3": Probe("json", "<tool_call>", THINK),
            "HERMES": Probe("json", "<tool_call>"),
            "LLAMA31": Probe("json", "{"),
            "MISTRAL": Probe("json", "[TOOL_CALLS]"),
            "MAGISTRAL": Probe("ministral", "{", ("[THINK]", "[/THINK]")),
            "DEEPSEEK": Probe("deepseek3", "{", THINK),
            "GEMMA4": Probe("gemma4", "{", ("<|channel>thought", "<channel|>")),
            "FUNCTIONGEMMA": Probe("functiongemma"),
            "GEMMA3": Probe("json", "{"),
            "GRANITE": Probe("json", "<|tool_call|>"),
            "PHI4_MINI": Probe("json", "<|tool_call|>"),
            "LFM2": Probe("lfm2"),
            "LFM2_5": Probe("lfm2"),
            "QWEN3_CODER": Probe("qwen3-coder"),
            "GLM": Probe("glm-4.7", "{", THINK),
            "GPT_OSS": Probe("harmony"),
            "COHERE": Probe("cohere", "{", ("<|START_THINKING|>", "<|END_THINKING|>")),
            "OLMO3": Probe("olmo3"),
            "LLAMA4": Probe("python"),
            "COMMAND_R": Probe("json", "Action: ```json\n["),
        }.items()
    ],
)
def test_a_template_shows_its_format(source: str, expected: Probe) -> None:
    rendering = Rendering(source)

    found = probe(rendering, source)

    if expected.dialect != "harmony":  # whose reasoning is a channel
        assert found.thinking_tags == expected.thinking_tags
    assert (found.dialect, found.tool_tag) == (expected.dialect, expected.tool_tag)
    assert rendering.count <= 4


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", Probe()),
        ("<tool_call> <think> </think>", Probe("json", "<tool_call>", THINK)),
        ("[TOOL_CALLS]", Probe("json", "[TOOL_CALLS]")),
        ("<function=a><parameter=b>", Probe("qwen3-coder")),
        ("{{ m.content.split('</think>')[-1] }}", Probe("json", "{", THINK)),
        ("{{ m.content.split('</think>')[-1] }}<SPECIAL_12>", Probe()),
    ],
)
def test_a_template_that_cannot_be_rendered_is_read(source: str, expected: Probe) -> None:
    def refuse(*_: object) -> str:
        raise TemplateFailed("template error: no")

    assert probe(refuse, source) == expected


def test_a_template_that_takes_too_long_is_rendered_once() -> None:
    asked: list[object] = []

    def exhaust(*given: object) -> str:
        asked.append(given)
        raise TemplateFailed("template error: the template takes too long", exhausted=True)

    assert probe(exhaust, "<tool_call>").tool_tag == "<tool_call>"
    assert len(asked) == 1
