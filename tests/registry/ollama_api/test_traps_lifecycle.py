"""Compatibility traps of the Ollama API, by their numbers: loading, unloading, and who shares what is loaded."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.registry.ollama_api.world import BUSY, LONG, ONE_OBJECT, Api, user
from tests.server import wait_for
from tests.tiny_gguf import write_tiny_gguf

HOUR = 3600.0


def expires_in_s(api: Api, name: str = "tiny:latest") -> float:
    return datetime.fromisoformat(api.loaded()[name]["expires_at"]).timestamp() - time.time()


@pytest.mark.parametrize("keep_alive", ["0s", "0", 0, 0.0, "0ms"])
def test_trap_10_a_keep_alive_of_nothing_unloads(api: Api, keep_alive: object) -> None:
    api.whole("/api/generate", model="tiny")

    answer = api.whole("/api/generate", model="tiny", keep_alive=keep_alive)

    assert answer["done_reason"] == "unload"
    assert "tiny:latest" not in api.loaded()


def test_trap_10_a_chat_without_messages_unloads_too(api: Api) -> None:
    api.whole("/api/chat", model="tiny")

    assert api.whole("/api/chat", model="tiny", messages=[], keep_alive="0s")["done_reason"] == "unload"
    assert "tiny:latest" not in api.loaded()


def test_trap_11_a_number_in_a_text_needs_a_unit(api: Api) -> None:
    refused = api.post("/api/generate", model="tiny", prompt="x", keep_alive="5")

    assert (refused.status, refused.json) == (400, {"error": 'time: missing unit in duration "5"'})
    assert api.whole("/api/generate", model="tiny", prompt="x", keep_alive="0")["done"] is True


@pytest.mark.parametrize("keep_alive", [-1, -0.5, "-1m", "-1ns", "2562047h47m16.854775807s"])
def test_trap_12_forever_is_centuries_ahead(api: Api, keep_alive: object) -> None:
    api.whole("/api/generate", model="tiny", keep_alive=keep_alive)

    assert expires_in_s(api) > 100 * 365 * 24 * HOUR


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/chat", {"messages": user()}),
        ("/api/embed", {"input": "x"}),
        ("/v1/chat/completions", {"messages": user(), "max_tokens": 2}),
    ],
)
def test_trap_13_a_request_that_says_nothing_keeps_what_was_said(api: Api, path: str, asked: dict[str, Any]) -> None:
    api.whole("/api/generate", model="tiny", keep_alive="1h")

    assert api.post(path, model="tiny", **asked).status == 200
    assert expires_in_s(api) == pytest.approx(HOUR, abs=60)


@pytest.mark.parametrize("stream", [{}, {"stream": True}, {"stream": False}])
@pytest.mark.parametrize(
    ("path", "said"),
    [("/api/generate", {"response": ""}), ("/api/chat", {"message": {"role": "assistant", "content": ""}})],
)
def test_trap_14_a_load_is_one_object_whatever_was_asked(
    api: Api, path: str, said: dict[str, Any], stream: dict[str, bool]
) -> None:
    answer = api.post(path, model="tiny", **stream)

    assert (answer.status, answer.headers["Content-Type"]) == (200, ONE_OBJECT)
    told = answer.json
    assert told.pop("created_at")
    assert told == {"model": "tiny", **said, "done": True, "done_reason": "load"}


def test_trap_15_an_unload_loads_nothing(idle: Api) -> None:
    answer = idle.whole("/api/generate", model="other", keep_alive=0)

    assert answer["done_reason"] == "unload"
    assert idle.loaded() == {}
    assert idle.runners() == set()
    assert idle.post("/api/generate", model="nope", keep_alive=0).status == 404


def test_trap_59_what_is_loaded_outlives_its_name(idle: Api, tmp_path: Path) -> None:
    weights = write_tiny_gguf(tmp_path / "brief.gguf", seed=7)
    idle.admin.push_model("library/brief", "latest", weights)
    idle.whole("/api/generate", model="brief", keep_alive="1h")
    runners = idle.runners()

    answer = idle.client.request("DELETE", "/api/delete", b'{"model":"brief"}')

    assert (answer.status, answer.body) == (200, b"")
    assert "brief:latest" not in idle.names()
    assert list(idle.loaded()) == ["brief:latest"]
    assert idle.runners() == runners
    idle.admin.push_model("library/brief", "latest", weights)  # without a name nobody could unload it
    idle.unload("brief")


def test_trap_60_names_of_the_same_weights_share_a_runner_and_nothing_else(idle: Api) -> None:
    idle.whole("/api/generate", model="tiny")
    runners = idle.runners()

    prompt = idle.prompt_of("/api/chat", model="ns/alias:v1", messages=user("q"))
    answer = idle.whole("/api/chat", model="ns/alias:v1", messages=user("q"))

    assert prompt.startswith("[S]You are S.")
    assert answer["model"] == "ns/alias:v1"
    assert idle.runners() == runners
    assert list(idle.loaded()) == ["tiny:latest"]
    assert idle.whole("/api/generate", model="ns/alias:v1", keep_alive=0)["done_reason"] == "unload"
    assert idle.loaded() == {}


def test_trap_60_other_load_options_load_again(idle: Api) -> None:
    idle.whole("/api/generate", model="tiny")
    assert idle.loaded()["tiny:latest"]["context_length"] == 512
    runners = idle.runners()

    idle.whole("/api/generate", model="tight")

    (loaded,) = idle.loaded().values()
    assert loaded["context_length"] == 128
    wait_for(lambda: not idle.runners() & runners, 10, "the runner of before to end")


def test_trap_61_a_window_that_is_asked_for_loads_again_and_one_that_is_not_does_not(idle: Api) -> None:
    idle.whole("/api/generate", model="tiny", prompt="x")
    automatic = idle.runners()
    idle.whole("/api/generate", model="tiny", prompt="x", options={"num_predict": 2, "temperature": 1})
    assert idle.runners() == automatic
    seen = [automatic]
    for num_ctx in (128, 256, 128):
        answer = idle.whole("/api/generate", model="tiny", prompt="x", options={"num_ctx": num_ctx})
        assert answer["done"] is True
        assert [each["context_length"] for each in idle.loaded().values()] == [num_ctx]
        wait_for(lambda: not idle.runners() & seen[-1], 10, "the runner of before to end")
        seen.append(idle.runners())


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/generate", {"prompt": "go", "options": LONG}),
        ("/api/chat", {"messages": user(), "options": LONG}),
        ("/v1/chat/completions", {"messages": user(), "stream": True, "max_tokens": 20_000}),
        ("/v1/messages", {"messages": user(), "stream": True, "max_tokens": 20_000}),
    ],
)
def test_trap_65_a_client_that_hangs_up_frees_its_place(narrow: Api, path: str, asked: dict[str, Any]) -> None:
    """One answer at a time: nobody else would have a turn before 20,000 tokens were made, a minute later."""
    with narrow.begun(path, model="tiny", **asked):
        pass
    left_at = time.monotonic()

    answer = narrow.whole("/api/generate", model="tiny", prompt="x", options=LONG | {"num_predict": 1})

    assert answer["eval_count"] == 1
    assert time.monotonic() - left_at < 10


def test_trap_66_a_full_line_is_told_in_each_dialect(narrow: Api) -> None:
    asked = {"prompt": "x", "options": {"num_predict": 1}, "stream": False}
    with ThreadPoolExecutor(2) as pool, narrow.begun("/api/generate", model="tiny", prompt="go", options=LONG):
        both = {pool.submit(narrow.post, "/api/generate", model="other", **asked) for _ in range(2)}
        refused, waiting = wait(both, 30, FIRST_COMPLETED)
        native = [each.result() for each in refused]
        openai = narrow.post("/v1/chat/completions", model="other", messages=user(), max_tokens=1)
        anthropic = narrow.post("/v1/messages", model="other", messages=user(), max_tokens=1)
        assert not any(each.done() for each in waiting)
    served = [each.result(60) for each in waiting]

    assert [(each.status, each.json) for each in native] == [(503, {"error": BUSY})]
    assert (openai.status, openai.json["error"]) == (
        503,
        {"message": BUSY, "type": "api_error", "param": None, "code": None},
    )
    assert (anthropic.status, anthropic.json["error"]) == (503, {"type": "overloaded_error", "message": BUSY})
    assert all("Retry-After" in each.headers for each in [*native, openai, anthropic])
    assert [each.status for each in served] == [200]
