"""POST /api/create, the current form: what becomes of what a request says."""

from __future__ import annotations

import json

import pytest

from runtime.modelfile import parse
from tests.made_models import (
    SUCCESS,
    ask,
    blob,
    create,
    digest_of,
    gguf_bytes,
    layer,
    layers,
    made,
    manifest,
    names,
    refused,
    shards,
    show,
    upload,
)
from tests.stored_models import push_layers, push_model
from tests.tiny_projector import write_tiny_projector

FROM = "from"


def test_trap_78_success_is_the_last_line_once_and_the_model_is_listed_by_then(client, weights):
    lines = create(client, model="tiny", files={"tiny.gguf": upload(client, weights)})

    assert [line["status"].partition(" sha256:")[0] for line in lines] == [
        "parsing GGUF",
        "using existing layer",
        "creating new layer",
        "writing manifest",
        "success",
    ]
    assert lines.count(SUCCESS) == 1
    assert names(client) == ["tiny:latest"]


def test_trap_77_without_a_stream_there_is_one_word(client, weights):
    answer = ask(client, "/api/create", model="tiny", files={"a.gguf": upload(client, weights)}, stream=False)

    assert (answer.status_code, answer.data) == (200, b'{"status":"success"}')
    assert answer.content_type == "application/json"


def test_trap_5_an_empty_model_leaves_it_to_name(client, weights):
    create(client, model="", name="tiny", files={"tiny.gguf": upload(client, weights)})

    assert names(client) == ["tiny:latest"]


def test_trap_71_keys_count_in_any_case(client, weights):
    create(client, Model="tiny", Files={"tiny.gguf": upload(client, weights)})

    assert names(client) == ["tiny:latest"]


def test_trap_57_a_name_without_a_tag_is_latest(client, tiny):
    create(client, model="team/other", **{FROM: "tiny"})

    assert names(client) == ["team/other:latest", "tiny:latest"]


def test_the_config_tells_what_the_header_tells(client, weights):
    create(client, model="tiny", files={"tiny.gguf": upload(client, weights)})

    config = json.loads(blob(client, "library/tiny", manifest(client, "library/tiny")["config"]["digest"]))
    assert config == {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "model_type": "110K",
        "file_type": "Q4_1",
        "architecture": "amd64",
        "os": "linux",
    }


def test_weights_are_kept_once_whoever_uses_them(client, tiny, weights, store):
    create(client, model="team/derived", **{FROM: "tiny"}, system="other")
    create(client, model="again", files={"x.gguf": upload(client, weights)})

    assert len([key for key in store.driver.keys("") if store.driver.stat(key) == len(weights)]) == 1


def test_a_derived_model_has_its_bases_layers_and_its_own_texts(client, store, weights, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(weights)
    push_model(
        store, "base", path, template="<{{ .Prompt }}>", system="old", license="A", params='{"top_k":7,"stop":["a"]}'
    )

    create(
        client, model="new", **{FROM: "base"}, system="new", license="B", parameters={"stop": ["b", "c"], "seed": 1},
        messages=[{"role": "user", "content": "hi"}],
    )  # fmt: skip

    kinds = [each["mediaType"].rpartition(".")[2] for each in manifest(client, "library/new")["layers"]]
    assert kinds == ["model", "template", "license", "system", "license", "params", "messages"]
    assert layer(client, "library/new", "template") == b"<{{ .Prompt }}>"
    assert layer(client, "library/new", "system") == b"new"
    assert layer(client, "library/new", "params") == b'{"seed":1,"stop":["b","c"],"top_k":7}\n'
    assert layer(client, "library/new", "messages") == b'[{"role":"user","content":"hi"}]\n'


def test_trap_79_licences_are_added_and_an_empty_system_clears_nothing(client, tiny):
    create(client, model="first", **{FROM: "tiny"}, license="A", system="stays")

    shown = made(client, model="second", **{FROM: "first"}, license=["B", "", "C"], system="")

    assert shown["license"] == "A\nB\nC"
    assert shown["system"] == "stays"


def test_a_licence_that_is_there_is_not_added_again(client, tiny):
    for _ in range(2):
        create(client, model="same", **{FROM: "tiny" if "same:latest" not in names(client) else "same"}, license="A")

    assert len(layers(client, "library/same", "license")) == 1


def test_trap_53_the_parent_is_the_model_it_came_from_and_else_nothing(client, tiny):
    create(client, model="child", **{FROM: "TINY"})

    assert show(client, "tiny")["details"]["parent_model"] == ""
    assert show(client, "child")["details"]["parent_model"] == "tiny:latest"


def test_a_template_replaces(client, tiny):
    create(client, model="a", **{FROM: "tiny"}, template="1{{ .Prompt }}")

    shown = made(client, model="b", **{FROM: "a"}, template="2{{ .Prompt }}")

    assert shown["template"] == "2{{ .Prompt }}"
    assert len(layers(client, "library/b", "template")) == 1


def test_the_chat_template_of_the_weights_is_no_template_of_its_own(client, tiny):
    """What `show --modelfile` prints makes the same model again, though a Jinja template is no Go template."""
    told = parse(show(client, "tiny")["modelfile"])
    assert "{%" in told.template

    again = made(client, model="again", **{FROM: told.sources[0]}, template=told.template)

    assert again["template"] == show(client, "tiny")["template"]
    assert layers(client, "library/again", "template") == []


def test_parameters_are_not_judged_here(client, tiny):
    create(
        client,
        model="odd",
        **{FROM: "tiny"},
        parameters={"stop": "x", "unheard_of": {"b": 1, "a": None}, "top_k": None},
    )

    assert layer(client, "library/odd", "params") == b'{"stop":"x","unheard_of":{"a":null,"b":1}}\n'


def test_names_of_renderer_parser_and_version_are_kept_and_inherited(client, tiny):
    create(client, model="a", **{FROM: "tiny"}, renderer="cogito", parser="cogito", requires="v0.14.0")
    create(client, model="b", **{FROM: "a"}, parser="qwen3")

    config = json.loads(blob(client, "library/b", manifest(client, "library/b")["config"]["digest"]))
    assert (config["renderer"], config["parser"], config["requires"]) == ("cogito", "qwen3", "0.14.0")
    assert show(client, "b")["requires"] == "0.14.0"


def test_info_overrides_what_the_header_tells(client, tiny):
    told = {
        "capabilities": ["vision", "vision"], "model_family": "fam", "base_name": "base", "quantization_level": "Q9",
        "parameter_size": "7B", "context_length": 4096, "embedding_length": 12.0, "unknown": [],
    }  # fmt: skip

    create(client, model="a", **{FROM: "tiny"}, info=told)

    config = blob(client, "library/a", manifest(client, "library/a")["config"]["digest"])
    assert config == (
        b'{"model_format":"gguf","model_family":"fam","model_families":["llama"],"model_type":"7B","file_type":"Q9",'
        b'"capabilities":["vision"],"context_length":4096,"embedding_length":12,"base_name":"base",'
        b'"architecture":"amd64","os":"linux"}\n'
    )


def test_weights_and_projector_come_together(client, weights, tmp_path):
    projector = write_tiny_projector(tmp_path / "mm.gguf").read_bytes()

    shown = made(
        client, model="seeing", files={"mm.gguf": upload(client, projector), "w.gguf": upload(client, weights)}
    )

    kinds = [each["mediaType"].rpartition(".")[2] for each in manifest(client, "library/seeing")["layers"]]
    assert kinds == ["model", "projector"]
    assert shown["details"]["families"] == ["llama", "clip"]
    assert "vision" in shown["capabilities"]


def titles(client, model):
    found = layers(client, f"library/{model}", "model")
    return [each["annotations"]["org.opencontainers.image.title"] for each in found]


def test_parts_of_a_model_are_layers_in_their_order_with_the_names_that_tell_it(client):
    parts = shards(3)
    files = {f"dir/m-{number:05d}-of-00003.gguf": upload(client, parts[number - 1]) for number in (3, 1, 2)}

    create(client, model="split", files=files)

    digests = [each["digest"] for each in layers(client, "library/split", "model")]
    assert digests == [digest_of(part) for part in parts]
    assert titles(client, "split") == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_parts_under_other_names_get_names_that_tell_their_order(client):
    parts = shards(2)

    create(client, model="split", files={"b": upload(client, parts[0]), "a": upload(client, parts[1])})

    titles = [
        each["annotations"]["org.opencontainers.image.title"] for each in layers(client, "library/split", "model")
    ]
    assert titles == ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]


def test_parts_keep_their_names_in_a_derived_model(client):
    files = {f"m-0000{number}-of-00002.gguf": upload(client, part) for number, part in enumerate(shards(2), 1)}
    create(client, model="split", files=files)

    create(client, model="derived", **{FROM: "split"}, system="x")

    assert titles(client, "derived") == titles(client, "split") == list(files)


def test_a_lora_adapter_is_a_layer_beside_its_base(client, tiny):
    adapter = gguf_bytes("llama", general__type="adapter", adapter__type="lora")

    create(client, model="tuned", **{FROM: "tiny"}, adapters={"lora.gguf": upload(client, adapter)})

    assert layer(client, "library/tuned", "adapter") == adapter


def test_a_draft_model_is_a_layer_of_its_own(client, tiny):
    draft = gguf_bytes("llama", tensors=True)

    create(client, model="quick", **{FROM: "tiny"}, draft_files={"draft.gguf": upload(client, draft)})

    assert layer(client, "library/quick", "draft") == draft


def test_from_wins_over_files(client, tiny):
    other = upload(client, gguf_bytes("other"))

    shown = made(client, model="x", **{FROM: "tiny"}, files={"other.gguf": other})

    assert shown["details"]["family"] == "llama"


def test_trap_55_another_spelling_overwrites_the_model_that_is_there(client, tiny):
    create(client, model="Foo:Q4", **{FROM: "tiny"}, system="one")
    create(client, model="foo:q4", **{FROM: "TINY:LATEST"}, system="two")

    assert names(client) == ["foo:Q4", "tiny:latest"]
    assert show(client, "FOO:Q4")["system"] == "two"


def test_trap_56_local_is_no_part_of_the_name(client, tiny):
    create(client, model="x:local", **{FROM: "tiny:local"})

    assert names(client) == ["tiny:latest", "x:latest"]


def test_what_a_name_named_before_is_given_up(client, tiny, store):
    create(client, model="x", **{FROM: "tiny"}, system="one")
    before = manifest(client, "library/x")
    digest = client.get("/v2/library/x/manifests/latest").headers["Docker-Content-Digest"]

    create(client, model="x", **{FROM: "tiny"}, system="two")

    assert client.get(f"/v2/library/x/manifests/{digest}").status_code == 404
    assert manifest(client, "library/x") != before


def test_a_manifest_that_another_tag_names_stays(client, tiny):
    create(client, model="x:one", **{FROM: "tiny"}, system="one")
    create(client, model="x:two", **{FROM: "tiny"}, system="one")
    created = manifest(client, "library/x", "two")

    create(client, model="x:one", **{FROM: "tiny"}, system="other")

    assert manifest(client, "library/x", "two") == created


def test_a_model_derived_from_itself_is_replaced(client, tiny):
    shown = made(client, model="tiny", **{FROM: "tiny"}, system="me")

    assert (shown["system"], names(client)) == ("me", ["tiny:latest"])


def test_the_same_again_is_the_same_model(client, tiny):
    digests = set()
    for _ in range(2):
        create(client, model="x", **{FROM: "tiny"}, system="s", parameters={"temperature": 0.5})
        digests.add(client.get("/api/tags").json["models"][0]["digest"])

    assert len(digests) == 1
    assert "sha256:" not in digests.pop()


def test_a_model_that_another_tool_pushed_is_a_base_too(client, store, weights):
    push_layers(store, "foreign", [("application/vnd.oci.image.layer.v1.tar", weights)], titles=("x.gguf",))

    shown = made(client, model="ours", **{FROM: "foreign"}, system="s")

    assert layer(client, "library/ours", "model") == weights
    assert shown["details"]["parent_model"] == "foreign:latest"


def test_a_base_of_no_weights_is_refused(client, store):
    push_layers(store, "image", [("application/vnd.oci.image.layer.v1.tar", b"no model")])

    status, message = refused(client, model="x", **{FROM: "image"})

    assert (status, message) == (400, "the manifest names no GGUF weights")


def test_warnings_and_failures_leave_no_name(client, tiny):
    lines = create(client, model="x", files={"a.gguf": upload(client, gguf_bytes())}, template="{{ if }}")

    assert lines[0] == {"status": "parsing GGUF"}
    assert set(lines[-1]) == {"error"}
    assert lines[-1]["error"].startswith("template error: ")
    assert names(client) == ["tiny:latest"]


@pytest.mark.parametrize("name", ["a", "A:B", "team/a:v1", "host.example/team/a", "localhost:5000/a/b:c"])
def test_every_name_that_may_be_asked_for_may_be_created(client, tiny, name):
    create(client, model=name, **{FROM: "tiny"})

    assert show(client, name)["details"]["family"] == "llama"
