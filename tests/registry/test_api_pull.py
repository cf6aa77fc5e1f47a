"""POST /api/pull from a registry that fails where it is told to, over a real server."""

import hashlib
import json
import os
import socket
import threading

import pytest

from tests.faulty_registry import Fault, faulty_registry
from tests.registry.transfers import CONFIG, MIB, add_model, pair, words
from tests.server import wait_for


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pair(tmp_path_factory.mktemp("pull")) as running:
        yield running


@pytest.fixture
def pulling(world):
    """The pair, the registry as new."""
    world.forget()
    return world


def pulled_words(digests):
    return [
        "pulling manifest",
        *(f"pulling {digest[7:19]}" for digest in digests),
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]


def test_a_pull_tells_each_step_and_keeps_every_byte(pulling):
    layers = [os.urandom(3 * MIB), b"{{ .Prompt }}", b"MIT"]
    digests = add_model(pulling.registry, "v1", *layers)

    lines = pulling.pull()

    assert words(lines) == pulled_words(digests)
    stored = pulling.stored("v1")
    assert stored.body == pulling.registry.manifests["v1"][0]
    assert stored.headers["Content-Type"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert [pulling.blob(digest).body for digest in digests] == [*layers, CONFIG]


def test_progress_lines_have_a_status_a_digest_and_counts_that_end_at_the_total(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(2 * MIB))

    lines = [line for line in pulling.pull() if "digest" in line]

    assert {line["digest"] for line in lines} == set(digests)
    for line in lines:
        assert line["status"]
        assert len(line["digest"]) == 71
        assert 0 not in (line.get("total"), line.get("completed"))
    assert [line for line in lines if line["digest"] == digests[0]][-1] == {
        "status": f"pulling {digests[0][7:19]}",
        "digest": digests[0],
        "total": len(data),
        "completed": len(data),
    }


def test_what_is_here_is_one_line_and_no_transfer(pulling):
    digests = add_model(pulling.registry, "v1", os.urandom(MIB))
    pulling.pull()
    pulling.registry.requests.clear()

    lines = [line for line in pulling.pull() if "digest" in line]

    assert [(line["digest"], line["completed"] == line["total"]) for line in lines] == [
        (each, True) for each in digests
    ]
    assert pulling.registry.count("GET", "blobs") == 0


def test_an_empty_layer_has_no_counts(pulling):
    digests = add_model(pulling.registry, "v1", os.urandom(10), b"", b"")

    lines = pulling.pull()

    assert {"status": f"pulling {digests[1][7:19]}", "digest": digests[1]} in lines
    assert lines[-1] == {"status": "success"}


@pytest.mark.parametrize("key", ["model", "name", "Model"])
def test_without_a_stream_only_success_is_said(pulling, key):
    add_model(pulling.registry, "v1", os.urandom(100))

    answer = pulling.post("pull", {"model": "", key: pulling.model(), "insecure": True, "stream": False})

    assert (answer.status, answer.json) == (200, {"status": "success"})
    assert answer.headers["Content-Type"] == "application/json"


def test_what_the_client_knows_of_credentials_is_ignored(pulling):
    add_model(pulling.registry, "v1", os.urandom(100))

    assert pulling.pull(username="u", password="p")[-1] == {"status": "success"}
    assert not any("Authorization" in request.headers for request in pulling.registry.requests)


def test_a_model_that_is_not_there_is_said_as_clients_look_for_it(pulling):
    lines = pulling.pull("a/absent:v1")

    assert lines == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    answer = pulling.post("pull", {"name": f"{pulling.host}/a/absent", "insecure": True, "stream": False})
    assert (answer.status, answer.json) == (500, {"error": "pull model manifest: file does not exist"})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (412, b"a newer version is needed", "pull model manifest: 412: a newer version is needed"),
        (403, b'{"error":"not for you"}', "pull model manifest: 403: not for you"),
        (500, b'{"errors":[{"code":"X","message":"broken"}]}', "pull model manifest: 500: broken"),
    ],
)
def test_other_refusals_come_with_status_and_words(pulling, status, body, said):
    pulling.registry.faults.append(Fault("GET", "manifests", status=status, body=body, times=9))

    assert pulling.pull()[-1] == {"error": said}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{}", 400, "invalid model name"),
        (b'{"model":"","name":""}', 400, "invalid model name"),
        (b'{"model":"a b"}', 400, "invalid model name"),
        (b'{"model":"h/a/b/m"}', 400, "invalid model name"),
        (b'{"model":"ftp://h/a/m"}', 400, "invalid model name"),
        (b'{"model":"m@sha256:%s"}' % (b"0" * 64), 400, "invalid model name"),
        (b'{"model":"http://h.example/a/m"}', 500, "insecure protocol http"),
        (b'{"model":"m:cloud"}', 403, "ollama cloud is disabled: remote model is unavailable"),
        (b'{"model":"m","insecure":"yes"}', 400, 'field "insecure" must be of type boolean'),
        (b"", 400, "missing request body"),
        (b"null", 400, "invalid model name"),
    ],
)
def test_what_is_wrong_with_the_request_has_its_own_status(pulling, body, status, said):
    answer = pulling.client.request("POST", "/api/pull", body, {"Content-Type": "application/x-www-form-urlencoded"})

    assert (answer.status, answer.json) == (status, {"error": said})


def test_a_name_that_says_http_needs_insecure_and_then_works(pulling):
    add_model(pulling.registry, "v1", os.urandom(100))
    model = f"http://{pulling.model()}"

    assert pulling.transfer("pull", model)[-1] == {"status": "success"}
    refused = pulling.post("pull", {"model": model})
    assert (refused.status, refused.json) == (500, {"error": "insecure protocol http"})


def test_without_insecure_it_is_https(pulling):
    error = pulling.pull(insecure=False)[-1]["error"]

    assert "does not speak TLS" in error
    assert pulling.registry.requests == []


def test_case_goes_out_as_typed_and_is_kept_folded(pulling):
    add_model(pulling.registry, "V1", os.urandom(100))

    assert pulling.pull("Org/Model-GGUF:V1")[-1] == {"status": "success"}
    assert pulling.registry.count("GET", "/v2/Org/Model-GGUF/manifests/V1") == 1
    assert pulling.stored("V1", "org/model-gguf").status == 200


FAULTS = {
    "cut-at-once": [Fault("GET", "blobs", cut_after=0)],
    "cut-twice": [Fault("GET", "blobs", cut_after=2 * MIB), Fault("GET", "blobs", cut_after=MIB)],
    "busy": [Fault("GET", "blobs", status=503), Fault("GET", "blobs", status=429, headers={"Retry-After": "1"})],
    "range-refused": [Fault("GET", "blobs", cut_after=MIB), Fault("GET", "blobs", status=416)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_what_fails_on_the_way_is_overcome(pulling, faults):
    digests = add_model(pulling.registry, "v1", data := os.urandom(5 * MIB))
    pulling.registry.faults += [Fault(**vars(fault)) for fault in faults]

    assert words(pulling.pull()) == pulled_words(digests)
    assert pulling.blob(digests[0]).body == data


def test_after_a_cut_only_the_rest_is_sent(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(4 * MIB))
    pulling.registry.faults.append(Fault("GET", digests[0], cut_after=3 * MIB))

    pulling.pull()

    assert pulling.registry.sent_bytes == len(data) + len(CONFIG)
    ranges = [request.headers.get("Range") for request in pulling.registry.requests if digests[0] in request.target]
    assert ranges == [None, f"bytes={3 * MIB}-"]


def test_a_server_that_knows_no_ranges_sends_all_again(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(3 * MIB))
    pulling.registry.knows_ranges = False
    pulling.registry.faults.append(Fault("GET", digests[0], cut_after=2 * MIB))

    assert pulling.pull()[-1] == {"status": "success"}
    assert pulling.blob(digests[0]).body == data


def test_a_later_pull_goes_on_from_what_is_stored(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(4 * MIB))
    pulling.registry.faults += [Fault("GET", digests[0], cut_after=3 * MIB), Fault("GET", digests[0], status=403)]
    assert "error" in pulling.pull()[-1]
    assert pulling.stored("v1").status == 404

    lines = pulling.pull()

    assert lines[-1] == {"status": "success"}
    assert pulling.registry.sent_bytes == len(data) + len(CONFIG)
    assert min(line["completed"] for line in lines if line.get("digest") == digests[0]) >= 3 * MIB
    assert pulling.blob(digests[0]).body == data


def test_wrong_bytes_are_never_kept(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(2 * MIB))
    pulling.registry.blobs[digests[0]] = os.urandom(2 * MIB)

    error = pulling.pull()[-1]["error"]

    assert error.startswith("digest mismatch, file must be downloaded again")
    assert pulling.blob(digests[0]).status == 404
    assert pulling.stored("v1").status == 404
    pulling.registry.blobs[digests[0]] = data
    assert pulling.pull()[-1] == {"status": "success"}


def test_a_beginning_of_other_bytes_is_thrown_away_once(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(2 * MIB))
    pulling.registry.blobs[digests[0]] = os.urandom(2 * MIB)
    pulling.registry.faults += [Fault("GET", digests[0], cut_after=MIB), Fault("GET", digests[0], status=403)]
    assert "error" in pulling.pull()[-1]
    pulling.registry.blobs[digests[0]] = data

    assert pulling.pull()[-1] == {"status": "success"}
    assert pulling.blob(digests[0]).body == data


@pytest.mark.parametrize("size", [MIB - 1, MIB + 1])
def test_a_size_that_is_not_the_blobs_is_refused(pulling, size):
    digests = add_model(pulling.registry, "v1", os.urandom(MIB), size=size)

    assert f"has {MIB} bytes" in pulling.pull()[-1]["error"]
    assert pulling.blob(digests[0]).status == 404


def test_nothing_is_visible_before_all_of_it_is_here(pulling):
    digests = add_model(pulling.registry, "v1", os.urandom(MIB), b"second")
    pulling.registry.faults.append(Fault("GET", digests[1], status=404))

    assert "error" in pulling.pull()[-1]

    assert pulling.stored("v1").status == 404
    assert pulling.client.request("POST", "/api/show", json.dumps({"model": pulling.model()})).status == 404


def test_a_blob_that_went_while_others_came_is_fetched_again(pulling):
    digests = add_model(pulling.registry, "v1", os.urandom(MIB), os.urandom(MIB))
    pulling.registry.faults.append(Fault("GET", digests[1], stall_after=MIB // 2))
    lines = []
    pull = threading.Thread(target=lambda: lines.extend(pulling.pull()))
    pull.start()
    wait_for(lambda: pulling.registry.sent_bytes >= MIB + MIB // 2, 10, "the second transfer to be under way")

    gone = pulling.admin.request("DELETE", f"/v2/{pulling.repository()}/blobs/{digests[0]}")
    pulling.registry.silence.set()  # the connection is dropped: the transfer goes on from there
    pull.join(30)

    assert gone.status == 202
    assert lines[-1] == {"status": "success"}
    assert pulling.blob(digests[0]).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_blobs_may_lie_elsewhere_on_a_named_host(pulling, status):
    digests = add_model(pulling.registry, "v1", data := os.urandom(MIB))
    pulling.registry.blob_location, pulling.registry.blob_status = pulling.registry.url, status

    assert pulling.pull()[-1] == {"status": "success"}
    assert pulling.blob(digests[0]).body == data


def test_an_empty_answer_with_a_location_is_followed(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(MIB))
    pulling.registry.has_empty_probe = True

    assert pulling.pull()[-1] == {"status": "success"}
    assert pulling.blob(digests[0]).body == data


@pytest.mark.parametrize("name", ["a redirect", "a realm"])
def test_a_named_registry_leads_to_no_inner_host_that_is_not(pulling, name):
    add_model(pulling.registry, "v1", os.urandom(MIB))
    with faulty_registry() as inner:
        if name == "a redirect":
            pulling.registry.blob_location = inner.url
        else:
            pulling.registry.keys, pulling.registry.realm = {"some"}, f"{inner.url}/v2/token"

        assert "error" in pulling.pull()[-1]

        assert inner.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0", "0.0.0.0", "127.0.0.1.", "localhost."]
)
def test_the_servers_own_machine_is_out_of_reach_however_it_is_spelt(pulling, host):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        answer = pulling.post(
            "pull", {"model": f"{host}:{listener.getsockname()[1]}/a/m", "insecure": True, "stream": False}
        )

        assert answer.status in (400, 500)
        with pytest.raises(BlockingIOError):
            listener.accept()


def index_of(*children, **fields):
    body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list(children)}
    return json.dumps(body | fields).encode()


def test_of_an_index_the_model_is_taken(pulling):
    digests = add_model(pulling.registry, "model", os.urandom(MIB))
    raw, kind = pulling.registry.manifests.pop("model")
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    pulling.registry.manifests[digest] = (raw, kind)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(raw)}
    image = entry | {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "amd64"}}
    index = index_of(image, entry | {"digest": digest})
    pulling.registry.manifests["v1"] = (index, "application/vnd.oci.image.index.v1+json")

    assert words(pulling.pull()) == pulled_words(digests)
    assert pulling.stored("v1").body == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>", b"", b"[]", b'{"schemaVersion":1}', index_of(), b'{"a":' * 5000, b'{"layers":[{"digest":"x"}]}',
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"md5:0","size":1}}',
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_manifest_is_said_in_one_line(pulling, raw):
    pulling.registry.manifests["v1"] = (raw, "text/plain")

    lines = pulling.pull()

    assert len(lines) == 2
    assert lines[1]["error"].startswith("pull model manifest: ")
    assert pulling.stored("v1").status == 404


def test_a_manifest_of_no_end_is_cut_short(pulling):
    pulling.registry.manifests["v1"] = (b" " * (5 * MIB), "text/plain")

    assert "more than 4194304 bytes" in pulling.pull()[-1]["error"]


def test_layers_of_an_older_version_go(pulling):
    add_model(pulling.registry, "v1", os.urandom(100))
    pulling.pull()
    old = pulling.stored("v1").headers["Docker-Content-Digest"]
    digests = add_model(pulling.registry, "v1", os.urandom(100))

    said = words(pulling.pull())

    assert said == [*pulled_words(digests)[:-1], "removing unused layers", "success"]
    assert pulling.stored(old).status == 404


def test_an_older_version_that_has_another_name_stays(pulling):
    add_model(pulling.registry, "v1", os.urandom(100))
    pulling.registry.manifests["v2"] = pulling.registry.manifests["v1"]
    pulling.pull()
    pulling.transfer("pull", pulling.model("v2"))
    digests = add_model(pulling.registry, "v1", os.urandom(100))

    assert words(pulling.pull()) == pulled_words(digests)
    assert pulling.stored("v2").status == 200


@pytest.mark.parametrize("may_read", [True, False])
def test_a_blob_of_another_repository_is_taken_from_there_by_whoever_may_read_it(pulling, may_read):
    digests = add_model(pulling.registry, "v1", os.urandom(MIB))
    pulling.admin.push_blob("elsewhere/m", pulling.registry.blobs[digests[0]])
    client = pulling.admin if may_read else pulling.client
    model = f"{pulling.host}/b/m{may_read}:v1".lower()

    answer = client.post_json("/api/pull", {"model": model, "insecure": True, "stream": False})

    assert answer.json == {"status": "success"}
    assert pulling.registry.count("GET", digests[0]) == (0 if may_read else 1)


def test_two_at_once_share_one_download(tmp_path):
    with pair(tmp_path, TONNAGE_WORKERS="1") as world:
        digests = add_model(world.registry, "v1", data := os.urandom(3 * MIB))
        world.registry.faults.append(Fault("GET", digests[0], stall_after=MIB))
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(world.pull())) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: world.registry.sent_bytes == MIB, 10, "the blob to be under way")
        wait_for(lambda: world.registry.count("GET", "manifests") == 2, 10, "both to begin")
        world.registry.silence.set()  # the connection is dropped: both go on from there
        for thread in threads:
            thread.join(30)

        assert [lines[-1] for lines in answers] == [{"status": "success"}] * 2
        assert world.registry.sent_bytes == len(data) + len(CONFIG)
        assert world.blob(digests[0]).body == data


def test_two_processes_at_one_blob_both_come_to_the_right_end(tmp_path):
    with pair(tmp_path, TONNAGE_WORKERS="3") as world:
        digests = add_model(world.registry, "v1", data := os.urandom(3 * MIB))
        world.registry.faults.append(Fault("GET", digests[0], cut_after=MIB, times=2))
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(world.pull())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert [lines[-1] for lines in answers] == [{"status": "success"}] * 6
        assert world.blob(digests[0]).body == data


def test_a_client_that_leaves_stops_the_transfer_and_keeps_what_came(pulling):
    digests = add_model(pulling.registry, "v1", data := os.urandom(3 * MIB))
    pulling.registry.faults.append(Fault("GET", digests[0], stall_after=2 * MIB))
    body = json.dumps({"model": pulling.model(), "insecure": True}).encode()
    connection, _ = pulling.client.open("POST", "/api/pull", body)
    wait_for(lambda: pulling.registry.sent_bytes == 2 * MIB, 10, "the transfer to be under way")

    connection.close()

    before = pulling.registry.sent_bytes
    lines = pulling.pull()  # the session is free again, so nobody works at it
    assert lines[-1] == {"status": "success"}
    assert pulling.registry.sent_bytes - before <= MIB + len(CONFIG)
    assert pulling.blob(digests[0]).body == data


def test_more_pulls_than_there_is_room_for_are_told_to_come_back(tmp_path):
    with pair(tmp_path, TONNAGE_WORKERS="1", TONNAGE_THREADS="4") as world:
        digests = add_model(world.registry, "v1", os.urandom(2 * MIB))
        world.registry.faults.append(Fault("GET", digests[0], stall_after=MIB))
        body = {"model": world.model(), "insecure": True}
        connection, _ = world.client.open("POST", "/api/pull", json.dumps(body).encode())
        wait_for(lambda: world.registry.sent_bytes == MIB, 10, "the transfer to be under way")

        refused = world.post("pull", body)

        assert refused.status == 503
        assert refused.json["error"].startswith("server busy, please try again.")
        assert int(refused.headers["Retry-After"]) > 0
        connection.close()
        world.registry.silence.set()
        wait_for(lambda: world.post("pull", body).status == 200, 10, "the place to be free")
