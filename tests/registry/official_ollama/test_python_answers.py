"""The official Python client, ollama 0.6.3 of PyPI: answers and vectors, of `Client` and `AsyncClient`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.registry.official_ollama.clients import OfficialClient
from tests.registry.ollama_api.world import user
from tests.registry.test_sense import asked, weather
from tests.tiny_gguf import EMBEDDING
from tests.tiny_projector import image_bytes

SCHEMA = {
    "type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
ROOM: dict[str, Any] = {"num_predict": 64, "temperature": 0}


def test_a_chat_says_in_parts_what_it_says_as_a_whole(client: OfficialClient) -> None:
    talk = [ollama.Message(role="system", content="Be brief."), *user("hello")]

    whole = client.chat("tiny", talk)
    parts = client.chat("tiny", talk, stream=True)

    assert (whole.model, whole.message.role, whole.done, whole.done_reason) == ("tiny", "assistant", True, "length")
    assert whole.eval_count == 8
    assert whole.prompt_eval_count > 4
    assert all(taken > 0 for taken in (whole.total_duration, whole.prompt_eval_duration, whole.eval_duration))
    assert len(parts) > 2
    assert "".join(part.message.content for part in parts) == whole.message.content != ""
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == 8


def test_a_text_goes_on_in_parts_and_as_a_whole(client: OfficialClient) -> None:
    whole = client.generate("tiny", "hello", system="Be brief.", template="{{ .System }}|{{ .Prompt }}|")
    parts = client.generate("tiny", "hello", system="Be brief.", template="{{ .System }}|{{ .Prompt }}|", stream=True)

    assert "".join(part.response for part in parts) == whole.response != ""
    assert parts[-1].context == whole.context
    assert len(whole.context) == whole.prompt_eval_count + whole.eval_count


def test_a_text_goes_on_from_the_context_of_another(client: OfficialClient) -> None:
    first = client.generate("tiny", "hello")

    second = client.generate("tiny", "world", context=first.context)

    assert second.context[: len(first.context)] == first.context
    assert second.prompt_eval_count > len(first.context)


def test_raw_text_and_a_gap_are_filled_without_a_template(client: OfficialClient) -> None:
    raw = client.generate("tiny", "hello", raw=True)
    gap = client.generate("gap", "def f():", "return x", options=ROOM)

    assert raw.context is None
    assert raw.prompt_eval_count < client.generate("tiny", "hello").prompt_eval_count
    assert gap.eval_count == 64


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_tells_how_likely_its_tokens_were(client: OfficialClient, streams: bool) -> None:
    likely: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "stream": streams}
    answers = client.chat("tiny", user(), **likely), client.generate("tiny", "hello", **likely)

    for answer in answers:
        told = [each for part in (answer if streams else [answer]) for each in part.logprobs or ()]
        assert len(told) == 8
        assert all(each.logprob <= 0 and each.top_logprobs[0].token == each.token for each in told)  # it is greedy
        assert all(len(each.top_logprobs) == 2 for each in told)


def test_reasoning_is_kept_apart_where_it_is_wanted(client: OfficialClient) -> None:
    chats = [client.chat("thinker", user(), think=think).message for think in (True, "low", False)]
    texts = [client.generate("thinker", "hello", think=think) for think in (True, False)]

    assert [bool(each.thinking) for each in chats] == [True, True, False]
    assert [bool(each.content) for each in chats] == [False, False, True]
    assert [bool(each.thinking) for each in texts] == [True, False]
    parts = client.chat("thinker", user(), think=True, stream=True)
    assert "".join(part.message.thinking or "" for part in parts) == chats[0].thinking


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_obeys_a_schema(client: OfficialClient, streams: bool) -> None:
    chat = client.chat("tiny", user(), format=SCHEMA, options=ROOM, stream=streams)
    text = client.generate("tiny", "hello", format=SCHEMA, options=ollama.Options(**ROOM), stream=streams)

    chats, texts = (chat, text) if streams else ([chat], [text])
    assert json.loads("".join(part.message.content for part in chats)) == {"city": "Rome"}
    assert json.loads("".join(part.response for part in texts)) == {"city": "Rome"}
    assert chats[-1].done_reason == texts[-1].done_reason == "stop"


def test_images_are_seen_as_files_as_bytes_and_as_text(client: OfficialClient, tmp_path: Path) -> None:
    png = image_bytes()
    (tmp_path / "image.png").write_bytes(png)
    images: list[Any] = [png, ollama.Image(value=png), tmp_path / "image.png", str(tmp_path / "image.png")]

    blind = client.chat("seeing", user()).prompt_eval_count
    seen = [client.chat("seeing", [{**user()[0], "images": [image]}]).prompt_eval_count for image in images]

    assert len(set(seen)) == 1
    assert seen[0] > blind
    assert client.generate("seeing", "hello", images=[png]).prompt_eval_count > blind


def test_a_function_is_called_in_parts_and_as_a_whole(client: OfficialClient) -> None:
    talk = [turn for city in ("Rome", "Oslo", "Lima", "Cairo") for turn in asked(city)]
    talk += asked("Paris", is_answered=False)

    whole = client.chat("smollm2:calling", talk, tools=[weather], options=ROOM)
    parts = client.chat("smollm2:calling", talk, tools=[weather], options=ROOM, stream=True)

    for calls in (whole.message.tool_calls, [call for part in parts for call in part.message.tool_calls or ()]):
        assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", {"city": "Paris"})]
    assert whole.done_reason == parts[-1].done_reason == "stop"


def test_texts_become_unit_vectors(client: OfficialClient) -> None:
    one, three = client.embed("bert", "hello"), client.embed("bert", ["hello", "world", ""])
    short = client.embed("bert", "hello", dimensions=8).embeddings[0]

    assert one.embeddings[0] == pytest.approx(three.embeddings[0], abs=1e-5)
    assert [len(vector) for vector in three.embeddings] == [EMBEDDING] * 3
    assert three.prompt_eval_count > one.prompt_eval_count > 0
    assert (len(short), math.hypot(*short)) == (8, pytest.approx(1, abs=1e-5))
    assert client.embed("bert", [])["embeddings"] == []
    assert client.embeddings("bert", "hello").embedding == pytest.approx(one.embeddings[0], abs=1e-5)
