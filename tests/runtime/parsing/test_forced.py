"""An answer that has to be one call: it is a call, or it is text, and every client can read it."""

from __future__ import annotations

import pytest

from runtime.parsing.calls import ToolCall
from runtime.parsing.forced import ForcedCall
from runtime.parsing.thinking import ThinkingSplitter


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity"])
def test_a_number_that_no_answer_can_carry_makes_no_call(number: str) -> None:
    text = f'{{"name":"f","arguments":{{"x":{number}}}}}'
    reader = ForcedCall(ThinkingSplitter(""))
    reader.feed(text)

    end = reader.finish()

    assert (end.content, end.calls) == (text, ())


def test_the_whole_answer_is_the_call() -> None:
    reader = ForcedCall(ThinkingSplitter(""))
    reader.feed('{"name":"f","argum')
    reader.feed('ents":{"x":1.5}}')

    (call,) = reader.finish().calls

    assert call == ToolCall("f", {"x": 1.5}, 0, call.id)
