"""The official OpenAI client, over a real socket; it checks every answer against its own types."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

from demo import smollm2
from tests.client import Client
from tests.openai_app import WARM, WEATHER, image_uri
from tests.registry.test_sense import CALLING_TEMPLATE, TOPICS
from tests.server import Server, running_server
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import write_tiny_projector

MODEL, CALLING = "demo/smollm2:135m", "demo/smollm2:calling"
SEEING, TINY, BERT, DOOMED = "acme/seeing", "acme/tiny", "acme/bert", "acme/doomed"
TEMPLATE, PROJECTOR = (f"application/vnd.ollama.image.{kind}" for kind in ("template", "projector"))
GO_CHAT = b"{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}[assistant]"
CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "What is the capital of France?"},
]
FLAT: dict[str, Any] = {"type": "function", "strict": True, **WEATHER["function"]}


class Place(BaseModel):
    """What an answer is to be held to."""

    capital: str
    is_large: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openai")
    with running_server(folder / "data") as running:
        owner = Client(running.host, running.admin_token)
        owner.push_model("demo/smollm2", "135m", smollm2.fetch())
        owner.push_model("demo/smollm2", "calling", smollm2.fetch(), {TEMPLATE: CALLING_TEMPLATE})
        tiny = write_tiny_gguf(folder / "tiny.gguf")
        projector = write_tiny_projector(folder / "projector.gguf").read_bytes()
        owner.push_model("acme/seeing", "latest", tiny, {TEMPLATE: GO_CHAT, PROJECTOR: projector})
        owner.push_model("acme/tiny", "latest", tiny)
        owner.push_model("acme/bert", "latest", write_tiny_gguf(folder / "bert.gguf", arch="bert", chat_template=None))
        owner.push_model("acme/doomed", "latest", write_tiny_gguf(folder / "doomed.gguf", seed=1))
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1/", api_key="any", max_retries=0, _strict_response_validation=True)


@pytest.fixture(scope="module")
def lenient(server: Server) -> openai.OpenAI:
    """For what the client's types do not allow, although it asks for it: base64, and pieces that are not the last."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def test_it_knows_a_capital(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0, max_completion_tokens=40)

    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": CAPITAL, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()

    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content == final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage == whole.usage


def test_a_model_that_has_seen_calls_makes_one(client: openai.OpenAI) -> None:
    talk: list[Any] = []
    for city in ("Rome", "Oslo", "Lima", "Cairo"):
        call = {"id": f"call_{city}", "type": "function",
                "function": {"name": "weather", "arguments": json.dumps({"city": city})}}  # fmt: skip
        talk += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{city}", "content": f"sunny in {city}"},
            {"role": "assistant", "content": f"It is sunny in {city}."},
        ]
    talk.append({"role": "user", "content": "What is the weather in Paris?"})
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip

    answer = client.chat.completions.create(
        model=CALLING, messages=talk, tools=[tool], temperature=0, max_completion_tokens=64
    )

    (choice,) = answer.choices
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "")
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_a_tool_that_must_be_called_is_called_in_a_stream(client: openai.OpenAI) -> None:
    asked: Any = {"model": CALLING, "messages": CAPITAL, "tools": [WEATHER], "tool_choice": "required"} | WARM
    with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        (choice,) = stream.get_final_completion().choices

    assert "tool_calls.function.arguments.done" in kinds
    (call,) = choice.message.tool_calls or ()
    assert json.loads(call.function.arguments) == {"days": 2, "city": "Oslo"}
    assert choice.finish_reason == "tool_calls"


def test_an_answer_is_parsed_into_the_clients_own_type(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=CAPITAL, response_format=Place, temperature=0, max_completion_tokens=200
    )

    assert isinstance(answer.choices[0].message.parsed, Place)


def test_logprobs_are_of_the_tokens_of_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, temperature=0, max_completion_tokens=8, logprobs=True, top_logprobs=3
    )

    (choice,) = answer.choices
    assert choice.logprobs
    entries = choice.logprobs.content or []
    assert "".join(entry.token for entry in entries) == choice.message.content
    assert all(entry.top_logprobs[0].token == entry.token for entry in entries)  # greedy
    assert all(len(entry.top_logprobs) == 3 for entry in entries)


def test_images_are_seen(client: openai.OpenAI) -> None:
    def look(colour: tuple[int, int, int]) -> str | None:
        answer = client.chat.completions.create(
            model=SEEING,
            messages=[{"role": "user", "content": [
                {"type": "text", "text": "what is it"},
                {"type": "image_url", "image_url": {"url": image_uri(colour), "detail": "low"}},
            ]}],
            temperature=0,
            max_tokens=12,
        )  # fmt: skip
        return answer.choices[0].message.content

    assert look((255, 0, 0)) == look((255, 0, 0)) != look((0, 0, 255))


def test_a_prompt_is_completed(client: openai.OpenAI, lenient: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": TINY, "prompt": "hello", "max_tokens": 8, "temperature": 0, "logprobs": 2}
    whole = client.completions.create(**asked)
    pieces = list(lenient.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert whole.choices[0].logprobs
    tokens = whole.choices[0].logprobs.tokens or []
    assert whole.choices[0].logprobs.text_offset == [len("".join(tokens[:at])) for at in range(8)]
    assert pieces[-1].usage == whole.usage


def test_a_seed_makes_chance_repeatable(client: openai.OpenAI) -> None:
    def say(seed: int) -> str:
        return client.completions.create(model=TINY, prompt="hello", max_tokens=16, seed=seed).choices[0].text

    assert say(1) == say(1) != say(2)


def test_vectors_are_the_same_in_either_encoding(lenient: openai.OpenAI) -> None:
    packed = lenient.embeddings.create(model=BERT, input=["hello", "world"])
    plain = lenient.embeddings.create(model=BERT, input=["hello", "world"], encoding_format="float")

    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == 64
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.usage.prompt_tokens > 0


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}

    assert {MODEL, CALLING, f"{TINY}:latest"} <= set(listed)
    assert listed[MODEL].owned_by == "demo"
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("acme/tiny").owned_by == "acme"


def test_a_response_is_made_and_answered(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 40, "instructions": "Be brief."}
    question: dict[str, Any] = {"role": "user", "content": "What is the capital of France?"}
    first = client.responses.create(input=[question], **asked)
    again: Any = [question, *[item.model_dump() for item in first.output], {"role": "user", "content": "Of Italy?"}]
    second = client.responses.create(input=again, **asked)

    assert "Paris" in first.output_text
    assert (first.status, first.instructions) == ("completed", "Be brief.")
    assert first.usage and second.usage
    assert second.usage.input_tokens > first.usage.total_tokens


def test_a_response_is_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "What is the capital of France?", "temperature": 0}
    whole = client.responses.create(**asked, max_output_tokens=24)
    with client.responses.stream(**asked, max_output_tokens=24) as stream:
        pieces = [event.delta for event in stream if isinstance(event, ResponseTextDeltaEvent)]
        final = stream.get_final_response()
    raw = list(client.responses.create(**asked, max_output_tokens=24, stream=True))

    assert "".join(pieces) == whole.output_text == final.output_text
    assert final.usage == whole.usage
    assert [event.sequence_number for event in raw] == list(range(len(raw)))


def test_a_response_calls_and_obeys_a_type(client: openai.OpenAI) -> None:
    called = client.responses.create(
        model=CALLING, input="weather?", tools=[FLAT], tool_choice="required", max_output_tokens=400
    )  # type: ignore[call-overload]
    parsed = client.responses.parse(
        model=MODEL, input="Which capital?", text_format=Place, temperature=0, max_output_tokens=200
    )

    (call,) = called.output
    assert (call.type, json.loads(call.arguments)) == ("function_call", {"days": 2, "city": "Oslo"})
    assert isinstance(parsed.output_parsed, Place)


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no/such", messages=CAPITAL)
    with pytest.raises(openai.NotFoundError, match="model 'no/such:latest' not found"):
        client.models.retrieve("no/such")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=TINY, messages=CAPITAL, n=2)
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model=TINY, file=("x.wav", b"RIFF\0\0\0\0WAVE"))

    assert (missing.value.type, missing.value.param, missing.value.code) == ("not_found_error", None, None)
    assert "model 'no/such' not found" in str(missing.value)
    assert wrong.value.type == "invalid_request_error"


def test_a_stream_that_breaks_off_raises(client: openai.OpenAI, server: Server) -> None:
    before = set(server.processes("runtime.runner"))
    stream = client.chat.completions.create(model=DOOMED, messages=CAPITAL, stream=True, max_tokens=20_000)
    next(stream)
    for runner in set(server.processes("runtime.runner")) - before:
        os.kill(runner, signal.SIGKILL)

    with pytest.raises(openai.APIError, match="the model runner"):
        list(stream)


def test_many_at_once_are_each_answered(server: Server) -> None:
    async def ask_all() -> list[str]:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
        asked = [
            client.completions.create(model=MODEL, prompt=f"Write about {topic}.", max_tokens=12, temperature=0)
            for topic in TOPICS
        ]
        return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

    one, again = (asyncio.run(ask_all()) for _ in range(2))

    assert one == again
    assert len(set(one)) > 4
