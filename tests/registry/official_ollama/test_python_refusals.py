"""The official Python client, ollama 0.6.3 of PyPI: how `Client` and `AsyncClient` are refused, and how they leave."""

from __future__ import annotations

import time
from typing import Any

import ollama
import pytest

from tests.registry.official_ollama.clients import ByItself, InALoop, OfficialClient, refusal
from tests.registry.ollama_api.world import LONG, TOOL, Api, user

NO_CLOUD = "ollama cloud is disabled: web {} is unavailable"
GONE = "pull model manifest: file does not exist"
MISSING = "model 'nope' not found"
REFUSALS: list[tuple[str, dict[str, Any], int, str]] = [
    ("chat", {"model": "nope", "messages": user()}, 404, MISSING),
    ("generate", {"model": "nope", "prompt": "x"}, 404, MISSING),
    ("chat", {"model": " "}, 400, "model is required"),
    ("chat", {"model": "bert", "messages": user()}, 400, '"bert" does not support chat'),
    ("chat", {"model": "tiny", "messages": user(), "tools": [TOOL]}, 400,
     "registry.ollama.ai/library/tiny:latest does not support tools"),
    ("chat", {"model": "tiny", "messages": [{**user()[0], "images": [b"x"]}]}, 400, '"tiny" does not support images'),
    ("generate", {"model": "tiny", "prompt": "x", "images": [b"x"]}, 400, '"tiny" does not support images'),
    ("generate", {"model": "tiny", "prompt": "x", "think": True}, 400, '"tiny" does not support thinking'),
    ("generate", {"model": "tiny", "prompt": "x", "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ("chat", {"model": "tiny", "keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
    ("create", {"model": "a//b", "from_": "tiny"}, 400, "invalid model name"),
    ("create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
    ("pull", {"model": "a//b"}, 400, "invalid model name"),
    ("push", {"model": "a//b"}, 400, "invalid model name"),
]  # fmt: skip


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("method", "given", "status", "text"), REFUSALS)
def test_a_refusal_before_the_first_word_has_status_and_text(
    client: OfficialClient, method: str, given: dict[str, Any], status: int, text: str, streams: bool
) -> None:
    assert refusal(client, method, stream=streams, **given) == (status, text)


@pytest.mark.parametrize(
    ("method", "given", "status", "text"),
    [
        ("embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
        ("embed", {"model": "bert", "input": "x " * 3000, "truncate": False}, 400,
         "the input length exceeds the context length"),
        ("embeddings", {"model": "nope", "prompt": "x"}, 404, 'model "nope" not found, try pulling it first'),
        ("show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        ("delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
    ],
)  # fmt: skip
def test_what_never_streams_is_refused_with_status_and_text(
    client: OfficialClient, method: str, given: dict[str, Any], status: int, text: str
) -> None:
    assert refusal(client, method, **given) == (status, text)


def test_a_transfer_that_fails_tells_it_in_a_line_or_with_a_status(client: OfficialClient, away: str) -> None:
    assert refusal(client, "pull", model=away, insecure=True) == (500, GONE)
    assert refusal(client, "pull", model=away, insecure=True, stream=True) == (-1, GONE)  # a line has no status
    assert refusal(client, "push", model=away, insecure=True) == (500, f"model '{away}' not found")
    assert refusal(client, "push", model=away, insecure=True, stream=True) == (-1, f"model '{away}' not found")


def test_what_runs_in_the_cloud_alone_is_refused_in_one_line(client: OfficialClient) -> None:
    with pytest.raises(ollama.ResponseError, match=NO_CLOUD.format("search")) as search:
        client.web_search("ships", max_results=1)
    with pytest.raises(ollama.ResponseError, match=NO_CLOUD.format("fetch")) as fetch:
        client.web_fetch("https://ships.example")
    with pytest.raises(ollama.ResponseError, match="404 page not found") as scored:
        client.systemone("tiny", "calm", {"storm": ollama.SystemOneNoulQuestion(instructions="Is there a storm?")})

    assert [caught.value.status_code for caught in (search, fetch, scored)] == [403, 403, 404]


@pytest.mark.parametrize(("method", "given"), [("chat", {"messages": user()}), ("generate", {"prompt": "hello"})])
def test_a_stream_that_nobody_reads_on_makes_room_at_once(
    client: OfficialClient, method: str, given: dict[str, Any]
) -> None:
    first = client.hang_up(method, model="tiny", options=LONG, **given)
    began = time.monotonic()

    after = client.chat("tiny", user())

    assert not first.done
    assert after.eval_count == 8
    assert time.monotonic() - began < 10  # there is one slot, and the whole answer would keep it for a minute


@pytest.mark.parametrize("kind", [ByItself, InALoop])
def test_a_closed_client_has_nothing_open(near: Api, kind: type[OfficialClient]) -> None:
    client = kind(near.server)
    assert client.list().models

    client.close()

    with pytest.raises(RuntimeError, match="has been closed"):
        client.list()
