"""Which messages reach the model, and how reasoning is told from the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.parsing.thinking import ThinkingSplitter
from runtime.prompts import assemble, fit, mark_images, without_marks
from runtime.templates.errors import RendererBusy, TemplateFailed

JSON = dict[str, Any]


def message(role: str, content: str = "") -> JSON:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("system", "request_roles", "expected"),
    [
        ("S", ["user"], ["system", "stored", "user"]),
        ("", ["user"], ["stored", "user"]),
        ("S", ["system", "user"], ["stored", "system", "user"]),
        ("S", ["user", "system"], ["system", "stored", "user", "system"]),
        ("S", ["SYSTEM"], ["stored", "system"]),
        ("S", [], ["system", "stored"]),
    ],
)
def test_the_models_system_text_yields_only_to_a_leading_one(
    system: str, request_roles: list[str], expected: list[str]
) -> None:
    found = assemble(system, [message("stored")], [message(role) for role in request_roles])

    assert [each["role"] for each in found] == expected


def render(messages: Sequence[JSON]) -> str:
    return "".join(each["content"] for each in messages)


def plain_fit(messages: list[JSON], limit: int) -> list[JSON]:
    """The reference's loop: drop the oldest, one at a time."""
    for start in range(len(messages)):
        kept = [each for each in messages[:start] if each["role"] == "system"] + messages[start:]
        if len(render(kept)) <= limit:
            return kept
    return [each for each in messages[:-1] if each["role"] == "system"] + messages[-1:]


conversations = st.lists(
    st.builds(
        lambda role, size, mark: message(role, mark * size),
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.integers(1, 20),
        st.sampled_from("abcdef"),
    ),
    min_size=1,
    max_size=30,
)


@given(conversations, st.integers(1, 200))
def test_fitting_keeps_what_dropping_one_by_one_would_keep(messages: list[JSON], limit: int) -> None:
    fitted = fit(messages, render, len, limit)

    assert fitted.messages == plain_fit(messages, limit)
    assert fitted.prompt == render(fitted.messages)
    assert fitted.dropped == len(messages) - len(fitted.messages)


@given(conversations, st.integers(1, 200))
def test_fitting_keeps_system_messages_and_the_last_one(messages: list[JSON], limit: int) -> None:
    fitted = fit(messages, render, len, limit).messages

    assert fitted[-1] is messages[-1]
    kept = [each for each in fitted if each["role"] == "system"]
    assert kept == [each for each in messages if each["role"] == "system"]


def test_long_conversations_are_counted_a_few_times_only() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text)

    fit([message("user", "x" * 10) for _ in range(1000)], render, count, 500)

    assert len(counted) < 40


def test_a_template_that_refuses_a_broken_off_conversation_is_shown_a_shorter_one() -> None:
    def strict(messages: Sequence[JSON]) -> str:
        if messages[0]["role"] != "user":
            raise TemplateFailed("must begin with user")
        return render(messages)

    fitted = fit(
        [message(role, "x" * 10) for role in ["user", "assistant", "user", "assistant", "user"]], strict, len, 45
    )

    assert [each["role"] for each in fitted.messages] == ["user", "assistant", "user"]


def test_a_template_that_refuses_the_whole_conversation_fails_the_request() -> None:
    def refuse(messages: Sequence[JSON]) -> str:
        raise TemplateFailed("no")

    with pytest.raises(TemplateFailed):
        fit([message("user", "a"), message("user", "b")], refuse, len, 10)


def test_a_beginning_is_found_before_an_end_that_the_template_refuses() -> None:
    """No conversation may begin with what a tool said; the call before it, and its question, fit."""

    def strict(messages: Sequence[JSON]) -> str:
        if messages[0]["role"] != "user":
            raise TemplateFailed("must begin with user")
        return render(messages)

    long = [message(role, "x" * 100) for role in ["user", "assistant"] * 5]
    end = [message("user", "q"), message("assistant", "call"), message("tool", "r")]

    assert fit(long + end, strict, len, 50).messages == end


def test_a_search_costs_no_more_than_its_renders() -> None:
    """Every beginning but one refuses, and the template is asked a bounded number of times."""
    asked: list[int] = []

    def picky(messages: Sequence[JSON]) -> str:
        asked.append(len(messages))
        if len(messages) != 2900:
            raise TemplateFailed("no")
        return render(messages)

    with pytest.raises(TemplateFailed):
        fit([message("user", "x" * 100) for _ in range(3000)], picky, len, 10)
    assert len(asked) < 100


def test_a_long_conversation_is_rendered_from_its_end() -> None:
    rendered: list[int] = []

    def note(messages: Sequence[JSON]) -> str:
        rendered.append(len(messages))
        return render(messages)

    fit([message("user", "x" * 10) for _ in range(10_000)], note, len, 500)

    assert sum(rendered) < 1000


def test_a_busy_renderer_does_not_cost_a_message() -> None:
    def busy(_: Sequence[JSON]) -> str:
        raise RendererBusy("try again")

    with pytest.raises(RendererBusy):
        fit([message("user", "a" * 50), message("user", "b")], busy, len, 10)


SPLITS = [
    ("", "<think>why\n</think>\n\nbecause", "why\n", "because"),
    ("", "  <think>\n why</think>b", "why", "b"),
    ("", "plain", "", "plain"),
    ("", "  plain", "", "  plain"),
    ("", "no <think>tag</think> here", "", "no <think>tag</think> here"),
    ("", "<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("…<think>\n", "why</think>b", "why", "b"),
    ("", "<think>never closed </thi", "never closed </thi", ""),
    ("", "<thi", "", "<thi"),
    ("", "<think></think>b", "", "b"),
    ("", "<think>1 < 2 </ x</think>b", "1 < 2 </ x", "b"),
]


@pytest.mark.parametrize(("prompt", "text", "thinking", "content"), SPLITS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_reasoning_is_split_off_however_the_text_arrives(
    prompt: str, text: str, thinking: str, content: str, size: int
) -> None:
    splitter = ThinkingSplitter(prompt)
    pieces = [splitter.feed(text[start : start + size]) for start in range(0, len(text), size)]
    pieces.append(splitter.finish())

    assert "".join(piece.thinking for piece in pieces) == thinking
    assert "".join(piece.content for piece in pieces) == content


def _marked_one_by_one(content: str, images: int) -> str:
    """What is promised, in the words of the promise."""
    before = ""
    for number in range(images):
        mark = f"[img-{number}]"
        if "[img]" in content:
            content = content.replace("[img]", mark, 1)
        elif mark not in content:
            before += mark
    return before + content


MARKS = st.lists(st.sampled_from(["[img]", "[img-0]", "[img-1]", "[img-02]", "[img-3]", "[im", "g]", "x"]), max_size=8)


@given(MARKS.map("".join), st.integers(0, 5))
def test_each_image_has_one_place_in_the_text(text: str, images: int) -> None:
    (marked,) = mark_images([{"content": text, "images": ["i"] * images}])

    assert marked["content"] == _marked_one_by_one(text, images)


def test_marks_of_images_count_over_all_messages_and_can_be_taken_out() -> None:
    marked = mark_images([{"content": "a", "images": ["i"]}, {"content": "b[img]c", "images": ["i", "i"]}])
    text = "".join(message["content"] for message in marked)

    assert text == "[img-0]a[img-2]b[img-1]c"
    assert without_marks(text, 2) == "a[img-2]bc"


def test_many_images_in_a_long_text_take_no_time() -> None:
    marks = 20_000
    started = time.process_time()

    mark_images([{"content": "x" * 10**6 + "[img]" * marks, "images": ["i"] * 2 * marks}])

    assert time.process_time() - started < 5  # one by one it takes minutes
