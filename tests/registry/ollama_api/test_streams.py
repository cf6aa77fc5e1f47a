"""Every streaming route, whatever happens to it. Source: the Ollama API, "Responses, content types, streaming" and
"Error shapes".
"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.client import Answer
from tests.registry.ollama_api.world import EVENTS, LONG, NDJSON, OF_NOTHING, ONE_OBJECT, Api, parsed, user
from tests.server import wait_for

JSON = dict[str, Any]
ANSWERS: dict[str, JSON] = {"/api/generate": {"prompt": "go"}, "/api/chat": {"messages": user("go")}}
TRANSFERS = ("/api/create", "/api/pull", "/api/push")
DIALECTS: dict[str, JSON] = {
    "/v1/chat/completions": {"messages": user("go"), "max_tokens": 8},
    "/v1/completions": {"prompt": "go", "max_tokens": 8},
    "/v1/responses": {"input": "go", "max_output_tokens": 8},
    "/v1/messages": {"messages": user("go"), "max_tokens": 8},
}
LIMITS = {"/v1/responses": "max_output_tokens"}


def transfer(api: Api, narrow: Api, path: str) -> JSON:
    """A request that will do: of a model that is there to be pulled, here to be pushed, or to be made."""
    if path == "/api/create":
        return {"model": "made", "from": "tiny", "system": "Be brief."}
    if path == "/api/push":
        name = f"{narrow.server.host}/library/streamed"
        assert api.post("/api/copy", source="tiny", destination=name).status == 200
        return {"model": name, "insecure": True}
    return {"model": f"{narrow.server.host}/library/other", "insecure": True}


def events(body: bytes) -> list[JSON]:
    """The data of every event; checks that nothing but events is there."""
    assert body.endswith(b"\n\n")
    found = []
    for event in body.decode().removesuffix("\n\n").split("\n\n"):
        *name, data = event.split("\n")
        assert data.startswith("data: ")
        told = {"done": True} if data == "data: [DONE]" else json.loads(data.removeprefix("data: "))
        assert name in ([], [f"event: {told.get('type')}"])
        found.append(told)
    return found


def long(path: str) -> JSON:
    """A request whose answer takes about a minute, if nobody ends it."""
    if path in ANSWERS:
        return ANSWERS[path] | {"options": LONG}
    return DIALECTS[path] | {"stream": True, LIMITS.get(path, "max_tokens"): 20_000}


@pytest.mark.parametrize("path", ANSWERS)
def test_trap_30_31_an_answer_is_an_object_a_line_and_nothing_else(api: Api, path: str) -> None:
    answer = api.post(path, model="tiny", **ANSWERS[path])

    assert (answer.status, answer.headers["Content-Type"]) == (200, NDJSON)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    *chunks, last = parsed(answer.body)  # a blank line would not parse
    assert chunks
    assert all(chunk["done"] is False for chunk in chunks)
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert not any("error" in chunk for chunk in (*chunks, last))
    assert max(map(len, answer.body.splitlines())) < 8_000_000


@pytest.mark.parametrize("path", TRANSFERS)
def test_trap_30_31_a_transfer_is_an_object_a_line_and_success_the_last(api: Api, narrow: Api, path: str) -> None:
    answer = api.post(path, **transfer(api, narrow, path))

    assert (answer.status, answer.headers["Content-Type"]) == (200, NDJSON)
    lines = parsed(answer.body)
    assert len(lines) > 2
    assert not any("error" in line for line in lines)
    assert [line["status"] == "success" for line in lines].index(True) == len(lines) - 1


@pytest.mark.parametrize("path", DIALECTS)
def test_a_stream_of_another_dialect_is_events_and_has_its_end(api: Api, path: str) -> None:
    answer = api.post(path, model="tiny", stream=True, **DIALECTS[path])

    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, EVENTS)
    told = events(answer.body)
    ends = {"/v1/responses": "response.completed", "/v1/messages": "message_stop"}
    assert told[-1].get("type") == ends[path] if path in ends else told[-1] == {"done": True}
    assert not any(each.get("error") for each in told)


@pytest.mark.parametrize("path", [*ANSWERS, *DIALECTS])
def test_without_a_stream_an_answer_is_one_object(api: Api, path: str) -> None:
    """Other dialects end theirs with a line break, and stream only when asked to."""
    stream = {"stream": False} if path in ANSWERS else {}
    answer = api.post(path, model="tiny", **stream, **(ANSWERS | DIALECTS)[path])

    assert answer.headers["Content-Type"] == (ONE_OBJECT if path in ANSWERS else "application/json")
    assert answer.body.endswith(b"}" if path in ANSWERS else b"}\n")
    assert isinstance(answer.json, dict)


@pytest.mark.parametrize("path", [*ANSWERS, *DIALECTS])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("spoilt", "status"), [({"model": "nope"}, 404), ({"model": "a//b"}, 400), ({"model": "bert"}, 400)]
)
def test_trap_33_a_failure_before_the_first_chunk_has_its_status(
    api: Api, path: str, stream: bool, spoilt: JSON, status: int
) -> None:
    refused = api.post(path, stream=stream, **(ANSWERS | DIALECTS)[path] | spoilt)

    assert refused.status == status
    assert refused.headers["Content-Type"].partition(";")[0] == "application/json"
    assert refused.json["error"]


@pytest.mark.parametrize("path", TRANSFERS)
@pytest.mark.parametrize("stream", [True, False])
def test_trap_33_a_transfer_of_no_name_has_its_status(api: Api, path: str, stream: bool) -> None:
    refused = api.post(path, model="a//b", stream=stream)

    assert (refused.status, refused.json) == (400, {"error": "invalid model name"})
    assert refused.headers["Content-Type"].partition(";")[0] == "application/json"


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/api/create", {"files": {"a.gguf": OF_NOTHING}}, 400),
        ("/api/pull", {"insecure": True}, 500),
        ("/api/push", {"insecure": True}, 500),
    ],
)
def test_trap_32_a_transfer_that_fails_ends_with_its_error(
    api: Api, narrow: Api, path: str, asked: JSON, status: int
) -> None:
    assert api.client.request("POST", f"/api/blobs/{OF_NOTHING}", b"").status in (200, 201)
    body = {"model": f"{narrow.server.host}/library/absent"} | asked

    *lines, last = api.lines(path, **body)
    whole = api.post(path, stream=False, **body)

    assert lines
    assert not any("error" in line or line["status"] == "success" for line in lines)
    assert set(last) == {"error"}
    assert (whole.status, whole.json) == (status, last)


def kill_runner(api: Api) -> None:
    (runner,) = api.runners()
    os.kill(runner, signal.SIGKILL)


def after_a_kill(narrow: Api, path: str) -> bytes:
    """What comes of a stream after its runner was killed in the middle."""
    connection, response = narrow.client.open("POST", path, json.dumps({"model": "tiny", **long(path)}).encode())
    assert response.status == 200
    assert response.readline()
    kill_runner(narrow)
    rest = response.read()  # to the end: the server closes what it cannot go on with
    connection.close()
    return rest


@pytest.mark.parametrize("path", ANSWERS)
def test_trap_32_an_answer_that_breaks_off_ends_with_an_error_line(narrow: Api, path: str) -> None:
    *chunks, last = parsed(after_a_kill(narrow, path))

    assert set(last) == {"error"}
    assert isinstance(last["error"], str)
    assert last["error"]
    assert not any(chunk["done"] or "error" in chunk for chunk in chunks)
    assert narrow.whole(path, model="tiny", **ANSWERS[path])["done"] is True


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_trap_32_where_openai_streams_the_last_event_is_an_error(narrow: Api, path: str) -> None:
    last = after_a_kill(narrow, path).decode().removesuffix("\n\n").rpartition("\n\n")[2]

    told = json.loads(last.rpartition("data: ")[2])["error"]
    assert {"message", "type"} <= set(told)
    assert "[DONE]" not in last


def test_trap_32_where_anthropic_streams_the_last_event_is_an_error(narrow: Api) -> None:
    last = after_a_kill(narrow, "/v1/messages").decode().removesuffix("\n\n").rpartition("\n\n")[2]

    name, data = last.split("\n")
    assert name == "event: error"
    told = json.loads(data.removeprefix("data: "))
    assert (told["type"], told["error"]["type"]) == ("error", "api_error")
    assert told["request_id"].startswith("req_")


@pytest.mark.parametrize("path", [*ANSWERS, *DIALECTS])
def test_without_a_stream_an_answer_that_breaks_off_is_a_500_and_no_text(narrow: Api, path: str) -> None:
    narrow.whole("/api/generate", model="tiny", options={"num_ctx": 2048})
    (runner,) = narrow.runners()
    begin_s = busy_s(runner)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(narrow.post, path, model="tiny", **long(path) | {"stream": False})
        wait_for(lambda: busy_s(runner) > begin_s + 0.3 or asked.done(), 30, "the runner to be at work")

        kill_runner(narrow)

        answer: Answer = asked.result(60)
    assert answer.status == 500
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    assert set(answer.json) in ({"error"}, {"type", "error", "request_id"})


def busy_s(pid: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("path", TRANSFERS)
def test_a_transfer_that_nobody_waits_for_can_be_asked_for_again(api: Api, narrow: Api, path: str) -> None:
    asked = transfer(api, narrow, path)
    with api.begun(path, **asked):
        pass

    assert api.lines(path, **asked)[-1] == {"status": "success"}
