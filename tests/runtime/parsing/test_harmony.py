"""gpt-oss: channels, recipients, and names that the model can pronounce."""

from __future__ import annotations

import pytest

from runtime.parsing.calls import Declared
from runtime.parsing.harmony import (
    HARMONY,
    Kind,
    MessageSplitter,
    Route,
    harmony_route,
    model_names,
    primed_by,
    renamed_tools,
)
from tests.runtime.parsing.reading import TOOLS, Read, configured, read, tool

OSLO = ("get_weather", {"city": "Oslo"})
CALL = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}'
FINAL = "<|start|>assistant<|channel|>final<|message|>"

CASES: list[tuple[str, Read]] = [
    (f"<|channel|>analysis<|message|> plan <|end|>{FINAL}Hi \n", Read(" plan ", "Hi \n")),
    ("<|channel|>commentary<|message|>preamble<|end|>\n", Read(content="preamble")),
    (f"{CALL}<|call|>", Read(calls=[OSLO])),
    (f"{CALL}", Read(calls=[OSLO])),
    (f"<|channel|>analysis<|message|>plan<|end|><|start|>assistant{CALL}<|end|><|start|>assistant{CALL}<|call|>",
     Read("plan", "", [OSLO, OSLO])),
    (' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>', Read(calls=[OSLO])),
    (' to=functions.get_weather<|channel|>analysis<|message|>{"city": "Oslo"}<|call|>', Read(calls=[OSLO])),
    ("<|channel|>commentary to=functions.clock<|constrain|>json<|message|><|call|>", Read(calls=[("clock", {})])),
    ("<|channel|>commentary to=browser.open<|message|>{}<|call|>", Read(calls=[("browser.open", {})])),
    ("<|channel|>final<|message|>a <|en b<|end|>", Read(content="a <|en b")),
    ("<|channel|>odd<|message|>text<|return|>", Read(content="text")),
    ("Hi there", Read(content="Hi there")),
    ("<|message|>Hi", Read(content="Hi")),
    (" I say<|message|>Hi", Read(content="I sayHi")),
    ("<|channel|>analysis<|message|>plan<|start|>assistant<|channel|>odd<|message|>more", Read("planmore", "")),
    ("<|channel|>analysis<|message|>plan<|end|> so <|start|>assistant<|channel|>final<|message|>Hi",
     Read("plan", "soHi")),
    ("<|channel|>final<|message|>Hi<|end|><|channel|>final<|message|>!", Read(content="Hi!")),
    ("<|channel|>commentary to=functions.clock<|message|>nope<|call|>",
     Read(failure="error parsing tool call: raw='nope', err=")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_messages_go_where_their_headers_say(text: str, expected: Read, cut: int) -> None:
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)] if cut else [text]

    answer = configured("harmony", pieces)

    assert answer.failure.startswith(expected.failure) and bool(answer.failure) == bool(expected.failure)
    assert (answer.thinking, answer.content, answer.calls) == (expected.thinking, expected.content, expected.calls)


def test_without_tools_a_call_is_content() -> None:
    assert configured("harmony", f"{CALL}<|call|>", tools=()) == Read(content='{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("prompt", "last", "expected"),
    [
        ("", None, "<|start|>assistant"),
        ("<|start|>user<|message|>Hi<|end|><|start|>assistant", None, "<|start|>assistant"),
        ("", {"content": "Hel"}, FINAL),
        ("", {"thinking": "so"}, "<|start|>assistant<|channel|>analysis<|message|>"),
        (f"{FINAL}Hel", {"content": "Hel"}, f"{FINAL}Hel"),
        ("<|start|>user<|message|>Hi<|end|>", {"content": "Hel"}, FINAL),
    ],
)
def test_the_parser_begins_where_the_prompt_ends(prompt: str, last: dict[str, str] | None, expected: str) -> None:
    assert primed_by(prompt, last) == expected


def test_what_the_prompt_says_is_no_answer() -> None:
    parser = MessageSplitter(HARMONY, Declared(), f"{FINAL}Hel<|e")

    assert read(parser, ["lo<|end|>"]) == Read(content="lo")


@pytest.mark.parametrize(
    ("header", "route"),
    [
        ("assistant<|channel|>analysis", Route(Kind.THINKING)),
        ("assistant<|channel|>analysis<|constrain|>json", Route(Kind.THINKING)),
        ("to=functions.a<|channel|>commentary", Route(Kind.CALL, "a")),
        ("assistant to=a<|channel|>commentary", Route(Kind.CALL, "a")),
        ("assistant<|channel|>commentary to=functions.a <|constrain|>json", Route(Kind.CALL, "a")),
        ("assistant<|channel|>final to=a", Route(Kind.CONTENT)),
        ("assistant", Route(Kind.CONTENT)),
        ("<|channel|>", Route(Kind.CONTENT)),
    ],
)
def test_a_header_names_channel_and_recipient(header: str, route: Route) -> None:
    assert harmony_route(header, Kind.CONTENT) == route


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["get weather", "get-weather", "get.weather"], ["get_weather", "get_weather_2", "get_weather_3"]),
        (["a!b", "$x", "", "!!", "1st", "ä"], ["ab", "$x", "unnamed", "unnamed_2", "_1st", "ä"]),
        (["browser.open", "python", "browser.x"], ["browser.open", "python", "browser_x"]),
        (["a", "a"], ["a"]),
        (["a_2", "a-2", "a.2"], ["a_2", "a_2_2", "a_2_3"]),
    ],
)
def test_names_are_written_as_the_model_can(names: list[str], expected: list[str]) -> None:
    assert list(model_names(names)) == expected
    assert list(model_names(names).values()) == list(dict.fromkeys(names))


def test_renamed_tools_are_called_by_their_own_names() -> None:
    tools = [tool("get-weather"), tool("get.weather"), {"type": "function"}, "junk"]

    told = renamed_tools(tools)

    assert [each["function"]["name"] for each in told[:2]] == ["get_weather", "get_weather_2"]
    assert told[2:] == tools[2:]
    text = "<|channel|>commentary to=functions.get_weather_2<|message|>{}<|call|>"
    assert configured("harmony", text, tools=tools).calls == [("get.weather", {})]


def test_a_header_without_end_becomes_content() -> None:
    text = "x" * 5000

    assert configured("harmony", [text[:10], text[10:]], tools=TOOLS) == Read(content=text)
