"""Reasoning between two tags, at the beginning of an answer."""

from __future__ import annotations

import pytest

from runtime.parsing.calls import Parsed
from runtime.parsing.thinking import ThinkingSplitter


@pytest.mark.parametrize(
    ("prompt", "pieces", "expected"),
    [
        ("", ["<think>", "plan", "</think>", "\n\nHi"], [("", ""), ("plan", ""), ("", ""), ("", "Hi")]),
        (
            "",
            [" \n<th", "ink>\n a", " b</thi", "nk>\n", " \nx", "y"],
            [("", ""), ("a", ""), (" b", ""), ("", ""), ("", "x"), ("", "y")],
        ),
        ("", ["<think>a</thi", "nk b</think>c"], [("a", ""), ("</think b", "c")]),
        ("", ["Hello <think>no</think>"], [("", "Hello <think>no</think>")]),
        ("", ["  ", "\n", "Hi"], [("", ""), ("", ""), ("", "  \nHi")]),
        ("", ["<think></think>ok"], [("", "ok")]),
        ("", ["<think>never closed"], [("never closed", "")]),
        ("…<think>\n", ["step one", "</think>answer"], [("step one", ""), ("", "answer")]),
    ],
)
def test_a_block_at_the_beginning_is_reasoning(prompt: str, pieces: list[str], expected: list[tuple[str, str]]) -> None:
    splitter = ThinkingSplitter(prompt)

    assert [splitter.feed(piece) for piece in pieces] == [Parsed(*each) for each in expected]
    assert splitter.finish() == Parsed()


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<thi", Parsed(content="<thi")),
        (" \n", Parsed(content=" \n")),
        ("<think>a</th", Parsed(thinking="</th")),
        ("<think>a</think> ", Parsed()),
    ],
)
def test_what_is_held_is_shown_at_the_end(text: str, rest: Parsed) -> None:
    splitter = ThinkingSplitter("")
    splitter.feed(text)

    assert splitter.finish() == rest


def test_reasoning_that_the_prompt_began_goes_on() -> None:
    assert ThinkingSplitter("<think>so", is_inside=True).feed(" far</think>Hi") == Parsed(" far", "Hi")
