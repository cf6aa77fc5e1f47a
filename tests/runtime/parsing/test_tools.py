"""JSON calls after a tag that a template names."""

from __future__ import annotations

import pytest

from runtime.parsing.calls import Parsed
from runtime.parsing.tools import ToolSplitter
from tests.runtime.parsing.reading import Read, read

NAMES = ["get_weather", "get", "clock"]
OSLO = ("get_weather", {"city": "Oslo"})
TAG = "<tool_call>"
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
NOPE = '<tool_call>{"name": "nope", "arguments": {}}</tool_call>'

CASES: list[tuple[str, str, Read]] = [
    (TAG, f"Let me see. {CALL}", Read(content="Let me see. ", calls=[OSLO])),
    (TAG, f"{CALL}\n{CALL}", Read(calls=[OSLO, OSLO])),
    (TAG, "a < b and <t then done", Read(content="a < b and <t then done")),
    (TAG, "a <tool_c", Read(content="a <tool_c")),
    (TAG, NOPE, Read(content=NOPE)),
    (TAG, "<tool_call>{\"name\": \"clock\"}</tool_call>", Read(content='<tool_call>{"name": "clock"}</tool_call>')),
    (TAG, '<tool_call>{"name": "clock", "arguments": "{\\"a\\": 1}"}', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>{"name": "clock", "parameters": {"a": "}{\\""}}', Read(calls=[("clock", {"a": '}{"'})])),
    (TAG, '<tool_call>{"clock": {"a": 1}}', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>{"calls": [{"name": "clock", "arguments": {"a": 1}}]}', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>clock {"a": 1}', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>clock: {"a": 1}</tool_call>', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>clock with {"a": 1}', Read(content="with", calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>{"a": 1} clock', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>{"tool_name": "clock", "parameters": {}}', Read(calls=[("clock", {})])),
    (TAG, '<tool_call>{"function": "clock", "arguments": {}}', Read(calls=[("clock", {})])),
    (TAG, '<tool_call>{"type": "function", "function": {"name": "clock", "arguments": {"a": 1}}}',
     Read(calls=[("clock", {"a": 1})])),
    # the name that an object gives itself counts for more than a name that occurs in it
    (TAG, '<tool_call>{"arguments": {"city": "clock"}, "name": "get_weather"}',
     Read(calls=[("get_weather", {"city": "clock"})])),
    (TAG, '<tool_call>{"name": "forget", "arguments": {}}',
     Read(content='<tool_call>{"name": "forget", "arguments": {}}')),
    (TAG, '<tool_call>{"name": "functions.clock", "arguments": {}}', Read(calls=[("clock", {})])),
    (TAG, f"{NOPE}\n{CALL}", Read(content='{"name": "nope", "arguments": {}}', calls=[OSLO])),
    # what lacks its last brackets, or has a comma too many
    (TAG, '<tool_call>{"name": "clock", "arguments": {"a": [1', Read(calls=[("clock", {"a": [1]})])),
    (TAG, '<tool_call>{"name": "clock", "arguments": {"a": "half of',
     Read(content='<tool_call>{"name": "clock", "arguments": {"a": "half of')),
    (TAG, '<tool_call>{"name": "clock", "arguments": {"a": 1,},}', Read(calls=[("clock", {"a": 1})])),
    (TAG, '<tool_call>{nope} {"name": "clock", "arguments": {}}', Read(content="{nope}", calls=[("clock", {})])),
    # content around calls
    (TAG, f"{CALL}\nThat was it.", Read(content="That was it.", calls=[OSLO])),
    (TAG, f"{CALL} and {CALL}", Read(content="and", calls=[OSLO, OSLO])),
    # Mistral
    ("[TOOL_CALLS]", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "clock", '
     '"arguments": {}}]', Read(calls=[OSLO, ("clock", {})])),
    ("[TOOL_CALLS]", '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]clock[CALL_ID]ab1[ARGS]{}',
     Read(calls=[OSLO, ("clock", {})])),
    ("[TOOL_CALLS]", '[TOOL_CALLS]get_weather[ARGS]{"name": "Bob", "arguments": {}}',
     Read(calls=[("get_weather", {"name": "Bob", "arguments": {}})])),
    # a bracket is a tag only at the beginning
    ("{", '{"name": "clock", "parameters": {}}', Read(calls=[("clock", {})])),
    ("{", ' \n{"name": "clock", "parameters": {}}', Read(content=" \n", calls=[("clock", {})])),
    ("{", 'Sure: {"name": "clock", "parameters": {}}', Read(content='Sure: {"name": "clock", "parameters": {}}')),
    ("{", '{"a": 1} tail', Read(content='{"a": 1} tail')),
    ("{", '{"a": 1', Read(content='{"a": 1')),
    ("{", '{"name": "clock", "parameters": {}}; {"name": "get", "parameters": {}}',
     Read(calls=[("clock", {}), ("get", {})])),
    ("[", '[{"name": "clock", "arguments": {}}]', Read(calls=[("clock", {})])),
    ("[", "[1, 2] tail", Read(content="[1, 2] tail")),
    ("[", '[{"a": 1}, 2] clock', Read(content='[{"a": 1}, 2] clock')),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "text", "expected"), CASES)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_calls_are_found_behind_the_tag(tag: str, text: str, expected: Read, cut: int) -> None:
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)] if cut else [text]

    assert read(ToolSplitter(tag, NAMES), pieces) == expected


def test_a_call_is_told_as_soon_as_it_is_complete() -> None:
    splitter = ToolSplitter(TAG, NAMES)
    pieces = [
        "Let me see. <tool",
        '_call>\n{"name": "get_weather", "argu',
        'ments": {"city": "Oslo"}}',
        "\n</tool_call>",
    ]

    said = [splitter.feed(piece) for piece in pieces]

    assert [(each.content, len(each.calls)) for each in said] == [("Let me see. ", 0), ("", 0), ("", 1), ("", 0)]
    assert splitter.finish() == Parsed()


def test_a_name_waits_for_a_longer_one() -> None:
    splitter = ToolSplitter(TAG, NAMES)

    assert splitter.feed('<tool_call>{"a": 1} get') == Parsed()
    (call,) = splitter.feed("_weather ").calls
    assert call.name == "get_weather"


def test_a_call_waits_while_the_text_ends_with_the_beginning_of_a_name() -> None:
    splitter = ToolSplitter(TAG, NAMES)

    assert splitter.feed('<tool_call>{"name": "get", "arguments": {}}</tool_c') == Parsed()
    (call,) = splitter.feed("all>").calls
    assert call.name == "get"


def test_a_call_does_not_wait_for_ever() -> None:
    splitter = ToolSplitter(TAG, NAMES)

    assert splitter.feed('<tool_call>{"name": "get", "arguments": {}}') != Parsed()
    splitter = ToolSplitter(TAG, NAMES)
    assert len(splitter.feed('<tool_call>{"name": "get", "arguments": {}}' + "c" * 1000).calls) == 1
    splitter = ToolSplitter(TAG, NAMES)
    assert splitter.feed('<tool_call>{"name": "get", "arguments": {}}c') == Parsed()
    assert len(splitter.finish().calls) == 1


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_what_is_too_long_for_a_call_is_content(cut: int) -> None:
    text = '<tool_call>{"name": "clock", "arguments": {"a": "' + "x" * 3000 + '"}}</tool_call>'
    splitter = ToolSplitter(TAG, NAMES, max_chars=1000)

    answer = read(splitter, [text[at : at + cut] for at in range(0, len(text), cut)])

    assert answer == Read(content=text)


def test_hostile_names_are_bounded() -> None:
    splitter = ToolSplitter("x" * 10_000, ["y" * 1_000_000, "", "clock"])

    assert read(splitter, ["x" * 10_000, 'clock {"a": 1}']).calls == [("clock", {"a": 1})]
