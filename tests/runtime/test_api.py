"""Answers of the Ollama dialect. Source: the Ollama API, "Endpoints" and "Compatibility traps"."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from auth.access import Gate
from runtime.messages import Loaded
from runtime.supervisor.client import Supervisor
from tests.ollama_app import GREEDY, JSON, TOOL, lines, post, prompt_of, user, whole


def test_a_streamed_chat_is_pieces_and_one_end_with_figures(ollama: FlaskClient) -> None:
    *pieces, end = lines(ollama, "/api/chat", model="tiny", messages=user())

    assert pieces
    assert all(piece["message"]["role"] == "assistant" and piece["done"] is False for piece in pieces)
    assert not any("done_reason" in piece or "error" in piece for piece in pieces)
    assert end["done"] is True
    assert end["done_reason"] == "length"
    assert end["message"] == {"role": "assistant", "content": ""}
    assert end["eval_count"] == 8
    assert all(
        isinstance(end[key], int) and end[key] > 0 for key in ("total_duration", "load_duration", "eval_duration")
    )


def test_stream_and_whole_say_the_same(ollama: FlaskClient) -> None:
    for path, asked in (("/api/chat", {"messages": user()}), ("/api/generate", {"prompt": "hello"})):
        streamed = lines(ollama, path, model="tiny", **asked)
        answer = whole(ollama, path, model="tiny", **asked)

        said = [line["message"]["content"] if "message" in line else line["response"] for line in streamed]
        assert "".join(said) == (answer["message"]["content"] if "message" in answer else answer["response"])
        assert answer["prompt_eval_count"] == streamed[-1]["prompt_eval_count"]


def test_the_model_is_named_as_the_client_named_it(ollama: FlaskClient) -> None:
    assert whole(ollama, "/api/chat", model="TINY", messages=user())["model"] == "TINY"
    assert whole(ollama, "/api/generate", model="tiny:latest", prompt="x")["model"] == "tiny:latest"


def test_generate_gives_back_the_context_it_was_in(ollama: FlaskClient) -> None:
    first = whole(ollama, "/api/generate", model="tiny", prompt="hello")
    second = whole(ollama, "/api/generate", model="tiny", prompt="and", context=first["context"])

    assert len(first["context"]) == first["prompt_eval_count"] + first["eval_count"]
    assert second["context"][: len(first["context"])] == first["context"]
    assert "context" not in whole(ollama, "/api/generate", model="tiny", prompt="x", raw=True)
    assert "context" not in whole(ollama, "/api/chat", model="tiny", messages=user())


def test_options_of_the_request_win_over_the_models(ollama: FlaskClient) -> None:
    assert whole(ollama, "/api/generate", model="tiny", prompt="x", options=None)["eval_count"] == 4
    assert whole(ollama, "/api/generate", model="tiny", prompt="x", options={"num_predict": 3.9})["eval_count"] == 3


def test_logprobs_come_with_their_tokens(ollama: FlaskClient) -> None:
    answer = whole(ollama, "/api/chat", model="tiny", messages=user(), logprobs=True, top_logprobs=2)

    assert len(answer["logprobs"]) == 8
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in answer["logprobs"])


@pytest.mark.parametrize(
    ("path", "empty"),
    [("/api/generate", {"response": ""}), ("/api/chat", {"message": {"role": "assistant", "content": ""}})],
)
def test_empty_requests_load_and_unload_in_one_object(ollama: FlaskClient, path: str, empty: JSON) -> None:
    for keep_alive, reason in ((None, "load"), ("0s", "unload"), (0, "unload")):
        answer = post(ollama, path, model="tiny", keep_alive=keep_alive)

        assert answer.content_type == "application/json; charset=utf-8"
        assert answer.json.items() >= ({"done": True, "done_reason": reason} | empty).items()
        assert set(answer.json) == {"model", "created_at", "done", "done_reason", *empty}


def test_unloading_what_is_not_loaded_loads_nothing(ollama: FlaskClient) -> None:
    answer = post(ollama, "/api/generate", model="hostile", keep_alive=0)

    assert answer.json["done_reason"] == "unload"
    assert "hostile:latest" not in [model["name"] for model in ollama.get("/api/ps").json["models"]]


def test_ps_shows_what_is_loaded_and_for_how_long(ollama: FlaskClient) -> None:
    whole(ollama, "/api/generate", model="tiny", prompt="x", keep_alive=-1, options=GREEDY | {"num_ctx": 256})

    (loaded,) = [model for model in ollama.get("/api/ps").json["models"] if model["name"] == "tiny:latest"]

    assert loaded["context_length"] == 256
    assert len(loaded["digest"]) == 64
    assert loaded["details"]["family"] == "llama"
    assert "context_length" not in loaded["details"]
    assert int(loaded["expires_at"][:4]) > time.localtime().tm_year + 100
    post(ollama, "/api/generate", model="tiny", keep_alive=0)


def test_ps_shows_each_caller_the_details_of_a_name_that_he_may_see(
    ollama: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = {"family": "theirs"}, {"family": "ours"}
    loaded = Loaded(
        "acme/secret:v1", "1" * 64, 1, 0, 256, 2e9, theirs, 1,
        names=("acme/secret:v1", "ns/alias:v1"), digests=("1" * 64, "2" * 64), named_details=(theirs, ours),
    )  # fmt: skip
    monkeypatch.setattr(Supervisor, "ps", lambda _: [loaded])
    monkeypatch.setattr(Gate, "may_see", lambda _, repository: "secret" not in str(repository))

    (shown,) = ollama.get("/api/ps").json["models"]

    assert (shown["name"], shown["digest"], shown["details"]) == ("ns/alias:v1", "2" * 64, ours)


def test_system_texts_and_stored_messages_reach_the_prompt(ollama: FlaskClient) -> None:
    chat = prompt_of(ollama, "/api/chat", model="ns/alias:v1", messages=user("ASKED"))
    own = prompt_of(ollama, "/api/chat", model="ns/alias:v1", messages=[{"role": "System", "content": "MINE"}, *user()])
    generated = prompt_of(ollama, "/api/generate", model="ns/alias:v1", prompt="ASKED", system="T")
    continued = prompt_of(ollama, "/api/generate", model="ns/alias:v1", prompt="ASKED", context=[])

    assert chat.index("You are S.") < chat.index("STORED") < chat.index("ASKED")
    assert "You are S." not in own
    assert generated.index("system\nT") < generated.index("STORED")
    assert "You are S." not in generated
    assert "STORED" not in continued
    assert prompt_of(ollama, "/api/generate", model="ns/alias:v1", prompt="ASKED", raw=True) == "ASKED"


def test_without_a_template_chat_is_chatml_and_generate_is_plain(ollama: FlaskClient) -> None:
    assert prompt_of(ollama, "/api/generate", model="plain", prompt="as it is") == "as it is"
    assert prompt_of(ollama, "/api/chat", model="plain", messages=user("q")).startswith("<|im_start|>user\nq<|im_end|>")


def test_the_oldest_messages_go_when_the_context_is_full(ollama: FlaskClient) -> None:
    messages = [{"role": "system", "content": "KEEP"}]
    messages += [{"role": "user", "content": f"number {n} " + "x " * 60} for n in range(10)]

    prompt = prompt_of(ollama, "/api/chat", model="tiny", messages=messages, options={"num_ctx": 512})

    assert "KEEP" in prompt
    assert "number 9" in prompt
    assert "number 0" not in prompt


def test_an_oversized_prompt_is_cut_or_refused(ollama: FlaskClient) -> None:
    long = "x " * 2000

    assert whole(ollama, "/api/chat", model="tiny", messages=user(long))["prompt_eval_count"] <= 512
    refused = post(ollama, "/api/chat", model="tiny", messages=user(long), options=GREEDY, truncate=False)
    assert refused.status_code == 400
    assert refused.json["error"].startswith("the prompt is longer than the context length currently available")


def test_thinking_is_told_apart_and_on_by_default(ollama: FlaskClient) -> None:
    for asked in ({}, {"think": True}, {"think": "max"}):
        answer = whole(ollama, "/api/chat", model="thinker", messages=user(), **asked)
        assert answer["message"]["thinking"]
        assert answer["message"]["content"] == ""
    off = whole(ollama, "/api/chat", model="thinker", messages=user(), think=False)

    assert "thinking" not in off["message"]
    assert off["message"]["content"]
    assert whole(ollama, "/api/generate", model="thinker", prompt="x")["thinking"]


def test_tools_reach_the_template_of_a_model_that_knows_them(ollama: FlaskClient) -> None:
    assert json.dumps(TOOL) in prompt_of(ollama, "/api/chat", model="tooled", messages=user(), tools=[TOOL])


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None},
        {"think": False},
        {"format": ""},
        {"format": None},
        {"options": None, "keep_alive": None},
        {"options": {"num_predict": 1, "numa": False, "mirostat": 1, "num_ctx": 512}},
        {"keep_alive": "0"},
        {"unknown": {}},
    ],
)
def test_these_are_no_reason_to_refuse(ollama: FlaskClient, fields: JSON) -> None:
    assert whole(ollama, "/api/chat", model="tiny", messages=user(), **{"options": {"num_predict": 1}} | fields)["done"]


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(component**2 for component in vector))


def test_embeddings_are_unit_vectors_in_the_order_of_the_inputs(ollama: FlaskClient) -> None:
    answer = whole(ollama, "/api/embed", model="bert", input=["hello", "world", ""])
    alone = whole(ollama, "/api/embed", model="bert", input="world")

    assert len(answer["embeddings"]) == 3
    assert all(norm(vector) == pytest.approx(1, abs=1e-5) for vector in answer["embeddings"][:2])
    assert answer["embeddings"][1] == pytest.approx(alone["embeddings"][0], abs=1e-4)
    assert answer["prompt_eval_count"] > alone["prompt_eval_count"] > 0


@pytest.mark.parametrize(("dimensions", "length"), [(8, 8), (0, 64), (-1, 64), (1000, 64)])
def test_cut_embeddings_are_unit_vectors_again(ollama: FlaskClient, dimensions: int, length: int) -> None:
    (vector,) = whole(ollama, "/api/embed", model="bert", input="hello", dimensions=dimensions)["embeddings"]

    assert len(vector) == length
    assert norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [None, "", []])
def test_no_input_only_loads(ollama: FlaskClient, value: object) -> None:
    assert whole(ollama, "/api/embed", model="bert", input=value) == {"model": "bert", "embeddings": []}


def test_the_old_embedding_route_answers_one_vector(ollama: FlaskClient) -> None:
    assert len(whole(ollama, "/api/embeddings", model="bert", prompt="hello")["embedding"]) == 64
    assert whole(ollama, "/api/embeddings", model="bert", prompt="") == {"embedding": []}


def test_a_runner_that_dies_ends_the_stream_with_an_error_line(ollama: FlaskClient, ollama_run_dir: Path) -> None:
    answer = ollama.post(
        "/api/generate",
        data=json.dumps({"model": "tiny", "prompt": "x", "options": {"num_predict": 100_000, "num_ctx": 512}}),
        buffered=False,
    )
    stream = answer.iter_encoded()
    assert not json.loads(next(stream))["done"]
    (loaded,) = [model for model in Supervisor(ollama_run_dir).ps() if model.name == "tiny:latest"]
    os.kill(loaded.pid, signal.SIGKILL)

    rest = [json.loads(line) for line in stream]
    answer.close()

    assert answer.status_code == 200
    assert set(rest[-1]) == {"error"}
    assert whole(ollama, "/api/generate", model="tiny", prompt="x")["done"]
