"""POST /v1/completions. Source: the Ollama API, "POST /v1/completions"."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from runtime.api.openai.logprobs import TextLogprobs
from tests.openai_app import COMPLETIONS, GREEDY, JSON, chunks, error, post, whole

NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
ONE_PROMPT = "prompt must be one string: this server gives one answer a request"


def test_a_completion_is_one_text_with_its_figures(ollama: FlaskClient) -> None:
    answer = whole(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY)
    same = whole(ollama, COMPLETIONS, model="tiny", prompt=["hello"], **GREEDY)

    assert re.fullmatch(r"cmpl-\d+", answer["id"])
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert list(choice) == ["text", "index", "finish_reason"]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert answer["usage"]["completion_tokens"] == 8
    assert same["choices"] == answer["choices"]


def test_a_stream_says_what_the_whole_answer_says(ollama: FlaskClient) -> None:
    answer = whole(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY)
    streamed = chunks(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY)

    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == answer["choices"][0]["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in streamed] == [None] * 8 + ["length"]
    assert len({(chunk["id"], chunk["created"]) for chunk in streamed}) == 1
    assert not any("usage" in chunk for chunk in streamed)


def test_trap_41_every_chunk_has_figures(ollama: FlaskClient) -> None:
    wanted = {"stream_options": {"include_usage": True}}
    *others, last = chunks(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY, **wanted)

    assert all(chunk["usage"] == NOTHING and chunk["choices"] for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8


def test_an_empty_prompt_only_loads(ollama: FlaskClient) -> None:
    answer = whole(ollama, COMPLETIONS, model="tiny", prompt="")
    (chunk,) = chunks(ollama, COMPLETIONS, model="tiny")

    for loaded in (answer, chunk):
        assert loaded["choices"] == [{"text": "", "index": 0, "finish_reason": "load"}]
        assert loaded["usage"] == NOTHING


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model": "gotemplate", "prompt": "q"}, "<q>"),
        ({"model": "go-gap", "prompt": "def f(", "suffix": "return 1"}, "<pre>def f(<suf>return 1<mid>"),
    ],
)
def test_a_prompt_goes_through_the_template(ollama: FlaskClient, body: JSON, expected: str) -> None:
    shown = whole(ollama, COMPLETIONS, **body, _debug_render_only=True)

    assert shown["_debug_info"] == {"rendered_template": expected}


@pytest.mark.parametrize("top", [0, 2])
def test_logprobs_are_lists_side_by_side(ollama: FlaskClient, top: int) -> None:
    asked = {"model": "tiny", "prompt": "hello", "logprobs": top} | GREEDY
    (choice,) = whole(ollama, COMPLETIONS, **asked)["choices"]
    streamed = [chunk["choices"][0] for chunk in chunks(ollama, COMPLETIONS, **asked)]

    lists = choice["logprobs"]
    assert list(lists) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert "".join(lists["tokens"]) == choice["text"]
    assert all(logprob <= 0 for logprob in lists["token_logprobs"])
    assert [choice["text"][at:][:1] for at in lists["text_offset"]] == [token[:1] for token in lists["tokens"]]
    assert [len(each) for each in lists["top_logprobs"] or []] == [2] * (8 if top else 0)
    for key in ("tokens", "text_offset"):
        assert [each for chunk in streamed if "logprobs" in chunk for each in chunk["logprobs"][key]] == lists[key]


def test_offsets_count_characters_however_many_tokens_one_takes() -> None:
    texts = [b"a", "é".encode()[:1], "é".encode()[1:], b"b", b""]
    entries = [{"token": text.decode("utf-8", "replace"), "logprob": -1.0, "bytes": list(text)} for text in texts]
    del entries[-1]["bytes"]  # of a token that stands for no text

    assert TextLogprobs().shown(entries)["text_offset"] == [0, 1, 1, 2, 3]


def test_trap_25_stop_is_one_text_or_several(ollama: FlaskClient) -> None:
    free = whole(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY)["choices"][0]["text"]

    for stop in (free[3], [free[3]]):
        choice = whole(ollama, COMPLETIONS, model="tiny", prompt="hello", **GREEDY, stop=stop)["choices"][0]
        assert choice == {"text": free[: free.index(free[3])], "index": 0, "finish_reason": "stop"}


REFUSALS: list[tuple[JSON, int, str]] = [
    ({"model": ""}, 404, "model '' not found"),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"model": "bert"}, 400, '"bert" does not support generate'),
    ({"prompt": ["a", "b"]}, 400, ONE_PROMPT),
    ({"prompt": []}, 400, ONE_PROMPT),
    ({"prompt": [1, 2]}, 400, ONE_PROMPT),
    ({"prompt": [[1, 2]]}, 400, ONE_PROMPT),
    ({"prompt": 5}, 400, ONE_PROMPT),
    ({"stop": ["a", 5]}, 400, "invalid type for 'stop' field: number"),
    ({"stop": {}}, 400, "invalid type for 'stop' field: object"),
    ({"logprobs": True}, 400, 'field "logprobs" must be of type integer'),
    ({"logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ({"n": 3}, 400, "n must be 1: this server gives one answer a request, and not 3"),
    ({"suffix": "s"}, 400, "registry.ollama.ai/library/tiny:latest does not support insert"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_what_cannot_be_completed_is_refused(ollama: FlaskClient, body: JSON, status: int, message: str) -> None:
    refused = post(ollama, COMPLETIONS, **{"model": "tiny", "prompt": "x"} | body)

    assert (refused.status_code, refused.json) == error(status, message)
