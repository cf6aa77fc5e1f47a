"""The client commands against a real server."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import Unauthorized
from registry.remotes.http import Outbound
from registry.remotes.package import LocalBlob
from registry.remotes.push import Push
from registry.remotes.uploads import UploadNotes, resume_upload
from storage.digest import Digest
from storage.reference import RepositoryName
from tests.server import NODES, running_server, wait_for

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("client") / "data") as running:
        running.run("namespace", "create", "alice", "--private")
        yield running


@pytest.fixture
def token_file(server, tmp_path) -> Path:
    path = tmp_path / "token"
    path.write_text(server.admin_token)
    return path


def test_a_key_is_made_enrolled_and_used(server, tiny_gguf, tmp_path):
    first = server.run("push", str(tiny_gguf), "alice/tiny:v1", check=False)
    assert first.returncode == 1
    assert f"tonnage key add {'NAMESPACE' if NODES == 1 else 'alice'}" in first.stderr  # nodes have their key before

    server.run("key", "add", "alice", str(server.data / "keys" / "id_ed25519.pub"))
    server.run("push", str(tiny_gguf), "alice/tiny:v1")

    server.run("pull", "alice/tiny:v1", "-o", str(tmp_path))
    assert (tmp_path / "tiny-v1.gguf").read_bytes() == tiny_gguf.read_bytes()
    assert "alice/tiny:v1" in server.run("list").stdout


def test_a_token_pushes_and_pulls(server, tiny_gguf, tmp_path, token_file):
    server.run("push", str(tiny_gguf), "alice/other:v1", "--token-file", str(token_file))

    server.run("pull", "alice/other:v1", "-o", str(tmp_path), "--token-file", str(token_file))

    assert (tmp_path / "other-v1.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_a_private_model_is_not_for_strangers(server, tmp_path):
    stranger = RemoteRepository(Authenticator(Outbound()), server.url, RepositoryName("alice/tiny"))

    with pytest.raises(Unauthorized):
        stranger.blob_size(Digest.of(b""))


@pytest.mark.skipif(NODES > 1, reason="each node tells of its own models")
def test_a_pushed_model_runs_and_is_listed_as_running(server, tiny_gguf, token_file):
    server.run("push", str(tiny_gguf), "alice/talker:v1", "--token-file", str(token_file))

    for _ in range(8):  # an answer of random weights may end by chance before it is interrupted
        status, said = _interrupted_answer(server)
        assert b"Traceback" not in said
        if status == 130:
            break
        assert status == 0, said
    else:
        pytest.fail("every answer ended before it was interrupted")
    assert "alice/talker:v1" in server.run("ps").stdout


def _interrupted_answer(server) -> tuple[int, bytes]:
    """Exit status and standard error of a `tonnage run` that is interrupted in mid-answer, as a person would do it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "registry", "run", "alice/talker:v1", "Say hello", "--server", server.url],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts with & ignores it
    )
    try:
        assert child.stdout.read(20)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    finally:
        child.kill()
    return child.returncode, said


class _Positions:
    """A progress that remembers where the transfer stood."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def say(self, line: str) -> None:
        pass

    def bar(self, label: str, total: int) -> "_Positions":
        return self

    def move(self, position: int) -> None:
        self.seen.append(position)

    def close(self) -> None:
        pass


def _killed_push(server, folder) -> tuple[LocalBlob, RemoteRepository]:
    """What a client left that was killed 16 MiB into a part of 24."""
    data = os.urandom(24 * MIB)
    (folder / "weights").write_bytes(data)
    blob = LocalBlob("x", Digest.of(data), len(data), path=folder / "weights")
    arguments = [server.url, server.admin_token, str(folder), str(blob.digest), str(len(data))]
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], cwd=ROOT)
    try:
        wait_for((folder / "stuck").exists, 30, "the push to be in mid-part")
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(10)
    auth = Authenticator(Outbound(), token=server.admin_token)
    return blob, RemoteRepository(auth, server.url, RepositoryName("alice/big"), is_pushing=True)


def test_a_killed_push_goes_on_at_the_servers_offset(server, tmp_path):
    blob, remote = _killed_push(server, tmp_path)
    notes, positions = UploadNotes(tmp_path / "notes"), _Positions()
    url = notes.load(remote, blob.digest)
    wait_for(lambda: resume_upload(remote, url).offset >= 8 * MIB, 20, "the server to notice the end of the writer")

    Push(remote, notes, positions, first_pause_s=0.1).push_blob(blob)

    assert remote.blob_size(blob.digest) == blob.size
    assert positions.seen[0] >= 8 * MIB


def test_a_push_right_after_a_kill_ends_with_the_right_bytes(server, tmp_path):
    """The server may not have noticed yet, and still hold the session for the dead writer."""
    blob, remote = _killed_push(server, tmp_path)

    Push(remote, UploadNotes(tmp_path / "notes"), _Positions(), first_pause_s=0.5).push_blob(blob)

    with remote.open_blob(blob.digest, blob.size, start=20 * MIB) as body:
        assert b"".join(body) == blob.path.read_bytes()[20 * MIB :]


# Sends 16 MiB of the one part, says so, and goes silent with the connection open.
_CHILD = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from registry.remotes.credentials import Authenticator
    from registry.remotes.endpoint import RemoteRepository
    from registry.remotes.http import Outbound
    from registry.remotes.package import LocalBlob
    from registry.remotes.progress import LineProgress
    from registry.remotes.push import Push
    from registry.remotes.uploads import UploadNotes
    from storage.digest import Digest
    from storage.reference import RepositoryName

    url, token, folder, digest, size = sys.argv[1:]
    folder, digest, size = Path(folder), Digest.parse(digest), int(size)

    class Stuck(LocalBlob):
        def part(self, start, length):
            yield from LocalBlob.part(self, start, 16 * 1024 * 1024)
            (folder / "stuck").touch()
            threading.Event().wait(60)

    remote = RemoteRepository(Authenticator(Outbound(), token=token), url, RepositoryName("alice/big"), is_pushing=True)
    push = Push(remote, UploadNotes(folder / "notes"), LineProgress(sys.stderr))
    push.push_blob(Stuck("x", digest, size, path=folder / "weights"))
    """
)
