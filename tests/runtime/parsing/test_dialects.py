"""What each family's parser makes of an answer, whole and letter by letter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.parsing.reading import TOOLS, Read, configured

OSLO = ("get_weather", {"city": "Oslo"})
DSK = {
    name: f"<\uff5ctool\u2581{words}\uff5c>"
    for name, words in {
        "all": "calls\u2581begin",
        "end": "calls\u2581end",
        "one": "call\u2581begin",
        "over": "call\u2581end",
        "sep": "sep",
    }.items()
}

CASES: list[tuple[str, str, Read]] = [
    ("passthrough", " <think>a</think><tool_call>", Read(content=" <think>a</think><tool_call>")),
    # Qwen 3
    (
        "qwen3",
        '<think>plan</think>\n\nHi \n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        Read("plan", "Hi", [OSLO]),
    ),
    ("qwen3", "Hi <think>no</think>", Read(content="Hi <think>no</think>")),
    ("qwen3", '<tool_call>{"name":"clock","arguments":{}', Read(calls=[("clock", {})])),
    ("qwen3", '<tool_call>{"name":"clock","argum', Read(content='<tool_call>{"name":"clock","argum')),
    ("qwen3", '<tool_call>{"name":"clock","arguments":{"a":1,},}</tool_call>', Read(calls=[("clock", {"a": 1})])),
    ("qwen3", '<tool_call>{"name":"other","arguments":{}}</tool_call>', Read(calls=[("other", {})])),
    ("qwen3", "a <tool_call>{nope}</tool_call> b", Read(content="a", failure="error parsing tool call")),
    ("qwen3-thinking", "plan</think>\n\nHi", Read("plan", "Hi")),
    ("qwen3-thinking", "<think>\nplan\n</think>Hi", Read("plan", "Hi")),
    ("qwen3-thinking", 'hm<tool_call>{"name":"clock","arguments":{}}</tool_call>', Read("hm", "", [("clock", {})])),
    ("qwen3-vl-instruct", "Hi", Read(content="Hi")),
    ("qwen3-vl-thinking", "plan</think>Hi", Read("plan", "Hi")),
    # Qwen3-Coder and what follows it
    (
        "qwen3-coder",
        "Let me.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=at>\n[1, 2]\n</parameter>\n"
        '<parameter=near>\n{"x": 1}\n</parameter>\n<parameter=limit>\n2.0\n</parameter>\n'
        "<parameter=undeclared>\n3\n</parameter>\n</function>\n</tool_call>",
        Read(
            content="Let me.",
            calls=[
                (
                    "get_weather",
                    {
                        "city": "Oslo",
                        "days": 3,
                        "exact": True,
                        "at": [1, 2],
                        "near": {"x": 1},
                        "limit": 2,
                        "undeclared": "3",
                    },
                )
            ],
        ),
    ),
    (
        "qwen3-coder",
        "<function=get_weather>\n<parameter=city>\na</b>\n\n</parameter>\n</function>\n</tool_call>",
        Read(calls=[("get_weather", {"city": "a</b>\n"})]),
    ),
    (
        "qwen3-coder",
        "<tool_call><function=get_weather>\n<parameter=city>\nOslo\n<parameter=days>\n3\n</function></tool_call>",
        Read(calls=[("get_weather", {"city": "Oslo", "days": 3})]),
    ),
    ("qwen3-coder", "<tool_call>what?</tool_call>", Read(content="<tool_call>what?</tool_call>")),
    ("qwen3-coder", "<tool_call><function=clock></function>", Read(calls=[("clock", {})])),
    (
        "qwen3.5",
        "plan</think>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>",
        Read("plan", "", [("clock", {})]),
    ),
    ("nemotron-3-nano", "plan</think>Hi", Read("plan", "Hi")),
    ("ornith", "<think>plan</think>Hi", Read("plan", "Hi")),
    # Gemma
    (
        "gemma4",
        '<|channel>thought\nplan\n<channel|>Hi<|tool_call>call:get_weather{city:<|"|>Oslo, "N"<|"|>,'
        'days:3,near:{a:[1,true,null,<|"|>x<|"|>]}}<tool_call|>',
        Read("plan", "Hi", [("get_weather", {"city": 'Oslo, "N"', "days": 3, "near": {"a": [1, True, None, "x"]}})]),
    ),
    (
        "gemma4",
        "<|tool_call>call:get_weather{city:'it's',days:3}<tool_call|>",
        Read(calls=[("get_weather", {"city": "it's", "days": 3})]),
    ),
    ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Oslo}<tool_call|>', Read(calls=[OSLO])),
    ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|><tool_call|>', Read(calls=[OSLO])),
    ("gemma4", '<|tool_call>call:get_weather{"city":"Oslo"}', Read(calls=[OSLO])),
    ("gemma4", "<|tool_call>hello<tool_call|>", Read(content="<|tool_call>hello<tool_call|>")),
    (
        "functiongemma",
        "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>"
        "<start_function_call>call:clock{}<end_function_call>",
        Read(calls=[OSLO, ("clock", {})]),
    ),
    # Mistral
    (
        "ministral",
        '[THINK]plan[/THINK]Hi[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]clock[ARGS]{} bye',
        Read("plan", "Hibye", [OSLO, ("clock", {})]),
    ),
    ("ministral", '[TOOL_CALLS]clock[CALL_ID]abc[ARGS]{"x": "}{"}', Read(calls=[("clock", {"x": "}{"})])),
    ("ministral", "Hi[TOOL_CALLS]nope[ARGS]{}", Read(content="Hi", failure="tool 'nope' not found")),
    # DeepSeek, Cogito
    (
        "deepseek3",
        'Hi{all}{one}get_weather{sep}{{"city": "Oslo"}}{over}\n{one}clock{sep}{{}}{over}{end}'.format(**DSK),
        Read(content="Hi", calls=[OSLO, ("clock", {})]),
    ),
    (
        "cogito",
        '{all}{one}function{sep}get_weather\n```json\n{{"city": "Oslo"}}\n```{over}{end}'.format(**DSK),
        Read(calls=[OSLO]),
    ),
    # GLM
    (
        "glm-4.7",
        "plan</think>Hi\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
        "<arg_key>days</arg_key><arg_value>3</arg_value>\n</tool_call>",
        Read("plan", "Hi", [("get_weather", {"city": "Oslo", "days": 3})]),
    ),
    (
        "laguna",
        "<tool_call>get_weather<arg_key>city<arg_value>Oslo<arg_key>days</arg_key><arg_value>3</arg_value>",
        Read(calls=[("get_weather", {"city": "Oslo", "days": 3})]),
    ),
    ("poolside-v1", "<tool_call>clock</tool_call>", Read(calls=[("clock", {})])),
    (
        "laguna",
        "<tool_call>clock<arg_key>a</arg_key><arg_v",
        Read(content="<tool_call>clock<arg_key>a</arg_key><arg_v"),
    ),
    # Python calls
    (
        "lfm2",
        "Hi <|tool_call_start|>[get_weather(city='Os\nlo', days=-3, at=[1, 2.5, {'a': None}], exact=true), clock()]"
        "<|tool_call_end|> bye",
        Read(
            content="Hibye",
            calls=[
                ("get_weather", {"city": "Os\nlo", "days": -3, "at": [1, 2.5, {"a": None}], "exact": True}),
                ("clock", {}),
            ],
        ),
    ),
    ("lfm2", '[get_weather(city="Oslo")]', Read(calls=[OSLO])),
    ("lfm2", 'See [get_weather(city="Oslo")]', Read(content='See [get_weather(city="Oslo")]')),
    ("lfm2-thinking", "<think>plan</think>Hi", Read("plan", "Hi")),
    (
        "olmo3",
        '<function_calls>\nget_weather(city="Oslo")\nget-it(from=1)\n</function_calls>',
        Read(calls=[OSLO, ("get-it", {"from": 1})]),
    ),
    ("olmo3-think", "plan</think>Hi", Read("plan", "Hi")),
    # Cohere
    (
        "cohere",
        "<|START_THINKING|>plan<|END_THINKING|><|START_ACTION|>[\n"
        '{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Oslo"}}\n]<|END_ACTION|>',
        Read("plan", "", [OSLO]),
    ),
    ("cohere", "<|START_RESPONSE|>Hi there<|END_RESPONSE|>", Read(content="Hi there")),
    # Glimmer
    (
        "glimmer",
        " to=self<|message|>plan<|end|><|start|>assistant to=get_weather<|message|><atem:function_calls>\n"
        '<atem:invoke name="get_weather">\n<atem:parameter name="city">Oslo</atem:parameter>\n</atem:invoke>\n'
        "</atem:function_calls><|end|><|start|>assistant<|message|>Hi",
        Read("plan", "Hi", [OSLO]),
    ),
]


@pytest.mark.parametrize(("parser", "text", "expected"), CASES)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_an_answer_is_told_apart(parser: str, text: str, expected: Read, cut: int) -> None:
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)] if cut else [text]

    answer = configured(parser, pieces)

    assert answer.failure.startswith(expected.failure) and bool(answer.failure) == bool(expected.failure)
    assert (answer.thinking, answer.content, answer.calls) == (expected.thinking, expected.content, expected.calls)


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("qwen3", '<tool_call>{"name":"clock","arguments":{}}</tool_call>'),
        ("qwen3-coder", "<tool_call><function=clock></function></tool_call>"),
        ("lfm2", "[clock()]"),
        ("ministral", "[TOOL_CALLS]clock[ARGS]{}"),
    ],
)
def test_without_tools_nothing_is_a_call(parser: str, text: str) -> None:
    answer = configured(parser, text, tools=())

    assert answer.calls == []
    assert answer.content.replace("</tool_call>", "") == text.replace("</tool_call>", "")


def test_the_content_before_a_failure_is_shown_first() -> None:
    answer = configured("qwen3", 'Hi <tool_call>{"name":"clock","arguments":{}}</tool_call><tool_call>{</tool_call>')

    assert (answer.content, answer.calls) == ("Hi", [("clock", {})])
    assert "error parsing tool call" in answer.failure


@pytest.mark.parametrize(
    "body",
    [
        "[clock(a=1+1)]",
        "[clock(a=__import__('os'))]",
        "[clock(a=f'{1}')]",
        "[clock(a=b'x')]",
        "[clock(a=lambda: 1)]",
        "[clock(1)]",
        "[clock(**{'a': 1})]",
        "[clock(a=1e999)]",
        "[clock(a=1, a=2)]",
        "[clock()()]",
        "[(clock)()]",
        "[clock(a=" + "[" * 40 + "]" * 40 + ")]",
        "[clock(a=" + "-" * 1000 + "1)]",
        "[clock(a=1" + "[0]" * 1000 + ")]",
        "import os",
        "clock",
        "x = clock()",
    ],
)
def test_python_that_is_more_than_literals_is_content(body: str) -> None:
    text = f"<|tool_call_start|>{body}<|tool_call_end|>"

    assert configured("lfm2", text) == Read(content=text)


@pytest.mark.parametrize("facts", [{"think": True}, {"think": "high"}, {"prompt": "<\uff5cAssistant\uff5c><think>"}])
@pytest.mark.parametrize("parser", ["deepseek3", "cogito"])
def test_deepseek_thinks_when_asked(parser: str, facts: dict[str, Any]) -> None:
    assert configured(parser, "plan</think>Hi", tools=(), **facts) == Read("plan", "Hi")


def test_cogito_does_not_think_with_tools() -> None:
    assert configured("cogito", "Hi", tools=TOOLS, think=True) == Read(content="Hi")
