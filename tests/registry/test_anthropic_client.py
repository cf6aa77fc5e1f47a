"""The official Anthropic client, over a real socket, from the network: its key is an access token."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from demo import smollm2
from runtime.prompts import IMAGE_TOKENS
from tests.anthropic_app import WEATHER, image, said
from tests.client import Client
from tests.registry.access.world import World, serve
from tests.registry.test_sense import CALLING_TEMPLATE
from tests.server import Server
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import write_tiny_projector

MODEL, CALLING, SEEING, TINY = "vault/smollm2:135m", "vault/smollm2:calling", "vault/seeing", "commons/tiny"
TEMPLATE, PROJECTOR = (f"application/vnd.ollama.image.{kind}" for kind in ("template", "projector"))
GO_CHAT = b"{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}[assistant]"
CAPITAL = [said("What is the capital of France?")]
GREEDY: dict[str, Any] = {"max_tokens": 48, "extra_body": {"temperature": 0}}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("anthropic")
    with serve(folder / "data", listen="0.0.0.0:0") as world:
        owner = Client(world.host, world.secrets["admin"])
        owner.push_model("vault/smollm2", "135m", smollm2.fetch())
        owner.push_model("vault/smollm2", "calling", smollm2.fetch(), {TEMPLATE: CALLING_TEMPLATE})
        tiny = write_tiny_gguf(folder / "tiny.gguf")
        projector = write_tiny_projector(folder / "projector.gguf").read_bytes()
        owner.push_model("vault/seeing", "latest", tiny, {TEMPLATE: GO_CHAT, PROJECTOR: projector})
        owner.push_model("commons/tiny", "latest", tiny)
        yield world


def client_of(host: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"http://{host}", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def client(network: World) -> anthropic.Anthropic:
    return client_of(network.host, network.secrets["infer"])


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_it_knows_a_capital(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, messages=CAPITAL, system="Answer in one sentence.", **GREEDY)

    assert "Paris" in text_of(message)
    assert (message.stop_reason, message.role, message.model) == ("end_turn", "assistant", MODEL)
    assert message._request_id
    assert message._request_id.startswith("req_")


def test_a_stream_says_what_the_whole_answer_says(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model=MODEL, messages=CAPITAL, system="Be brief.", **GREEDY)
    with client.messages.stream(model=MODEL, messages=CAPITAL, system="Be brief.", **GREEDY) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()

    assert len(pieces) > 3
    assert "".join(pieces) == text_of(whole) == text_of(final)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_a_count_is_what_is_then_read(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=CAPITAL)
    message = client.messages.create(model=MODEL, messages=CAPITAL, **GREEDY)

    assert counted.input_tokens == message.usage.input_tokens


def test_a_tool_is_called_and_its_result_told(client: anthropic.Anthropic) -> None:
    ask: dict[str, Any] = {"model": CALLING, "tools": [WEATHER], "max_tokens": 100, "extra_body": {"temperature": 0}}
    question = said("What is the weather in Paris?")
    with client.messages.stream(messages=[question], tool_choice={"type": "any"}, **ask) as stream:
        called = stream.get_final_message()
    (call,) = called.content
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny in Paris, 21 degrees"}
    talk = [question, {"role": "assistant", "content": called.content}, said([result])]

    told = client.messages.create(messages=talk, tool_choice={"type": "none"}, **ask)  # type: ignore[arg-type]

    assert (called.stop_reason, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris", "days": 2})
    assert "21 degrees" in text_of(told)


def test_trap_83_thinking_is_off_where_the_model_cannot(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": CAPITAL,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }

    message = client.messages.create(**asked | GREEDY)

    assert [block.type for block in message.content] == ["text"]


def test_an_answer_obeys_the_clients_schema(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "continent": {"enum": ["Europe", "Asia"]}},
        "required": ["capital", "continent"],
        "additionalProperties": False,
    }

    message = client.messages.create(
        model=MODEL, messages=CAPITAL, output_config={"format": {"type": "json_schema", "schema": schema}}, **GREEDY
    )

    assert json.loads(text_of(message))["continent"] in ("Europe", "Asia")


def test_an_image_is_seen_and_counted(client: anthropic.Anthropic) -> None:
    seen, other, none = (
        client.messages.create(model=SEEING, messages=[said([*images, {"type": "text", "text": "what"}])], **GREEDY)
        for images in ([image()], [image((0, 0, 255))], [])
    )  # fmt: skip
    counted = client.messages.count_tokens(model=SEEING, messages=[said([image(), {"type": "text", "text": "what"}])])

    assert len({text_of(message) for message in (seen, other, none)}) == 3
    assert seen.usage.input_tokens > none.usage.input_tokens
    assert counted.input_tokens == none.usage.input_tokens + IMAGE_TOKENS


@pytest.mark.parametrize(
    ("asked", "error", "kind", "message"),
    [
        ({"model": "vault/none"}, anthropic.NotFoundError, "not_found_error", "model 'vault/none' not found"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "invalid_request_error", "max_tokens is required"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "messages is required"),
    ],
)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_refusals_are_the_clients_own_errors(
    client: anthropic.Anthropic,
    asked: dict[str, Any],
    error: type[anthropic.APIStatusError],
    kind: str,
    message: str,
    is_streamed: bool,
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(**{"model": MODEL, "messages": CAPITAL, "stream": is_streamed} | GREEDY | asked)

    assert caught.value.type == kind
    assert message in str(caught.value)
    assert isinstance(caught.value.body, dict)
    assert caught.value.request_id == caught.value.body["request_id"]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("none", anthropic.AuthenticationError),
        ("revoked", anthropic.AuthenticationError),
        ("expired", anthropic.AuthenticationError),
        ("pull", anthropic.PermissionDeniedError),
        ("other", anthropic.PermissionDeniedError),
    ],
)
def test_a_key_from_the_network_must_be_a_token_that_may_ask(
    network: World, key: str, error: type[anthropic.APIStatusError]
) -> None:
    stranger = client_of(network.host, network.secrets.get(key, "sk-ant-none"))

    for ask in (
        lambda: stranger.messages.create(model=MODEL, messages=CAPITAL, **GREEDY),
        lambda: stranger.messages.count_tokens(model=MODEL, messages=CAPITAL),
    ):
        with pytest.raises(error) as caught:
            ask()
        assert caught.value.request_id


def test_who_was_refused_by_a_key_is_in_the_audit_trail_and_the_key_is_not(network: World) -> None:
    with pytest.raises(anthropic.PermissionDeniedError):
        client_of(network.host, network.secrets["pull"]).messages.create(model=MODEL, messages=CAPITAL, **GREEDY)

    told = network.server.run("audit", "--since", "1h").stdout
    assert "403 POST /v1/messages: token pull does not allow running models" in told
    assert not any(secret in told + network.server.log for secret in network.secrets.values())


def test_on_this_machine_any_key_will_do(shared_server: Server, tiny_model: str) -> None:
    message = client_of(shared_server.host, "whatever").messages.create(model=tiny_model, messages=CAPITAL, **GREEDY)

    assert message.usage.output_tokens == 48


def test_a_stream_that_breaks_off_is_an_error_of_the_client(client: anthropic.Anthropic, network: World) -> None:
    before = set(network.server.processes("runtime.runner"))
    with (
        client.messages.stream(model=TINY, messages=CAPITAL, max_tokens=100_000) as stream,
        pytest.raises(anthropic.APIError, match="the model runner"),
    ):
        for number, _ in enumerate(stream):
            if number == 2:
                for pid in set(network.server.processes("runtime.runner")) - before:
                    os.kill(pid, signal.SIGKILL)
