"""What each command of the ollama command line asks of a server, request by request, and what it reads of the answers.

Source: the Ollama API, "What the real clients call".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from registry.remotes.identity import server_identity
from tests.ollama_api import (
    JSON,
    Answer,
    GoClient,
    chat_request,
    create_request,
    delete_request,
    embed_request,
    generate_request,
    show_request,
    transfer_request,
)
from tests.registry.ollama_world import World, ollama_world
from tests.server import NODES, running_server, wait_for
from tests.tiny_gguf import write_tiny_gguf

_IMAGE = "application/vnd.ollama.image."
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
PROXY = {"Via": "1.1 proxy"}  # whoever comes through one is not on this machine


of_one_node = pytest.mark.skipif(NODES > 1, reason="each node loads, tells of and unloads models of its own")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sequences")
    with ollama_world(folder) as running:
        running.server.run("namespace", "create", "library", "--public")
        extra = {
            _IMAGE + "params": b'{"num_predict":8,"temperature":0,"stop":["<|im_end|>"]}',
            _IMAGE + "system": b"You are S.",
            _IMAGE + "license": b"MIT",
            _IMAGE + "messages": b'[{"role":"user","content":"STORED"}]',
        }
        running.admin().push_model("library/tiny", "latest", write_tiny_gguf(folder / "tiny.gguf"), extra)
        running.admin().push_model("library/bert", "latest", write_tiny_gguf(folder / "bert.gguf", arch="bert"))
        running.admin().push_model("acme/private", "v1", write_tiny_gguf(folder / "private.gguf", seed=7), extra)
        running.admin().push_model("open/far", "v1", write_tiny_gguf(folder / "far.gguf", seed=8), extra)
        yield running


@pytest.fixture
def cli(world: World) -> GoClient:
    return GoClient(world.server.url)


def loaded(cli: GoClient) -> list[str]:
    return [model["name"] for model in cli.do("GET", "/api/ps").json["models"]]


def ok(answer: Answer, content_type: str = "application/json; charset=utf-8") -> JSON:
    assert (answer.status, answer.content_type) == (200, content_type), answer.body
    found: JSON = answer.json
    return found


def test_run_with_a_prompt(cli: GoClient) -> None:
    cli.heartbeat()
    shown = ok(cli.do("POST", "/api/show", show_request("tiny")))
    assert "completion" in shown["capabilities"]
    assert shown["details"]["parent_model"] == ""
    assert isinstance(shown["model_info"], dict)
    assert "remote_host" not in shown

    answer = cli.stream("/api/generate", generate_request("tiny", "Say hello", options={}, keep_alive="5m0s"))

    *parts, last = answer.lines
    assert answer.status == 200
    assert all(
        part["model"] == "tiny" and part["done"] is False and _TIME.fullmatch(part["created_at"]) for part in parts
    )
    assert "".join(part["response"] for part in parts) != ""
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert last["eval_count"] == 8
    assert all(
        isinstance(last[key], int) and last[key] > 0 for key in ("total_duration", "load_duration", "eval_duration")
    )
    assert all(isinstance(token, int) for token in last["context"])


def test_run_as_a_conversation(cli: GoClient) -> None:
    cli.heartbeat()
    ok(cli.do("POST", "/api/show", show_request("tiny")))
    shown = ok(cli.do("POST", "/api/show", show_request("tiny")))
    assert shown["messages"] == [{"role": "user", "content": "STORED"}]
    at_load = cli.stream("/api/generate", generate_request("tiny", keep_alive="20m0s"))
    assert ok(at_load) == {
        "model": "tiny", "created_at": at_load.json["created_at"], "response": "", "done": True, "done_reason": "load",
    }  # fmt: skip
    history: list[JSON] = []

    for words in ("hello", "again"):
        history.append({"role": "user", "content": words})
        answer = cli.stream("/api/chat", chat_request("tiny", history, options={}, keep_alive="20m0s"))
        *parts, last = answer.lines
        assert {part["message"]["role"] for part in (*parts, last)} == {"assistant"}
        assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "length", "")
        history.append({"role": "assistant", "content": "".join(part["message"]["content"] for part in parts)})

    assert all(message["content"] for message in history)
    assert NODES > 1 or "tiny:latest" in loaded(cli)


def test_a_save_in_a_conversation_makes_a_model_of_it(cli: GoClient) -> None:
    parent = ok(cli.do("POST", "/api/show", show_request("tiny")))["details"]["parent_model"]
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    asked = create_request(
        "saved", **{"from": parent or "tiny"}, system="Be brief.", parameters={"top_k": 5}, messages=talk
    )

    made = cli.stream("/api/create", asked).lines

    assert made[-1] == {"status": "success"}
    shown = ok(cli.do("POST", "/api/show", show_request("saved", system="Loud.")))
    assert shown["system"] == "Loud."
    assert shown["messages"] == talk
    assert "top_k                          5" in shown["parameters"].splitlines()


def test_run_of_a_model_that_embeds(cli: GoClient) -> None:
    cli.heartbeat()
    assert ok(cli.do("POST", "/api/show", show_request("bert")))["capabilities"] == ["embedding"]

    answer = ok(cli.do("POST", "/api/embed", embed_request("bert", "a ship")))

    assert answer["model"] == "bert"
    assert len(answer["embeddings"]) == 1
    assert sum(number * number for number in answer["embeddings"][0]) == pytest.approx(1, abs=1e-3)


def test_run_of_a_model_that_is_not_here_goes_on_to_pull_it(cli: GoClient) -> None:
    missing = cli.do("POST", "/api/show", show_request("acme/nowhere"))

    assert missing.status == 404
    assert missing.error == "model 'acme/nowhere:latest' not found"


def test_list(cli: GoClient) -> None:
    cli.heartbeat()
    models = {model["name"]: model for model in ok(cli.do("GET", "/api/tags"))["models"]}

    assert {"tiny:latest", "bert:latest", "acme/private:v1"} <= set(models)
    for model in models.values():
        assert re.fullmatch("[0-9a-f]{64}", model["digest"])
        assert isinstance(model["size"], int)
        assert model["size"] > 0
        assert _TIME.fullmatch(model["modified_at"])
        assert "remote_model" not in model


@of_one_node
def test_ps(cli: GoClient) -> None:
    cli.stream("/api/generate", generate_request("tiny", keep_alive="1h0m0s"))
    cli.heartbeat()

    model = next(each for each in ok(cli.do("GET", "/api/ps"))["models"] if each["name"] == "tiny:latest")

    assert re.fullmatch("[0-9a-f]{64}", model["digest"])
    assert model["size"] > 0
    assert model["size_vram"] >= 0
    assert model["context_length"] > 0
    assert _TIME.fullmatch(model["expires_at"])
    left = datetime.fromisoformat(_micros(model["expires_at"])) - datetime.now(UTC)
    assert 59 * 60 < left.total_seconds() < 61 * 60


def _micros(when: str) -> str:
    """As many digits of a second as Python reads."""
    return re.sub(r"(\.\d{6})\d+", r"\1", when)


@pytest.mark.parametrize("verbose", [False, True])
def test_show(cli: GoClient, verbose: bool) -> None:
    cli.heartbeat()

    shown = ok(cli.do("POST", "/api/show", show_request(name="tiny", verbose=verbose)))

    info = shown["model_info"]
    assert isinstance(info["general.parameter_count"], int)
    assert info[f"{info['general.architecture']}.context_length"] == 2048
    assert (info["tokenizer.ggml.tokens"] is not None) is verbose
    assert [line.split() for line in shown["parameters"].splitlines()] == [
        ["num_predict", "8"],
        ["stop", '"<|im_end|>"'],
        ["temperature", "0"],
    ]
    assert shown["license"] == "MIT"
    assert shown["system"] == "You are S."
    assert shown["modelfile"].startswith('# Modelfile generated by "ollama show"\n')


def test_create_of_files(cli: GoClient, tmp_path: Path) -> None:
    weights = [write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed).read_bytes() for seed in (21, 22)]
    cli.heartbeat()
    with ThreadPoolExecutor(2) as together:
        (digest, first), (_, second) = together.map(cli.create_blob, weights)
    assert (first, second) == (201, 201)
    assert cli.create_blob(weights[0]) == (digest, 200)

    made = cli.stream(
        "/api/create",
        create_request(
            "acme/made:v1", files={"weights.gguf": digest}, template="{{ .Prompt }}", license=["MIT"],
            system="You are made.", parameters={"num_predict": 4, "stop": ["x"]},
            messages=[{"role": "user", "content": "hi"}],
        ),
    )  # fmt: skip

    statuses = [line["status"] for line in made.lines]
    assert statuses[0] == "parsing GGUF"
    assert statuses[-2:] == ["writing manifest", "success"]
    assert all(
        re.fullmatch(r"(using existing|creating new) layer sha256:[0-9a-f]{64}", each) for each in statuses[1:-2]
    )
    shown = ok(cli.do("POST", "/api/show", show_request(name="acme/made:v1")))
    assert (shown["system"], shown["license"], shown["template"]) == ("You are made.", "MIT", "{{ .Prompt }}")
    assert cli.stream("/api/generate", generate_request("acme/made:v1", "hi", options={})).lines[-1]["done"] is True


def test_create_of_a_stored_model(cli: GoClient) -> None:
    made = cli.stream(
        "/api/create", create_request("derived", **{"from": "tiny"}, system="You are D.", license=["BSD"])
    )

    assert made.lines[-1] == {"status": "success"}
    shown = ok(cli.do("POST", "/api/show", show_request(name="derived")))
    assert (shown["system"], shown["license"]) == ("You are D.", "MIT\nBSD")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (create_request("x y", **{"from": "tiny"}), "invalid model name"),
        (create_request("x"), "neither 'from' or 'files' was specified"),
        (create_request("x", files={"../w.gguf": f"sha256:{'0' * 64}"}), "file path must be relative"),
        (create_request("x", files={"w.gguf": ""}), "invalid digest format"),
    ],
)
def test_create_that_fails_before_it_began(cli: GoClient, asked: JSON, message: str) -> None:
    refused = cli.stream("/api/create", asked)

    assert (refused.status, refused.error) == (400, message)


def test_cp(cli: GoClient) -> None:
    cli.heartbeat()
    copied = cli.do("POST", "/api/copy", {"source": "tiny", "destination": "acme/copy:v1"})

    assert (copied.status, copied.body) == (200, b"")
    assert ok(cli.do("POST", "/api/show", show_request(name="acme/copy:v1")))["system"] == "You are S."


@of_one_node
def test_rm_unloads_first(cli: GoClient) -> None:
    cli.do("POST", "/api/copy", {"source": "acme/private:v1", "destination": "doomed"})
    cli.stream("/api/generate", generate_request("doomed", keep_alive="1h0m0s"))
    assert "doomed:latest" in loaded(cli)
    cli.heartbeat()

    ok(cli.do("POST", "/api/show", show_request("doomed")))
    unloaded = ok(cli.stream("/api/generate", generate_request("doomed", keep_alive="0s")))
    deleted = cli.do("DELETE", "/api/delete", delete_request("doomed"))

    assert (unloaded["done"], unloaded["done_reason"]) == (True, "unload")
    assert (deleted.status, deleted.body) == (200, b"")
    wait_for(lambda: "doomed:latest" not in loaded(cli), 10, "the model to be unloaded")
    assert cli.do("POST", "/api/show", show_request("doomed")).status == 404


def test_rm_of_a_model_that_is_not_here(cli: GoClient) -> None:
    assert "not found" in cli.do("POST", "/api/show", show_request("nowhere")).error

    deleted = cli.do("DELETE", "/api/delete", delete_request("nowhere"))

    assert (deleted.status, deleted.error) == (404, "model 'nowhere' not found")


@of_one_node
def test_stop(cli: GoClient) -> None:
    cli.stream("/api/generate", generate_request("acme/private:v1", keep_alive="1h0m0s"))
    assert "acme/private:v1" in loaded(cli)
    cli.heartbeat()

    ok(cli.do("POST", "/api/show", show_request("acme/private:v1")))
    unloaded = ok(cli.stream("/api/generate", generate_request("acme/private:v1", keep_alive="0s")))

    assert unloaded["done_reason"] == "unload"
    wait_for(lambda: "acme/private:v1" not in loaded(cli), 10, "the model to be unloaded")


def test_signin_finds_somebody_signed_in_already(cli: GoClient) -> None:
    cli.heartbeat()

    assert ok(cli.do("POST", "/api/me"))["name"]


def test_signout(cli: GoClient) -> None:
    cli.heartbeat()
    answer = cli.do("POST", "/api/signout")

    assert (answer.status, answer.body) in [(200, b"null"), (401, b'{"error":"you are not currently signed in"}')]


def test_the_menu(cli: GoClient) -> None:
    cli.heartbeat()
    first = ok(cli.do("GET", "/api/tags"))["models"][0]
    ok(cli.do("POST", "/api/show", show_request(first["name"])))
    ok(cli.do("GET", "/api/ps"))
    assert ok(cli.do("GET", "/api/status"))["cloud"]["disabled"] is True
    ok(cli.do("POST", "/api/me"))

    suggested = ok(cli.do("GET", "/api/experimental/model-recommendations"))["recommendations"]

    assert all(isinstance(each["model"], str) and isinstance(each["description"], str) for each in suggested)


def test_the_version(cli: GoClient) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", ok(cli.do("GET", "/api/version"))["version"])


@pytest.fixture(scope="module")
def near(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoClient]:
    """A second server, which pulls from the first one and pushes to it under a key that is known there."""
    data = tmp_path_factory.mktemp("near") / "data"
    world.enrol(server_identity(data / "keys"), "open", "push")
    with running_server(data, {"TONNAGE_ALLOWED_HOSTS": world.server.host}) as server:
        yield GoClient(server.url)


def transferred(answer: Answer, verb: str) -> list[str]:
    """The steps of a pull or a push without its bars, of which each has come to its end."""
    bars = [line for line in answer.lines if "digest" in line]
    assert all(line["status"] == f"{verb} {line['digest'][7:19]}" for line in bars)
    ended = {line["digest"] for line in bars if line.get("completed") == line["total"]}
    assert ended == {line["digest"] for line in bars}
    assert len(ended) >= 3
    return [line["status"] for line in answer.lines if "digest" not in line]


def test_pull(world: World, near: GoClient) -> None:
    name = f"{world.server.host}/open/far:v1"
    near.heartbeat()

    pulled = near.stream("/api/pull", transfer_request(name, insecure=True))

    steps = transferred(pulled, "pulling")
    assert steps == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    assert ok(near.do("POST", "/api/show", show_request(name)))["system"] == "You are S."
    assert near.stream("/api/generate", generate_request(name, "hi", options={})).lines[-1]["done"] is True


def test_pull_of_a_model_that_is_nowhere(world: World, near: GoClient) -> None:
    name = f"{world.server.host}/open/nowhere:v1"

    *steps, last = near.stream("/api/pull", transfer_request(name, insecure=True)).lines

    assert [line["status"] for line in steps] == ["pulling manifest"]
    assert "pull model manifest: file does not exist" in last["error"]
    assert near.do("POST", "/api/show", show_request("nowhere:cloud")).status >= 400  # what it asks next


def test_push(world: World, near: GoClient) -> None:
    source, target = (f"{world.server.host}/open/{name}:v1" for name in ("far", "back"))
    near.stream("/api/pull", transfer_request(source, insecure=True))
    assert near.do("POST", "/api/copy", {"source": source, "destination": target}).status == 200
    near.heartbeat()

    pushed = near.stream("/api/push", transfer_request(target, insecure=True))

    assert transferred(pushed, "pushing") == ["retrieving manifest", "pushing manifest", "success"]
    far = GoClient(world.server.url)
    assert ok(far.do("POST", "/api/show", show_request("open/back:v1")))["system"] == "You are S."


def test_push_begins_with_who_we_are_and_a_line_without_a_digest(cli: GoClient) -> None:
    cli.heartbeat()
    assert ok(cli.do("POST", "/api/me"))["name"]

    said = cli.stream("/api/push", transfer_request("nowhere")).lines

    assert "digest" not in said[0]
    assert "error" in said[-1]


class TestSigned:
    """With OLLAMA_AUTH=1, from another machine."""

    @pytest.fixture
    def owner(self, world: World) -> GoClient:
        return GoClient(world.server.url, key=world.owner, extra=PROXY)

    def test_the_owner_of_a_key_manages_what_is_theirs(self, owner: GoClient, tmp_path: Path) -> None:
        weights = write_tiny_gguf(tmp_path / "signed.gguf", seed=31).read_bytes()
        owner.heartbeat()
        digest, status = owner.create_blob(weights)
        assert status == 201

        made = owner.stream("/api/create", create_request("acme/signed:v1", files={"w.gguf": digest}))
        assert made.lines[-1] == {"status": "success"}
        assert "acme/signed:v1" in [model["name"] for model in ok(owner.do("GET", "/api/tags"))["models"]]
        ok(owner.do("POST", "/api/show", show_request("acme/signed:v1")))
        copied = owner.do("POST", "/api/copy", {"source": "acme/signed:v1", "destination": "acme/signed:v2"})

        assert copied.status == 200, copied.body
        assert ok(owner.do("POST", "/api/me"))["name"]

    def test_nobody_else_does_and_is_told_so_without_a_401(self, world: World) -> None:
        for key in (None, PrivateKey.generate(), world.reader):
            stranger = GoClient(world.server.url, key=key, extra=PROXY)
            stranger.heartbeat()

            refused = stranger.do("POST", "/api/copy", {"source": "acme/private:v1", "destination": "acme/stolen"})

            assert refused.status == 403, refused.body
            assert refused.error
