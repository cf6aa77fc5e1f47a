"""Compatibility traps of the Ollama API, by their numbers: models from and to another registry."""

from __future__ import annotations

import json
import re

import pytest

from tests.registry.ollama_api.world import JSON, Api

MISSING = "pull model manifest: file does not exist"


@pytest.fixture
def there(narrow: Api) -> str:
    """The name of a model on the other server."""
    return f"{narrow.server.host}/library/other"


@pytest.fixture
def absent(narrow: Api) -> str:
    return f"{narrow.server.host}/library/absent"


def here(api: Api, name: str) -> str:
    """The name of a model that is to be pushed there."""
    copied = api.post("/api/copy", source="tiny", destination=name)
    assert copied.status == 200, copied.body
    return name


@pytest.mark.parametrize("path", ["/api/show", "/api/pull", "/api/push"])
def test_trap_5_an_empty_model_leaves_it_to_the_name(api: Api, there: str, path: str) -> None:
    name = "tiny" if path == "/api/show" else there
    if path == "/api/push":
        assert api.post("/api/pull", model=there, insecure=True).status == 200

    answer = api.post(path, model="", name=name, insecure=True, stream=False)

    assert answer.status == 200
    assert "details" in answer.json or answer.json == {"status": "success"}


def test_trap_5_delete_takes_the_name(api: Api) -> None:
    here(api, "short-lived")

    answer = api.client.request("DELETE", "/api/delete", b'{"model":"","name":"short-lived"}')

    assert (answer.status, answer.body) == (200, b"")
    assert "short-lived:latest" not in api.names()


def test_trap_74_a_model_that_is_nowhere_is_told_in_the_words_that_clients_look_for(api: Api, absent: str) -> None:
    *_, last = api.lines("/api/pull", model=absent, insecure=True)
    whole = api.post("/api/pull", model=absent, insecure=True, stream=False)

    assert last == {"error": MISSING}
    assert (whole.status, whole.json) == (500, {"error": MISSING})


def test_trap_75_a_push_begins_with_a_line_without_a_digest(api: Api, narrow: Api) -> None:
    first, *lines = api.lines("/api/push", model=here(api, f"{narrow.server.host}/library/pushed"), insecure=True)

    assert first == {"status": "retrieving manifest"}
    assert any("digest" in line for line in lines)
    assert "pushed:latest" in narrow.names()


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
def test_trap_76_progress_names_what_it_is_of(api: Api, narrow: Api, there: str, path: str) -> None:
    name = there if path == "/api/pull" else here(api, f"{narrow.server.host}/library/told")
    lines = api.lines(path, model=name, insecure=True)

    assert all(line["status"] for line in lines)
    told: list[JSON] = [line for line in lines if "digest" in line]
    assert told
    for line in told:
        assert re.fullmatch("sha256:[0-9a-f]{64}", line["digest"])
        assert line["digest"][7:19] in line["status"]
        assert line.get("completed", 0) <= line["total"]


@pytest.mark.parametrize("path", ["/api/pull", "/api/push", "/api/create"])
def test_trap_77_without_a_stream_there_is_one_word(api: Api, narrow: Api, there: str, path: str) -> None:
    name = here(api, f"{narrow.server.host}/library/once") if path == "/api/push" else there

    answer = api.post(path, model=name, insecure=True, stream=False, **{"from": "tiny"})

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"status": "success"}
