"""The official JavaScript client, ollama 0.6.4 of npm, on Node: one process asks, and its answers are judged here.

TONNAGE_TEST_NODE_MODULES names the `node_modules` folder that the client is in, as `npm install --prefix DIR
ollama@0.6.4` makes it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.registry.ollama_api.world import LONG, TOOL, Api
from tests.tiny_gguf import EMBEDDING
from tests.tiny_projector import image_bytes

VERSION = "0.6.4"
MODULES = Path(os.environ.get("TONNAGE_TEST_NODE_MODULES", "node_modules"))
MISSING = (
    ("" if shutil.which("node") else "node is not installed")
    or ("" if (MODULES / "ollama").is_dir() else "TONNAGE_TEST_NODE_MODULES names no folder with npm's ollama in it")
)  # fmt: skip
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=MISSING)

NO_CLOUD = "ollama cloud is disabled: web {} is unavailable"
REFUSALS: dict[str, list[object]] = {
    "chat": ["ResponseError", 404, "model 'nope' not found"],
    "chatStreamed": ["ResponseError", 404, "model 'nope' not found"],
    "generate": ["ResponseError", 404, "model 'nope' not found"],
    "embed": ["ResponseError", 404, 'model "nope" not found, try pulling it first'],
    "embeddings": ["ResponseError", 400, "model is required"],
    "show": ["ResponseError", 404, "model 'nope:latest' not found"],
    "create": ["ResponseError", 400, "invalid model name"],
    "copy": ["ResponseError", 404, 'model "nope" not found'],
    "delete": ["ResponseError", 404, "model 'nope' not found"],
    "blind": ["ResponseError", 400, '"tiny" does not support images'],
    "pull": ["ResponseError", 500, "pull model manifest: file does not exist"],
    "pullStreamed": ["Error", None, "pull model manifest: file does not exist"],  # a line has no status
    "push": ["ResponseError", 400, "model is required"],
    "webSearch": ["ResponseError", 403, NO_CLOUD.format("search")],
    "webFetch": ["ResponseError", 403, NO_CLOUD.format("fetch")],
    "systemone": ["ResponseError", 404, "404 page not found"],
}


class Told:
    """What each check came to."""

    def __init__(self, output: str) -> None:
        self._lines = {line["name"]: line for line in map(json.loads, output.splitlines())}

    def __getitem__(self, check: str) -> Any:
        line = self._lines[check]
        assert "failure" not in line, line["failure"]
        return line["value"]


@pytest.fixture(scope="module")
def told(near: Api, far: Api, tmp_path_factory: pytest.TempPathFactory) -> Told:
    assert not MISSING, MISSING
    image = tmp_path_factory.mktemp("js") / "image.png"
    image.write_bytes(image_bytes())
    schema = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}
    asked = {"modules": str(MODULES.absolute()), "near": near.server.url, "far": far.server.host, "image": str(image),
             "tool": TOOL, "schema": {**schema, "additionalProperties": False}, "long": LONG}  # fmt: skip
    finished = subprocess.run(
        ["node", str(Path(__file__).parent / "checks.mjs"), json.dumps(asked)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "invalid json" not in finished.stderr  # what the client says of a line that is no object
    return Told(finished.stdout)


def said(parts: list[dict[str, Any]]) -> str:
    return "".join(part["message"]["content"] for part in parts)


def test_the_client_is_the_one_named_above_and_no_method_of_it_goes_untested(told: Told) -> None:
    assert told["methods"] == {"version": VERSION, "uncalled": []}


def test_a_chat_says_in_parts_what_it_says_as_a_whole(told: Told) -> None:
    whole, parts = told["chat"]["whole"], told["chat"]["parts"]

    assert said(parts) == whole["message"]["content"] != ""
    assert (whole["done_reason"], whole["eval_count"], parts[-1]["eval_count"]) == ("length", 8, 8)
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    for told_of in (whole["logprobs"], [each for part in parts for each in part.get("logprobs", [])]):
        assert [len(each["top_logprobs"]) for each in told_of] == [2] * 8


def test_a_text_goes_on_in_parts_and_as_a_whole(told: Told) -> None:
    whole, parts = told["generate"]["whole"], told["generate"]["parts"]

    assert "".join(part["response"] for part in parts) == whole["response"] != ""
    assert len(parts) > 2
    assert parts[-1]["context"] == whole["context"] != []


def test_reasoning_is_kept_apart(told: Told) -> None:
    whole, parts = told["thinking"]["whole"], told["thinking"]["parts"]

    assert "".join(part["message"].get("thinking", "") for part in parts) == whole["message"]["thinking"] != ""
    assert said(parts) == whole["message"]["content"] == ""


def test_an_answer_obeys_a_schema(told: Told) -> None:
    whole, parts = told["schema"]["whole"], told["schema"]["parts"]

    assert json.loads(said(parts)) == json.loads(whole["message"]["content"]) == {"city": "Rome"}


def test_a_function_is_called_in_parts_and_as_a_whole(told: Told) -> None:
    whole, parts = told["tools"]["whole"], told["tools"]["parts"]

    for calls in (whole["message"]["tool_calls"], [c for part in parts for c in part["message"].get("tool_calls", [])]):
        assert [call["function"]["name"] for call in calls] == ["weather"]
        assert calls[0]["function"]["arguments"] == {"unit": "C", "city": "Rome"}
    assert said(parts) == whole["message"]["content"] == ""


def test_images_are_seen_as_bytes_as_files_and_as_text(told: Told) -> None:
    blind, *seen = told["images"]

    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0] > blind


def test_texts_become_unit_vectors(told: Told) -> None:
    one, two, old = (told["vectors"][key] for key in ("one", "two", "old"))

    assert [len(vector) for vector in (*one["embeddings"], *two["embeddings"])] == [EMBEDDING, 8, 8]
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in two["embeddings"])
    assert old["embedding"] == pytest.approx(one["embeddings"][0], abs=1e-5)


def test_what_is_stored_is_listed_and_shown(told: Told, near: Api) -> None:
    models = told["models"]

    assert models["version"] == near.client.request("GET", "/api/version").json
    assert {"tiny:latest", "ns/alias:v1"} <= {model["name"] for model in models["listed"]}
    assert models["shown"]["model_info"]["general.architecture"] == "llama"
    assert models["shown"]["system"] == "You are S."


def test_what_is_loaded_is_listed_until_it_is_told_to_go(told: Told) -> None:
    before, after = told["loaded"]["before"], told["loaded"]["after"]

    assert [model["context_length"] for model in before if model["name"] == "other:latest"] == [2048]
    assert "other:latest" not in after


def test_a_model_is_derived_copied_and_deleted(told: Told) -> None:
    making = told["making"]

    success = {"status": "success"}
    assert making["made"]["whole"] == making["made"]["parts"][-1] == making["copied"] == success
    assert "writing manifest" in [part["status"] for part in making["made"]["parts"]]
    assert making["shown"]["system"] == "You are J."
    assert making["deleted"] == [success] * 2
    assert making["after"] == ["ResponseError", 404, "model 'js:latest' not found"]


def test_a_model_goes_to_another_server_and_comes_back(told: Told, far: Api) -> None:
    transfers = told["transfers"]

    here = {model["name"]: model["digest"] for model in transfers["listed"]}
    there = {model["name"]: model["digest"] for model in far.client.request("GET", "/api/tags").json["models"]}
    assert here[transfers["model"]] == here["tiny:latest"] == there["js/sent:v1"]
    for first, way in ("retrieving manifest", transfers["pushed"]), ("pulling manifest", transfers["pulled"]):
        assert way["whole"] == way["parts"][-1] == {"status": "success"}
        assert way["parts"][0]["status"] == first
        assert any(line.get("completed") == line["total"] > 10_000 for line in way["parts"] if "total" in line)


@pytest.mark.parametrize("way", ["abort", "abortOne"])
def test_what_is_aborted_ends_and_makes_room_at_once(told: Told, way: str) -> None:
    aborted = told[way]

    assert set(aborted["ends"]) == {"AbortError"}
    assert [after["answer"]["eval_count"] for after in aborted["next"]] == [8] * len(aborted["ends"])
    assert all(after["seconds"] < 10 for after in aborted["next"])  # one slot; the whole answer would keep it a minute


@pytest.mark.parametrize("act", REFUSALS)
def test_a_refusal_has_status_and_text(told: Told, act: str) -> None:
    assert told["refusals"][act] == REFUSALS[act]


def test_every_refusal_is_judged(told: Told) -> None:
    assert set(told["refusals"]) == set(REFUSALS)
