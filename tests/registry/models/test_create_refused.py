"""What /api/create refuses: the literal words, the status, and whether a stream has begun by then."""

from __future__ import annotations

import json

import pytest

from storage.reference import HoldingName, RepositoryName
from tests.made_models import ask, create, digest_of, gguf_bytes, names, refused, shards, upload, zipped

DIGEST = digest_of(b"absent")
NEITHER = "neither 'from' or 'files' was specified"
NOT_CONVERTED = "safetensors and PyTorch models are not converted here: convert the model to GGUF first"
MARKS = "requires must be a valid semver (e.g. 0.14.0)"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "invalid model name"),
        ({"model": ""}, 400, "invalid model name"),
        ({"model": "a b", "from": "tiny"}, 400, "invalid model name"),
        ({"model": "m@sha256:0", "from": "tiny"}, 400, "invalid model name"),
        ({"model": "x"}, 400, NEITHER),
        ({"model": "x", "from": "", "files": None}, 400, NEITHER),
        ({"model": "x", "from": None}, 400, NEITHER),
        ({"model": "x", "files": {}}, 400, "no files provided to convert"),
        ({"model": "x", "from": "a b"}, 400, "invalid model name"),
        ({"model": "x", "from": "a:local:cloud"}, 400, 'use either :local or :cloud, not both: "a:local:cloud"'),
        ({"model": "x", "from": "a:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ({"model": "x", "files": {"a.gguf": ""}}, 400, "invalid digest format"),
        ({"model": "x", "files": {"a.gguf": "sha256:12"}}, 400, "invalid digest format"),
        ({"model": "x", "files": {"a.gguf": 5}}, 400, "invalid digest format"),
        ({"model": "x", "files": {"a.gguf": DIGEST}}, 400, f'blob "{DIGEST}" not found'),
        ({"model": "x", "from": "tiny", "adapters": {"a.gguf": DIGEST}}, 400, f'blob "{DIGEST}" not found'),
        ({"model": "x", "from": "tiny", "remote_host": "https://ollama.com"}, 400,
         "remote models are not supported: this server runs only weights that it stores"),
        ({"model": "x", "from": "tiny", "remote_host": "h", "draft_files": {"a": DIGEST}}, 400,
         "DRAFT cannot be used with remote models"),
        ({"model": "x", "from": "tiny", "draft_quantize": "q8_0"}, 400, "--draft-quantize requires a DRAFT model"),
        ({"model": "x", "from": "tiny", "requires": "soon"}, 400, MARKS),
        ({"model": 5}, 400, 'field "model" must be of type string'),
        ({"model": "x", "files": []}, 400, 'field "files" must be of type object'),
        ({"model": "x", "from": "tiny", "license": [1]}, 400, 'field "license" must be an array of strings'),
        ({"model": "x", "from": "tiny", "messages": ["a"]}, 400, 'field "messages" must be an array of objects'),
        ({"model": "x", "from": "tiny", "renderer": "r" * 300}, 400, "renderer is longer than 256 characters"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
def test_what_can_be_told_at_once_has_its_status(settled, body, status, message, stream):
    assert refused(settled, **body, stream=stream) == (status, message)
    assert names(settled) == ["tiny:latest"]


@pytest.mark.parametrize(
    "path", ["/a.gguf", "../a.gguf", "a/../b.gguf", "./a.gguf", "a//b.gguf", "a/", "", ".", "..", "a" * 2000]
)
@pytest.mark.parametrize("key", ["files", "adapters", "draft_files"])
def test_a_path_stays_in_its_folder(settled, path, key):
    assert refused(settled, model="x", **{"from": "tiny", key: {path: DIGEST}}) == (400, "file path must be relative")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"template": "{{ if .Prompt }}"}, "template error: "),
        ({"quantize": "q3_k_m"},
         "unsupported quantization type Q3_K_M - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"),
        ({"quantization": "nope"}, "unsupported quantization type NOPE - supported types are"),
        ({"info": {"model_family": 5}}, 'info field "model_family" must be a string'),
        ({"info": {"base_name": []}}, 'info field "base_name" must be a string'),
        ({"info": {"context_length": "long"}}, 'info field "context_length" must be a number'),
        ({"info": {"context_length": True}}, 'info field "context_length" must be a number'),
        ({"info": {"embedding_length": -1}}, 'info field "embedding_length" must be a non-negative integer'),
        ({"info": {"embedding_length": 1.5}}, 'info field "embedding_length" must be a non-negative integer'),
        ({"info": {"context_length": 1e300}}, 'info field "context_length" must be a non-negative integer'),
        ({"info": {"capabilities": "vision"}}, 'info field "capabilities" must be an array of strings'),
        ({"info": {"capabilities": ["vision", 5]}}, 'info field "capabilities" must be an array of strings'),
        ({"system": "x" * (2**20 + 1)}, "system is larger than 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_comes_up_later_is_a_line_of_the_stream_or_has_its_status(settled, weights, body, message):
    given = {"model": "x", "files": {"w.gguf": upload(settled, weights)}, **body}

    last = create(settled, **given)[-1]
    status, said = refused(settled, **given, stream=False)

    assert set(last) == {"error"} and last["error"].startswith(message)
    assert (status, said) == (400, last["error"])
    assert names(settled) == ["tiny:latest"]


def test_trap_33_a_failure_before_the_first_line_has_its_status(settled):
    status, message = refused(settled, model="x", **{"from": "tiny"}, template="{{ if }}")

    assert status == 400
    assert message.startswith("template error: ")


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("notes.txt", b"just text", "unknown type"),
        ("model.bin", b"\0\0\0\0", "unknown type"),
        ("empty", b"", "unknown type"),
        ("model.gguf", b"no gguf", "supplied file was not in GGUF format"),
        ("model.gguf", b"", "supplied file was not in GGUF format"),
        ("model.safetensors", b"{}", NOT_CONVERTED),
        ("MODEL.SAFETENSORS", b"{}", NOT_CONVERTED),
        ("model", zipped(), NOT_CONVERTED),
        ("model.gguf", b"GGUF\x63\0\0\0", "not a GGUF file we can read: version 99, known are 2 and 3"),
        ("model.gguf", gguf_bytes("llama", tensors=True)[:-20], "not a whole GGUF file: "),
    ],
)
def test_every_file_is_looked_into(settled, path, data, message):
    status, said = refused(settled, model="x", files={path: upload(settled, data)}, stream=False)

    assert status == 400
    assert said.startswith(message)


def test_one_file_that_is_not_gguf_spoils_all(settled, weights):
    files = {"w.gguf": upload(settled, weights), "readme.md": upload(settled, b"# read me")}

    assert refused(settled, model="x", files=files, stream=False) == (400, "supplied file was not in GGUF format")


def test_gguf_needs_no_name_that_says_so(client, weights):
    assert create(client, model="x", files={"weights": upload(client, weights)})[-1] == {"status": "success"}


def test_parts_must_all_be_there(settled):
    files = {f"m-{number:05d}-of-00003.gguf": upload(settled, part) for number, part in enumerate(shards(3), 1)}
    files.popitem()

    assert refused(settled, model="x", files=files, stream=False) == (400, "the weights lack part 3 of 3")


def test_two_models_are_not_one(settled, weights):
    files = {"a.gguf": upload(settled, weights), "b.gguf": upload(settled, gguf_bytes("llama", tensors=True))}

    status, message = refused(settled, model="x", files=files, stream=False)

    assert (status, message) == (400, "the weights are in several files that are not parts of one another")


def test_an_addition_alone_is_no_model(settled):
    projector = gguf_bytes("clip", general__type="mmproj")

    status, message = refused(settled, model="x", files={"mm.gguf": upload(settled, projector)}, stream=False)

    assert (status, message) == (400, "the files hold no weights of a model")


LORA = gguf_bytes("llama", general__type="adapter", adapter__type="lora")


def test_one_adapter_is_as_many_as_there_can_be(client, tiny):
    one, two = upload(client, LORA), upload(client, gguf_bytes("llama", general__type="adapter", general__name="b"))
    expected = (400, "only one adapter is currently supported")

    body = {"model": "x", "from": "tiny", "stream": False}
    assert refused(client, **body, adapters={"a.gguf": one, "b.gguf": two}) == expected
    assert ask(client, "/api/create", **body, adapters={"a.gguf": one}).status_code == 200
    assert refused(client, **(body | {"from": "x"}), adapters={"b.gguf": two}) == expected


def test_weights_are_no_adapter(settled, weights):
    status, message = refused(
        settled, model="x", **{"from": "tiny"}, adapters={"a.gguf": upload(settled, weights)}, stream=False
    )

    assert (status, message) == (400, "the file given as an adapter is not a LoRA adapter")


def test_safetensors_adapters_are_told_what_to_do(settled):
    body = {"model": "x", "from": "tiny", "adapters": {"adapter.safetensors": upload(settled, b"{}")}, "stream": False}

    assert refused(settled, **body) == (400, NOT_CONVERTED)


def test_what_is_quantized_already_is_not_quantized_again(settled):
    status, message = refused(settled, model="x", **{"from": "tiny"}, quantize="q8_0")

    assert (status, message) == (400, "quantization is only supported for F16, BF16 and F32 models")


def test_a_base_that_is_nowhere_is_pulled_in_vain(settled):
    lines = create(settled, model="x", **{"from": "absent"})

    assert lines[0] == {"status": "pulling manifest"}
    assert set(lines[-1]) == {"error"}
    assert "pull model manifest" in lines[-1]["error"]
    assert names(settled) == ["tiny:latest"]


@pytest.mark.parametrize("raw", [b"", b"   ", b"\n"])
def test_an_empty_body_is_missed(settled, raw):
    answer = settled.post("/api/create", data=raw)

    assert (answer.status_code, answer.json) == (400, {"error": "missing request body"})


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"{'model': 1}", b"\xff\xfe"])
def test_a_body_that_is_no_object_is_refused(settled, raw):
    answer = settled.post("/api/create", data=raw)

    assert answer.status_code == 400
    assert set(answer.json) == {"error"}


def test_a_body_beyond_measure_is_refused(settled):
    answer = settled.post("/api/create", data=json.dumps({"model": "x", "system": "x" * 2**24}))

    assert answer.status_code == 413


def test_trap_34_errors_carry_nothing_but_their_text(settled):
    answer = ask(settled, "/api/create", model="x")

    assert answer.json == {"error": NEITHER}
    assert answer.content_type.startswith("application/json")


def test_a_create_that_fails_leaves_no_repository(client, store, weights):
    create(client, model="team/x", files={"w.gguf": upload(client, weights)}, template="{{ if }}")

    assert store.namespaces.list() == []
    assert store.repositories.catalog() == ([], False)
    with pytest.raises(Exception, match="no such repository"):
        store.repositories.tags(RepositoryName("team/x"))
    assert store.repositories.tags(HoldingName.of("anonymous")) == ([], False)
