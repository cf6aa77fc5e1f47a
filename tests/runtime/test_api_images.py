"""Images over /api: seen, counted, and refused where they are none or nobody can see them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.tiny_projector import image_bytes

RED = base64.b64encode(image_bytes((255, 0, 0))).decode()
BLUE = base64.b64encode(image_bytes((0, 0, 255), file_format="JPEG")).decode()
GREEDY = {"temperature": 0, "num_predict": 12, "num_ctx": 2048}
CELLS = 16  # of one image: four by four patches


def answer(ollama: FlaskClient, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = ollama.post(path, json={"stream": False, "options": GREEDY, **body})
    assert response.status_code == status, response.json
    found: dict[str, Any] = response.json
    return found


def chat(ollama: FlaskClient, *images: str, text: str = "what is it", model: str = "seeing") -> dict[str, Any]:
    return answer(
        ollama, "/api/chat", model=model, messages=[{"role": "user", "content": text, "images": list(images)}]
    )


@pytest.mark.parametrize("model", ["seeing", "seeing-jinja"])
def test_what_an_image_shows_makes_the_answer(ollama: FlaskClient, model: str) -> None:
    red, again, blue, none = (chat(ollama, *images, model=model) for images in ([RED], [RED], [BLUE], []))

    texts = [each["message"]["content"] for each in (red, blue, none)]
    assert len(set(texts)) == 3
    assert again["message"] == red["message"]
    assert red["prompt_eval_count"] == none["prompt_eval_count"] + CELLS


def test_the_order_of_images_counts(ollama: FlaskClient) -> None:
    one, other = chat(ollama, RED, BLUE), chat(ollama, BLUE, RED)

    assert one["message"] != other["message"]
    assert one["prompt_eval_count"] == other["prompt_eval_count"]


def test_an_image_stands_where_the_text_says(ollama: FlaskClient) -> None:
    before, within = chat(ollama, RED, text="see it"), chat(ollama, RED, text="see [img]it")

    assert before["prompt_eval_count"] == within["prompt_eval_count"]
    assert before["message"] != within["message"]


@pytest.mark.parametrize("raw", [True, False])
def test_generate_sees_images(ollama: FlaskClient, raw: bool) -> None:
    asked = {"model": "seeing", "prompt": "what is it", "raw": raw}
    seen = answer(ollama, "/api/generate", images=[RED], **asked)
    not_seen = answer(ollama, "/api/generate", **asked)

    assert seen["response"] != not_seen["response"]
    assert seen["prompt_eval_count"] == not_seen["prompt_eval_count"] + CELLS
    assert all(token >= 0 for token in seen.get("context", []))


def test_a_conversation_goes_on_after_an_image(ollama: FlaskClient) -> None:
    first = chat(ollama, RED)["message"]
    told = [{"role": "user", "content": "what is it", "images": [RED]}, first, {"role": "user", "content": "sure?"}]

    warm = answer(ollama, "/api/chat", model="seeing", messages=told)
    told[0]["images"] = [BLUE]
    other = answer(ollama, "/api/chat", model="seeing", messages=told)

    assert warm["message"] != other["message"]
    assert warm["prompt_eval_count"] == other["prompt_eval_count"]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (["AAAA"], "x"),
        ([base64.b64encode(image_bytes()[:200]).decode()], "x"),
        ([base64.b64encode(b"RIFF\0\0\0\0WAVEfmt ").decode()], "x"),
        ([RED], "[img-0] and [img-0]"),
    ],
)
def test_what_cannot_be_seen_is_refused(ollama: FlaskClient, images: list[str], text: str) -> None:
    body = {"model": "seeing", "messages": [{"role": "user", "content": text, "images": images}]}

    assert "error" in answer(ollama, "/api/chat", 400, **body)
    assert chat(ollama, RED)["done"]


def test_more_images_than_the_context_holds_are_refused(ollama: FlaskClient) -> None:
    body = {"model": "seeing", "prompt": "x" * 2000, "images": [RED] * 10, "raw": True}

    refused = answer(ollama, "/api/generate", 400, **body)

    assert "the prompt is longer than the context length" in refused["error"]
    assert "with its images" in refused["error"]


def test_a_projector_that_is_none_is_an_error_of_the_model(ollama: FlaskClient) -> None:
    body = {"model": "blind", "messages": [{"role": "user", "content": "x", "images": [RED]}]}

    assert "GGUF" in answer(ollama, "/api/chat", 500, **body)["error"]
