"""Which parser reads an answer, and in which state it begins."""

from __future__ import annotations

from typing import Any

import pytest

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
from runtime.parsing.probe import Probe
from tests.runtime.parsing.reading import TOOLS, Read, configured, read

THINK = ("<think>", "</think>")
HARMONY_TEMPLATE = "<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>"
CALL = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
SO = {"role": "assistant", "thinking": "so"}


@pytest.mark.parametrize(
    ("parser", "family", "go", "jinja", "expected"),
    [
        ("qwen3", "", GoFacts("<tool_call>"), None, Format("qwen3", "{", THINK, is_configured=True)),
        ("unheard-of", "", GoFacts("<tool_call>", THINK), None, Format("json", "<tool_call>", THINK)),
        ("", "gptoss", GoFacts("{", None, HARMONY_TEMPLATE), None, Format("harmony", is_configured=True)),
        ("", "gpt-oss", GoFacts("{", None, HARMONY_TEMPLATE), None, Format("harmony", is_configured=True)),
        ("", "llama", GoFacts("{", None, HARMONY_TEMPLATE), None, Format("json")),
        ("", "gptoss", GoFacts("{", None, "plain"), None, Format("json")),
        ("", "", GoFacts("{", None, "say <tool_call>"), None, Format("json", "<tool_call>")),
        ("", "", GoFacts(None, None, "<function=a><parameter=b>"), None, Format("qwen3-coder")),
        ("", "", None, Probe("json", "[TOOL_CALLS]", THINK), Format("json", "[TOOL_CALLS]", THINK)),
        ("", "", None, Probe("harmony"), Format("harmony")),
        ("", "", None, None, Format("json")),
    ],
)
def test_the_config_comes_before_the_template(
    parser: str, family: str, go: GoFacts | None, jinja: Probe | None, expected: Format
) -> None:
    assert answer_format(parser, family, go, jinja) == expected


@pytest.mark.parametrize("name", ["harmony", "qwen3.5", "passthrough", "glimmer"])
def test_built_in_parsers_are_known(name: str) -> None:
    assert is_built_in(name)
    assert not is_built_in(f"{name}?")


@pytest.mark.parametrize(
    ("parser", "facts", "thinks"),
    [
        ("qwen3", {}, False),
        ("qwen3", {"prompt": "<think>\n"}, True),
        ("qwen3-thinking", {}, True),
        ("qwen3-thinking", {"think": False}, False),
        ("qwen3-thinking", {"prompt": "<think>\n\n</think>\n\n"}, False),
        ("qwen3-thinking", {"last": {"role": "assistant", "content": "Hel"}}, False),
        ("qwen3-thinking", {"last": SO, "think": False, "prompt": "<think>\nso"}, True),
        ("qwen3-thinking", {"last": SO, "think": False, "prompt": "<think>\nso</think>"}, False),  # closed
        ("qwen3.5", {}, True),
        ("nemotron-3-nano", {}, True),
        ("nemotron-3.5-nano", {"think": False}, False),
        ("glm-4.7", {}, True),
        ("deepseek3", {}, False),
        ("deepseek3", {"think": "low"}, True),
        ("cogito", {"think": True}, False),  # there are tools
        ("laguna", {}, False),
        ("laguna", {"think": True}, True),
        ("qwen3-vl-thinking", {"think": False}, True),
        ("olmo3-think", {"think": False}, True),
        ("lfm2-thinking", {"think": True}, False),
    ],
)
def test_an_answer_begins_where_the_prompt_ends(parser: str, facts: dict[str, Any], thinks: bool) -> None:
    answer = configured(parser, "a</think>b", **facts)

    assert answer == (Read("a", "b") if thinks else Read(content="a</think>b"))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"think": True, "tools": TOOLS}, Read("a", "b", [("clock", {})])),
        ({"think": True}, Read("a", f"b{CALL}")),
        ({"think": False, "tools": TOOLS}, Read(content="<think>a</think>b", calls=[("clock", {})])),
        ({"think": None}, Read(content=f"<think>a</think>b{CALL}")),
        ({"think": True, "last": {"role": "assistant", "content": "x"}}, Read(content=f"<think>a</think>b{CALL}")),
        ({"think": True, "last": SO, "prompt": "<think>so"}, Read("<think>a", f"b{CALL}")),
        ({"think": True, "last": SO, "prompt": "<think>so</think><e>\n"}, Read("a", f"b{CALL}")),
    ],
)
def test_a_template_without_parser_is_read_by_its_tags(facts: dict[str, Any], expected: Read) -> None:
    form = Format("json", "<tool_call>", THINK)

    assert read(parser_for(form, **facts), [f"<think>a</think>b{CALL}"]) == expected


def test_a_probed_format_passes_on_what_a_config_would_refuse() -> None:
    form = answer_format("", "", None, Probe("ministral", "{", ("[THINK]", "[/THINK]")))

    answer = read(parser_for(form, tools=TOOLS), ["[THINK]a[/THINK][TOOL_CALLS]nope[ARGS]{}"])

    assert answer == Read("a", "", [("nope", {})])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Format("json", "[TOOL_CALLS] [", THINK), (*THINK, "[TOOL_CALLS]")),
        (Format("json", "<|tool_call|>["), ("<|tool_call|>",)),
        (Format("json"), ()),
        (Format("passthrough", is_configured=True), ()),
        (
            Format("harmony", is_configured=True),
            ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>"),
        ),
        (
            Format("ministral", is_configured=True),
            ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
        ),
        (
            Format("gemma4", is_configured=True),
            ("<channel|>", "<|tool_call>", "<tool_call|>", "<|channel>", '<|"|>'),
        ),
    ],
)
def test_marker_tokens_are_shown(form: Format, expected: tuple[str, ...]) -> None:
    assert preserved_tokens(form) == expected


@pytest.mark.parametrize("tools", [[None, 1, "x", {"function": None}, {"function": {"name": 3}}], [{}]])
def test_tools_that_are_none_are_ignored(tools: list[Any]) -> None:
    assert read(parser_for(Format("json", "<tool_call>"), tools=tools), [CALL]) == Read(content=CALL)


@pytest.mark.parametrize(
    ("form", "facts", "expected"),
    [
        (Format("json", "{", THINK), {"think": True}, (*THINK, False)),
        (Format("json", "{", THINK), {"think": True, "prompt": "<think>\n"}, (*THINK, True)),
        (Format("json", "{", THINK), {"think": False, "prompt": "<think>\n"}, None),
        (Format("json", "{", THINK), {}, None),
        (Format("json"), {"think": True}, None),
        (Format("qwen3-thinking", is_configured=True), {}, (*THINK, True)),
        (Format("qwen3-thinking", is_configured=True), {"think": False}, None),
        (Format("qwen3-thinking", is_configured=True), {"last": {"content": "Hel"}}, None),
        (Format("qwen3-vl-thinking", is_configured=True), {"think": False}, (*THINK, True)),
        (Format("gemma4", is_configured=True), {"think": True}, ("<|channel>thought", "<channel|>", False)),
        (Format("qwen3-coder", is_configured=True), {"think": True}, None),
        (
            Format("harmony", is_configured=True),
            {},
            ("<|channel|>analysis<|message|>", "<|channel|>final\0<|message|>", True),
        ),
        (Format("passthrough", is_configured=True), {"think": True}, None),
    ],
)
def test_reasoning_that_goes_first_is_announced(
    form: Format, facts: dict[str, Any], expected: tuple[str, str, bool] | None
) -> None:
    assert thought_of(form, **facts) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Format("json", "[TOOL_CALLS]"), ("[TOOL_CALLS]",)),
        (Format("qwen3", is_configured=True), ("<tool_call>",)),
        (Format("kimi"), ("<|tool_calls_section_begin|>", "<|tool_call_begin|>")),
        (Format("passthrough", is_configured=True), ()),
    ],
)
def test_calls_begin_with_their_tags(form: Format, expected: tuple[str, ...]) -> None:
    assert tool_tags(form) == expected
