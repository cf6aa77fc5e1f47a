"""Whatever a model writes, and wherever it is cut: the same reading, nothing lost, no more work than there is text."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.parsing.calls import AnswerParser, Declared
from runtime.parsing.choice import Format, GenericParser, parser_for, preserved_tokens
from runtime.parsing.dialects import PARSERS, PROBED
from runtime.parsing.errors import CallInvalid
from runtime.parsing.splitter import TagSplitter
from runtime.parsing.thinking import ThinkingSplitter
from runtime.parsing.tools import ToolSplitter
from tests.runtime.parsing.reading import TOOLS, Read, read

NAMES = ["get_weather", "get", "clock"]
FORMATS = [Format(name, is_configured=True) for name in (*PARSERS, "harmony", "glimmer", "passthrough")]
FORMATS += [Format(name, thinking_tags=("<think>", "</think>")) for name in PROBED]
FORMATS += [
    Format("json", tag, ("<think>", "</think>")) for tag in ("<tool_call>", "{", "[", "[TOOL_CALLS]", "functools[")
]
IDS = [f"{form.dialect} {form.tool_tag}" for form in FORMATS]
SEED = "é"  # stands in no tag, name or key: it has to come out as often as it went in

_WORDS = [
    *(" ", "\n", "<", "{", "}", "[", "]", "(", ")", '"', "'", ",", ":", "\\", "=", "1", "-", SEED, f"x{SEED} "),
    *("get_weather", "get", "clock", "city", "name", "functions.", "call:", "to=", "assistant"),
    *('{"name": "clock", "arguments": {"a": "é"}}', '"arguments": {', '{"city": "é"}', f"(city='{SEED}')", "```json\n"),
    *("<|constrain|>", "<function=clock>", "<parameter=a>", "</parameter>", "</function>", "commentary", "analysis"),
]
# what a header names is shown by where its message goes
_HEADER_WORDS = re.compile(r"<\|channel\|>\S*|to=\S+|<\|constrain\|>\S*")


def words(form: Format) -> list[str]:
    return [*_WORDS, *preserved_tokens(form), form.tool_tag]


def texts(form: Format) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(words(form)), max_size=24).map("".join)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[start:end] for start, end in pairwise(places)]


def in_any_pieces(form: Format, text: str, cuts: list[int]) -> tuple[Read, Read]:
    def parser() -> AnswerParser:
        return parser_for(form, tools=TOOLS, think=True)

    return read(parser(), [text]), read(parser(), pieces(text, cuts))


@pytest.mark.parametrize("form", FORMATS, ids=IDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), cuts=st.lists(st.integers(1, 200), max_size=12))
def test_a_reading_does_not_depend_on_the_pieces(form: Format, data: st.DataObject, cuts: list[int]) -> None:
    text = data.draw(texts(form))

    whole, cut = in_any_pieces(form, text, cuts)

    assert whole == cut
    assert whole == read(parser_for(form, tools=TOOLS, think=True), list(text))


@pytest.mark.parametrize("form", FORMATS, ids=IDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_is_lost(form: Format, data: st.DataObject) -> None:
    text = data.draw(texts(form))

    answer, _ = in_any_pieces(form, text, [])

    if answer.failure:  # what follows a forbidden call is not read
        return
    if form.dialect in {"harmony", "glimmer"}:
        text = _HEADER_WORDS.sub("", text)
    shown = answer.thinking + answer.content + json.dumps(answer.calls, ensure_ascii=False)
    assert shown.count(SEED) >= text.count(SEED)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=80), cuts=st.lists(st.integers(1, 80), max_size=8))
def test_text_without_tags_is_content(text: str, cuts: list[int]) -> None:
    for form in FORMATS:
        if form.dialect in {"olmo3-think", "qwen3-vl-thinking"} or set(text) & set("<[{"):
            continue
        answer = read(parser_for(form, tools=TOOLS, think=False), pieces(text, cuts))
        assert answer.content.strip() == text.strip()


@settings(max_examples=60, deadline=None)
@given(text=texts(FORMATS[0]).map(lambda text: f"<tool_call>{text}"), cuts=st.lists(st.integers(1, 200), max_size=12))
def test_bounds_hold_wherever_the_text_is_cut(text: str, cuts: list[int]) -> None:
    def parsers() -> list[AnswerParser]:
        tags = [TagSplitter(PARSERS[name], Declared.of(TOOLS), max_chars=20) for name in ("glm-4.7", "qwen3")]
        return [*tags, ToolSplitter("<tool_call>", NAMES, max_chars=20)]

    for whole, cut in zip(parsers(), parsers(), strict=True):
        assert read(whole, [text]) == read(cut, pieces(text, cuts))


def _json() -> AnswerParser:
    return GenericParser(ThinkingSplitter(""), ToolSplitter("{", NAMES))


def _tagged() -> AnswerParser:
    return GenericParser(ThinkingSplitter("<think>"), ToolSplitter("<tool_call>", NAMES))


def _built_in(name: str) -> Callable[[], AnswerParser]:
    return lambda: parser_for(Format(name, is_configured=True), tools=TOOLS)


def _seconds(make: Callable[[], AnswerParser], text: str, size: int) -> float:
    """Processor time of one reading, in pieces of `size` characters."""
    parser, start = make(), time.process_time()
    for at in range(0, len(text), size):
        parser.feed(text[at : at + size])
    with suppress(CallInvalid):  # what was fed is no JSON
        parser.finish()
    return time.process_time() - start


def _grows(make: Callable[[], AnswerParser], first: str, unit: str, size: int, chars: int) -> float:
    """How much longer eight times the text takes: 8 when the work is linear, 64 when it is quadratic."""
    text = unit * (chars // len(unit))
    short = min(_seconds(make, first + text, size) for _ in range(3))
    return _seconds(make, first + text * 8, size) / max(short, 0.001)


@pytest.mark.parametrize("make", [_json, _tagged, _built_in("gemma4"), _built_in("harmony"), _built_in("lfm2")])
@pytest.mark.parametrize(
    "unit",
    ["<", "{", " ", "[", "<tool_call>{", '{"a":1}, ', "clock {x} ", "<|tool_call>call:", "[clock(a=1", "<|start|>"],
)
def test_a_long_piece_takes_no_more_than_its_share(make: Callable[[], AnswerParser], unit: str) -> None:
    assert _grows(make, "", unit, 1 << 20, 32_000) < 24


def test_a_name_after_many_objects_takes_no_more_than_its_share() -> None:
    def seconds(count: int) -> float:
        return _seconds(_tagged, "</think><tool_call>" + '{"name":"x","arguments":{}}' * count + "clock {}", 1 << 20)

    assert seconds(32_000) / max(min(seconds(4_000) for _ in range(3)), 0.001) < 24


@pytest.mark.parametrize(
    ("make", "first", "unit"),
    [
        (_json, "", "{"),
        (_json, "", " "),
        (_tagged, "</think><tool_call>", "<"),
        (_tagged, "</think><tool_call>", "clock {x} "),
        (_built_in("gemma4"), "<|tool_call>", "{"),
        (_built_in("harmony"), "<|channel|>commentary to=a<|message|>", "<"),
    ],
)
def test_many_small_pieces_take_no_more_than_their_share(
    make: Callable[[], AnswerParser], first: str, unit: str
) -> None:
    assert _grows(make, first, unit, 4, 120_000) < 24
