"""The commands that look after an installation, as an operator types them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from registry.remotes.identity import server_identity
from tests.client import Client
from tests.server import ROOT, Server


class Operator:
    """Types commands on one data folder; no server runs."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def type(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "registry", *arguments],
            env={**os.environ, "TONNAGE_DATA": str(self.data)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def does(self, *arguments: str) -> str:
        done = self.type(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "data")


def test_namespaces_are_private_until_told_otherwise(operator: Operator) -> None:
    operator.does("namespace", "create", "acme")
    operator.does("namespace", "create", "open", "--public")
    assert operator.does("namespace", "list").splitlines() == ["acme\tprivate", "open\tpublic"]

    operator.does("namespace", "set", "acme", "--public")

    assert operator.does("namespace", "list").splitlines() == ["acme\tpublic", "open\tpublic"]


def test_the_servers_own_key_is_made_once_and_shown(operator: Operator) -> None:
    line = operator.does("key", "show")

    assert operator.does("key", "show") == line
    path = operator.data / "keys" / "id_ed25519"
    assert PrivateKey.load(path).public.line == line.strip()
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_need_the_servers_key_at_once_all_get_the_same(tmp_path: Path) -> None:
    keys: list[str] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        keys.append(server_identity(tmp_path / "keys").public.line)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_key_is_added_listed_and_removed(operator: Operator, tmp_path: Path) -> None:
    key = PrivateKey.generate()
    key.save(tmp_path / "id_ed25519")
    operator.does("namespace", "create", "acme")

    operator.does("key", "add", "acme", str(tmp_path / "id_ed25519.pub"), "--role", "push")

    print_ = key.public.fingerprint
    assert operator.does("key", "list") == f"{print_}\tacme\tpush\n"
    operator.does("key", "remove", print_)
    assert operator.does("key", "list") == ""
    assert operator.type("key", "remove", print_).returncode == 1


def test_a_tokens_secret_is_on_the_last_line_and_never_shown_again(operator: Operator) -> None:
    secret = operator.does("token", "create", "ci", "--scope", "pull", "--expires", "90d").splitlines()[-1]

    assert secret.startswith("tng_")
    listed = operator.does("token", "list")
    assert "ci\tpull\tevery namespace\tactive" in listed
    assert secret not in listed
    operator.does("token", "revoke", "ci")
    assert "revoked" in operator.does("token", "list")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["namespace", "create", "Upper"], 1, "namespace"),
        (["key", "add", "nowhere", __file__], 1, "key"),
        (["key", "add", "nowhere", "/does/not/exist"], 1, "cannot read"),
        (["token", "create", "x"], 2, "--scope"),
        (["token", "create", "x", "--scope", "all"], 2, "--scope"),
        (["token", "create", "x", "--scope", "pull", "--expires", "soon"], 2, "90d"),
        (["token", "revoke", "nobody"], 1, "nobody"),
        (["serve", "--access", "perhaps"], 1, "TONNAGE_ACCESS"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    operator: Operator, arguments: list[str], status: int, word: str
) -> None:
    done = operator.type(*arguments)

    assert done.returncode == status
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_namespace_is_not_created_twice(operator: Operator) -> None:
    operator.does("namespace", "create", "acme")

    again = operator.type("namespace", "create", "acme")

    assert (again.returncode, again.stderr) == (1, "tonnage: the namespace is already there\n")


def test_the_doctor_says_what_is_well(operator: Operator) -> None:
    told = operator.does("doctor")

    assert "data folder" in told
    assert "FIX" not in told


def test_migrating_twice_is_once(operator: Operator) -> None:
    assert operator.does("migrate") == operator.does("migrate") == "the schema is up to date\n"


def test_a_revoked_token_is_worthless_at_once(shared_server: Server) -> None:
    secret = shared_server.run("token", "create", "short", "--scope", "pull").stdout.splitlines()[-1]
    holder = Client(shared_server.host, secret)
    assert holder.request("GET", "/v2/").status == 200

    shared_server.run("token", "revoke", "short")

    assert holder.request("GET", "/v2/").status == 401


def test_a_signing_key_is_listed_and_withdrawn(operator: Operator) -> None:
    operator.does("token", "rotate-key")
    said = [line.split("\t") for line in operator.does("token", "signing-keys").splitlines()]

    assert [whose for _, whose, _ in said] == ["this node's"] * 2
    for key, *_ in said:
        assert operator.does("token", "withdraw-key", key) == f"withdrew {key}\n"

    assert operator.does("token", "signing-keys") == ""
    again = operator.type("token", "withdraw-key", "-" * 16)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "tonnage token signing-keys" in again.stderr
    assert operator.does("audit").count("signing-key.withdraw") == 2
