"""What needs a model that makes sense: SmolLM2, through the whole server and the official Python client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import ollama
import pytest

from demo import smollm2
from tests.client import Client
from tests.server import running_server

MODEL = "demo/smollm2:135m"
GREEDY = {"temperature": 0, "num_predict": 64}
TOPICS = ("ships", "cranes", "harbours", "storms", "ropes", "charts", "anchors", "lighthouses")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("sense") / "data") as server:
        Client(server.host, server.admin_token).push_model("demo/smollm2", "135m", smollm2.fetch())
        yield server.host


@pytest.fixture(scope="module")
def client(host: str) -> ollama.Client:
    return ollama.Client(host=f"http://{host}")


def story(topic: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Write a long story about {topic} and the people who work with them."}]


def test_it_knows_a_capital(client: ollama.Client) -> None:
    question = [{"role": "system", "content": ""}, {"role": "user", "content": "What is the capital of France?"}]

    answer = client.chat(MODEL, question, options=GREEDY)

    assert "Paris" in (answer.message.content or "")


def test_a_stream_says_what_the_whole_answer_says(client: ollama.Client) -> None:
    whole = client.chat(MODEL, story("ships"), options=GREEDY)
    parts = list(client.chat(MODEL, story("ships"), options=GREEDY, stream=True))

    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert len(parts) > 20
    final = parts[-1]
    assert final.done
    assert final.done_reason == "length"
    assert final.eval_count == 64
    assert final.prompt_eval_count == whole.prompt_eval_count
    assert all(value and value > 0 for value in (final.total_duration, final.eval_duration, final.prompt_eval_duration))


def test_eight_streams_at_once_each_say_what_they_say_alone(client: ollama.Client) -> None:
    def ask(topic: str) -> str:
        parts = list(client.chat(MODEL, story(topic), options=GREEDY, stream=True))
        assert parts[-1].done
        assert parts[-1].eval_count == 64
        return "".join(part.message.content or "" for part in parts)

    alone = [ask(topic) for topic in TOPICS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, TOPICS))

    assert together == alone
    assert len(client.ps().models) == 1


def test_generate_goes_on_from_its_context(client: ollama.Client) -> None:
    first = client.generate(MODEL, "My name is Ada.", options={"temperature": 0, "num_predict": 24})
    assert first.context

    second = client.generate(
        MODEL, "What is my name?", context=first.context, options={"temperature": 0, "num_predict": 24}
    )

    assert second.context and second.context[: len(first.context)] == first.context
    assert second.prompt_eval_count and second.prompt_eval_count > len(first.context)


def test_embeddings_know_what_is_near(client: ollama.Client) -> None:
    ship, boat, sums = client.embed(MODEL, ["a ship at sea", "a boat on the water", "seven times nine"]).embeddings

    def cosine(left: Sequence[float], right: Sequence[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert cosine(ship, ship) == pytest.approx(1, abs=1e-5)
    assert cosine(ship, boat) > cosine(ship, sums)
    assert client.embeddings(MODEL, "a ship at sea").embedding == pytest.approx(ship, abs=1e-3)


def test_the_official_client_lists_and_shows(client: ollama.Client) -> None:
    listed = client.list().models[0]
    shown = client.show(MODEL)

    assert listed.model == MODEL
    assert listed.size and listed.size > smollm2.SIZE
    assert shown.modelinfo and shown.modelinfo["general.architecture"] == "llama"
    assert "completion" in (shown.capabilities or [])
    assert "<|im_start|>" in (shown.template or "")


def test_a_missing_model_is_the_clients_404(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("no/such", story("ships"))

    assert caught.value.status_code == 404


def test_an_unloaded_model_is_gone_from_the_list(client: ollama.Client) -> None:
    client.generate(MODEL, keep_alive=0)

    assert client.ps().models == []
