"""POST /api/tokenize and /api/detokenize: round trips, what is loaded for them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from demo import smollm2
from storage.store import Store
from tests.ollama_app import JSON, post
from tests.stored_models import push_model
from tests.tiny_gguf import SPECIAL, _vocabulary, write_tiny_gguf

TEXTS = [
    "hello world",
    "",
    " two  spaces ",
    "line\nline\ttab",
    "grüße 🚢, été",
    "<|im_start|>user\nhi<|im_end|>",
    "\x00",
]


@pytest.fixture(scope="module")
def client(ollama: FlaskClient, ollama_store: Store, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The app, with a real model, and one whose prompts begin with a token of their own."""
    push_model(ollama_store, "smol", smollm2.fetch())
    starting = write_tiny_gguf(tmp_path_factory.mktemp("models") / "starting.gguf", add_bos=True)
    push_model(ollama_store, "starting", starting)
    return ollama


def told(client: FlaskClient, path: str, **body: Any) -> JSON:
    answer = post(client, path, **body)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/json; charset=utf-8"
    found: JSON = answer.json
    return found


def tokens_of(client: FlaskClient, text: str, model: str = "tiny", **body: Any) -> list[Any]:
    tokens: list[Any] = told(client, "/api/tokenize", model=model, text=text, **body)["tokens"]
    return tokens


def text_of(client: FlaskClient, tokens: list[int], model: str = "tiny") -> str:
    return str(told(client, "/api/detokenize", model=model, tokens=tokens)["text"])


@pytest.mark.parametrize("model", ["tiny", "smol"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was(client: FlaskClient, model: str, text: str) -> None:
    assert text_of(client, tokens_of(client, text, model), model) == text


def test_the_answers_have_the_names_that_clients_know(client: FlaskClient) -> None:
    there = told(client, "/api/tokenize", model="TINY", text="hello")
    back = told(client, "/api/detokenize", model="TINY", tokens=there["tokens"])

    assert set(there) == {"model", "tokens", "total_duration", "load_duration"}
    assert set(back) == {"model", "text", "content", "total_duration", "load_duration"}
    assert there["model"] == back["model"] == "TINY"
    assert back["text"] == back["content"] == "hello"
    assert there["total_duration"] >= there["load_duration"] > 0


@pytest.mark.parametrize("key", ["text", "content", "prompt"])
def test_the_text_has_several_names(client: FlaskClient, key: str) -> None:
    assert told(client, "/api/tokenize", model="tiny", **{key: "hello"})["tokens"] == tokens_of(client, "hello")


def test_what_a_model_wants_around_a_text_is_put_there_on_demand(client: FlaskClient) -> None:
    names, _ = _vocabulary()
    bare = tokens_of(client, "hello", "starting")

    around = tokens_of(client, "hello", "starting", add_special=True)

    assert around == [names.index("<|endoftext|>"), *bare]


def test_a_special_token_is_a_text_where_that_is_wanted(client: FlaskClient) -> None:
    names, _ = _vocabulary()
    text = SPECIAL[1]

    assert tokens_of(client, text) == [names.index(text)]
    spelt = tokens_of(client, text, parse_special=False)
    assert len(spelt) > 1
    assert text_of(client, spelt) == text


def test_pieces_are_text_or_bytes(client: FlaskClient) -> None:
    shown = tokens_of(client, "hello é", with_pieces=True)

    assert [each["id"] for each in shown] == tokens_of(client, "hello é")
    assert [each["piece"] for each in shown] == ["hello", " ", [0xC3], [0xA9]]


def test_a_model_that_only_embeds_has_words_too(client: FlaskClient) -> None:
    tokens = tokens_of(client, "hello world", "bert")

    assert tokens
    assert text_of(client, tokens, "bert") == "hello world"


def test_who_asks_for_tokens_loads_no_model(client: FlaskClient) -> None:
    before = client.get("/api/ps").json["models"]  # type: ignore[index]

    tokens_of(client, "hello", "smol")

    assert client.get("/api/ps").json["models"] == before  # type: ignore[index]
    assert "smol:latest" not in [model["name"] for model in before]


WRONG_IDS = 'field "tokens" must be an array of token ids'
NOT_OURS = "a token id is not in the model's vocabulary"
NO_MODEL = 'model "nope" not found, try pulling it first'
REFUSALS: list[tuple[str, JSON, int, str]] = [
    ("tokenize", {"model": "nope", "text": "x"}, 404, NO_MODEL),
    ("tokenize", {"text": "x"}, 404, "model '' not found"),
    ("tokenize", {"model": "tiny"}, 400, "text is required"),
    ("tokenize", {"model": "tiny", "text": None}, 400, "text is required"),
    ("tokenize", {"model": "tiny", "text": ["x"]}, 400, 'field "text" must be of type string'),
    ("tokenize", {"model": "tiny", "text": "x", "add_special": 1}, 400, 'field "add_special" must be of type boolean'),
    (
        "tokenize",
        {"model": "tiny", "text": "x" * (2**23 + 1)},
        400,
        "the text is larger than 8388608 bytes, the most of one call",
    ),
    (
        "tokenize",
        {"model": "tiny", "text": "é" * 2**22 + "x"},
        400,
        "the text is larger than 8388608 bytes, the most of one call",
    ),
    (
        "tokenize",
        {"model": "tiny", "text": "é" * 2**19 + "x"},
        400,
        "the text has 1048577 tokens, and 1048576 are the most of one call",
    ),
    ("tokenize", {"model": "tiny", "text": "x", "keep_alive": "soon"}, 400, 'time: invalid duration "soon"'),
    ("detokenize", {"model": "nope", "tokens": []}, 404, NO_MODEL),
    ("detokenize", {"model": "tiny"}, 400, "tokens are required"),
    ("detokenize", {"model": "tiny", "tokens": "x"}, 400, 'field "tokens" must be of type array'),
    ("detokenize", {"model": "tiny", "tokens": [1, -1]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [2**31]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [10**400]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [1.5]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [True]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [[1]]}, 400, WRONG_IDS),
    ("detokenize", {"model": "tiny", "tokens": [280]}, 400, NOT_OURS),
    ("detokenize", {"model": "tiny", "tokens": [2**31 - 1]}, 400, NOT_OURS),
    (
        "detokenize",
        {"model": "tiny", "tokens": [0] * (2**20 + 1)},
        400,
        "too many tokens: 1048577, and 1048576 are the most of one call",
    ),
]


@pytest.mark.parametrize(("path", "body", "status", "message"), REFUSALS)
def test_refusals(client: FlaskClient, path: str, body: JSON, status: int, message: str) -> None:
    refused = post(client, f"/api/{path}", **body)

    assert (refused.status_code, refused.json) == (status, {"error": message})


def test_the_last_id_of_the_vocabulary_is_one(client: FlaskClient) -> None:
    names, _ = _vocabulary()

    assert text_of(client, [len(names) - 1]) == names[-1]
    assert len(names) == 280
