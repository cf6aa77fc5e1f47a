"""Text that is shown while it grows: whole characters, no stop string and no part of one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.runner.text import AnswerText

STOPS = [
    pytest.param(["a", "b"], ["END"], "ab", False, id="no stop"),
    pytest.param(["hello E", "ND there"], ["END"], "hello ", True, id="across tokens"),
    pytest.param(["E", "N", "E", "N", "D"], ["END"], "EN", True, id="begins again inside itself"),
    pytest.param(["xEN", "Dy"], ["ND", "END"], "x", True, id="the earliest wins"),
    pytest.param(["EN"], ["END"], "EN", False, id="a beginning that stays one is shown at the end"),
    pytest.param(["aEND"], [""], "aEND", False, id="an empty stop string is none"),
    pytest.param(["END"], ["END"], "", True, id="nothing before it"),
]


@pytest.mark.parametrize(("pieces", "stops", "shown", "is_stopped"), STOPS)
def test_stop_strings_cut_the_text(pieces: list[str], stops: list[str], shown: str, is_stopped: bool) -> None:
    text, stopped = _run([piece.encode() for piece in pieces], stops)

    assert (text, stopped) == (shown, is_stopped)


@given(text=st.text(alphabet="abN€𝄞", max_size=30), cuts=st.lists(st.integers(0, 90)), stop=st.text("abN€", min_size=1))
def test_no_cutting_into_tokens_changes_the_text(text: str, cuts: list[int], stop: str) -> None:
    raw = text.encode()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in itertools.pairwise(edges)]

    shown, stopped = _run(pieces, [stop])

    assert shown == text.split(stop, maxsplit=1)[0]
    assert stopped == (stop in text)


@given(pieces=st.lists(st.binary(max_size=5)))
def test_bytes_that_are_no_text_are_replaced_and_never_break_it(pieces: list[bytes]) -> None:
    shown, _ = _run(pieces, [])

    assert shown == b"".join(pieces).decode("utf-8", "replace")


def test_characters_shown_are_counted_without_what_is_held() -> None:
    text = AnswerText(["END"])
    text.feed(b"abE")

    assert (text.shown, text.received) == (2, 3)
    text.finish()
    assert (text.shown, text.received) == (3, 3)


def _run(pieces: list[bytes], stops: list[str]) -> tuple[str, bool]:
    text, shown = AnswerText(stops), ""
    for piece in pieces:
        shown += text.feed(piece)
        assert not any(stop in shown for stop in stops if stop)
        if text.is_stopped:
            break
    return shown + text.finish(), text.is_stopped
