"""Compatibility traps of the Ollama API, by their numbers: what models are told."""

from __future__ import annotations

import base64

import pytest

from tests.registry.ollama_api.world import JSON, Api, user
from tests.tiny_projector import image_bytes

PNG = base64.b64encode(image_bytes((255, 0, 0))).decode()


def said(role: str, content: str) -> JSON:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (user("q"), "[S]You are S.[system]You are S.[user]STORED\n\nq[next]"),
        ([said("system", "mine"), *user("q")], "[S]mine[user]STORED[system]mine[user]q[next]"),
        (
            [*user("q"), said("system", "late"), *user("r")],
            "[S]You are S.\n\nlate[system]You are S.[user]STORED\n\nq[system]late[user]r[next]",
        ),
    ],
)
def test_trap_62_only_a_first_system_message_replaces_the_models(api: Api, messages: list[JSON], expected: str) -> None:
    """Stored messages come before those of the request, and merge with what follows in the same role."""
    assert api.prompt_of("/api/chat", model="ns/alias:v1", messages=messages) == expected


def test_trap_63_the_system_text_and_the_last_message_are_kept(api: Api) -> None:
    talk = [said("user", "first " + "x " * 40), said("system", "KEEP"), *user("second " + "x " * 40), *user("LAST")]

    prompt = api.prompt_of("/api/chat", model="tight", messages=talk)

    assert "first" not in prompt
    assert prompt.index("KEEP") < prompt.index("LAST")
    alone = api.whole("/api/chat", model="tight", messages=user("x " * 500))
    assert alone["prompt_eval_count"] <= 128
    assert alone["eval_count"] == 2


@pytest.mark.parametrize(
    "image", [f"data:image/png;base64,{PNG}", PNG.rstrip("=") + "-_", PNG + "="], ids=["uri", "url-safe", "padding"]
)
def test_trap_72_an_image_is_bare_base64(api: Api, image: str) -> None:
    chat = api.post("/api/chat", model="seeing", messages=[said("user", "x") | {"images": [image]}])
    generated = api.post("/api/generate", model="seeing", prompt="x", images=[image])

    assert (chat.status, generated.status) == (400, 400)
    folded = "\r\n".join(PNG[start : start + 76] for start in range(0, len(PNG), 76))
    assert api.whole("/api/generate", model="seeing", prompt="x", images=[folded], options={"num_ctx": 1024})["done"]


def test_trap_89_a_gap_is_filled_without_system_and_history(api: Api) -> None:
    filled = api.prompt_of("/api/generate", model="gap", prompt="def f(", suffix="return 1", system="mine")
    usual = api.prompt_of("/api/generate", model="gap", prompt="q")

    assert filled == "<pre>def f(<suf>return 1<mid>"
    assert "You are S." in usual
    assert "STORED" in usual
