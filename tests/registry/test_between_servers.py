"""Models that go from one server of ours to another and back, under the servers' own keys."""

import http.client
import os
import threading
from contextlib import suppress

import pytest

from tests.client import Client
from tests.fault_proxy import fault_proxy
from tests.faults import Holds
from tests.server import is_alive, running_server, start_server, wait_for

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """(the one far away, with a private namespace; the one nearby, which is let in there)"""
    folder = tmp_path_factory.mktemp("between")
    with running_server(folder / "far") as far:
        far.run("namespace", "create", "alice")
        with running_server(folder / "near", {"TONNAGE_UPSTREAM": far.url}) as near:
            (folder / "near.pub").write_text(near.run("key", "show").stdout)
            far.run("key", "add", "alice", str(folder / "near.pub"), "--role", "push")
            yield far, near


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(2**20))
    return path


def transfer(server, verb, model, **body):
    return list(Client(server.host).lines(f"/api/{verb}", {"name": model, **body}))


def test_a_private_model_goes_there_and_comes_back_byte_for_byte(servers, weights):
    far, near = servers
    nearby, faraway = (Client(each.host, each.admin_token) for each in (near, far))
    pushed = nearby.push_model("alice/model", "v1", weights).headers["Docker-Content-Digest"]

    assert transfer(near, "push", "alice/model:v1")[-1] == {"status": "success"}

    there = faraway.request("GET", "/v2/alice/model/manifests/v1")
    assert there.headers["Docker-Content-Digest"] == pushed
    assert Client(far.host).request("GET", "/v2/alice/model/manifests/v1").status == 401
    near.run("rm", "alice/model:v1", "--now")
    assert transfer(near, "pull", "alice/model:v1")[-1] == {"status": "success"}
    here = nearby.request("GET", "/v2/alice/model/manifests/v1")
    assert (here.body, here.headers["Docker-Content-Digest"]) == (there.body, pushed)


def test_a_model_named_with_its_host_is_kept_apart(servers, weights):
    far, near = servers
    Client(far.host, far.admin_token).push_model("alice/apart", "v1", weights)

    lines = transfer(near, "pull", f"{far.host}/alice/apart:v1", insecure=True)

    assert lines[-1] == {"status": "success"}
    nearby = Client(near.host, near.admin_token)
    assert nearby.request("GET", "/v2/alice/apart/manifests/v1").status == 404
    assert nearby.request("GET", f"/v2/{far.host.replace(':', '__')}/alice/apart/manifests/v1").status == 200


def test_a_server_that_was_not_let_in_is_told_by_which_key(servers, weights):
    far, near = servers
    Client(far.host, far.admin_token).push_model("bob/model", "v1", weights)

    error = transfer(near, "pull", "bob/model:v1")[-1]["error"]

    assert error.startswith("pull model manifest: ")
    assert "SHA256:" in error


def test_only_a_named_server_is_spoken_to(servers, weights):
    far, near = servers
    Client(near.host, near.admin_token).push_model("alice/mine", "v1", weights)

    lines = transfer(far, "pull", f"{near.host}/alice/mine:v1", insecure=True)

    assert "TONNAGE_ALLOWED_HOSTS" in lines[-1]["error"]


def test_a_server_killed_in_mid_push_goes_on_where_it_stood(servers, tmp_path):
    """Another process takes up the session that the dead one noted."""
    far, _ = servers
    (tmp_path / "weights").write_bytes(os.urandom(24 * MIB))
    (tmp_path / "token").write_text(far.admin_token)
    with fault_proxy(far.host) as line:
        held = line.when(lambda heard: heard.method == "PATCH", Holds(16 * MIB)).fault
        settings = {"TONNAGE_UPSTREAM": line.url, "TONNAGE_REMOTE_TOKENS": f"{line.url}={tmp_path}/token"}
        doomed = start_server(tmp_path / "data", settings)
        try:
            Client(doomed.host, doomed.admin_token).push_model("alice/killed", "v1", tmp_path / "weights")
            pushing = threading.Thread(target=_ignoring_its_end, args=(doomed,), daemon=True)
            pushing.start()
            assert held.is_held.wait(60)
        finally:
            below = doomed.descendants()
            doomed.kill()
        wait_for(lambda: not any(is_alive(each) for each in below), 30, "the server's processes to end")
        line.release()

        with running_server(tmp_path / "data", settings) as again:
            assert transfer(again, "push", "alice/killed:v1")[-1] == {"status": "success"}

        assert line.traffic("PATCH", "/v2/alice/killed/").up < 24 * MIB + 2 * MIB
    assert Client(far.host, far.admin_token).request("GET", "/v2/alice/killed/manifests/v1").status == 200


def _ignoring_its_end(server):
    with suppress(OSError, http.client.HTTPException):
        transfer(server, "push", "alice/killed:v1")
