"""What needs a model that makes sense: SmolLM2, through the whole server and the official Python client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import ollama
import pytest

from demo import smollm2
from tests.client import Client
from tests.server import running_server

MODEL = "demo/smollm2:135m"
CALLING = "demo/smollm2:calling"
CALLING_TEMPLATE = b"""{{ if .Tools }}<|im_start|>system
Tools: {{ .Tools }}<|im_end|>
{{ end }}{{ range .Messages }}<|im_start|>{{ if eq .Role "tool" }}user
<tool_response>{{ .Content }}</tool_response>{{ else }}{{ .Role }}
{{ .Content }}{{ if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
GREEDY = {"temperature": 0, "num_predict": 64}
TOPICS = ("ships", "cranes", "harbours", "storms", "ropes", "charts", "anchors", "lighthouses")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("sense") / "data") as server:
        owner = Client(server.host, server.admin_token)
        owner.push_model("demo/smollm2", "135m", smollm2.fetch())
        layer = {"application/vnd.ollama.image.template": CALLING_TEMPLATE}
        owner.push_model("demo/smollm2", "calling", smollm2.fetch(), layer)
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


def weather(city: str) -> str:
    """Get the weather.

    Args:
      city: the name of the city
    """
    return f"sunny in {city}"


def asked(city: str, *, is_answered: bool = True) -> list[dict[str, object]]:
    """A question about a city, and how it was answered with a call."""
    call = {"function": {"name": "weather", "arguments": {"city": city}}}
    turns: list[dict[str, object]] = [{"role": "user", "content": f"What is the weather in {city}?"}]
    answered = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": f"sunny in {city}"},
                {"role": "assistant", "content": f"It is sunny in {city}."}]  # fmt: skip
    return turns + answered if is_answered else turns


def test_a_model_that_has_seen_calls_makes_one(client: ollama.Client) -> None:
    shown = [turn for city in ("Rome", "Oslo", "Lima", "Cairo") for turn in asked(city)]
    talk = [*shown, *asked("Paris", is_answered=False)]

    whole = client.chat(CALLING, talk, tools=[weather], options=GREEDY)
    parts = list(client.chat(CALLING, talk, tools=[weather], options=GREEDY, stream=True))

    assert [call.function.name for call in whole.message.tool_calls or ()] == ["weather"]
    assert whole.message.tool_calls[0].function.arguments == {"city": "Paris"}  # type: ignore[index]
    assert "tool_call" not in (whole.message.content or "")
    told = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.arguments for call in told] == [{"city": "Paris"}]


def test_an_answer_obeys_the_clients_schema(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "continent": {"enum": ["Europe", "Asia"]}},
        "required": ["capital", "continent"],
        "additionalProperties": False,
    }

    answer = client.chat(
        MODEL, [{"role": "user", "content": "What is the capital of France, and its continent?"}], format=schema,
        options=GREEDY,
    )  # fmt: skip

    assert answer.done_reason == "stop"
    assert json.loads(answer.message.content or "")["continent"] in ("Europe", "Asia")


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
    listed = next(each for each in client.list().models if each.model == MODEL)
    shown = client.show(MODEL)

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
