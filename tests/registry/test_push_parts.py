"""A push to a real server, part by part, over a line that damages, cuts and holds what goes over it."""

import os
import threading
from contextlib import suppress

import pytest
from sqlalchemy import select

from registry.config import load_config
from registry.remotes import uploads
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import PartDamaged, RemoteError, Unreachable
from registry.remotes.http import Outbound
from registry.remotes.package import LocalBlob
from registry.remotes.push import Push
from registry.remotes.uploads import UploadNotes
from storage.db import Database
from storage.digest import Digest
from storage.models import Upload
from storage.reference import RepositoryName
from tests.exchange import Fault, Said
from tests.fault_proxy import fault_proxy
from tests.faults import CutsRequest, Flips, Holds, Says
from tests.server import running_server
from tests.supervised import eventually

MIB = 1024 * 1024
UPLOADS = "/blobs/uploads/"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("parts") / "data") as running:
        yield running


@pytest.fixture
def line(server, monkeypatch):
    """A proxy before the server; parts are of one MiB."""
    monkeypatch.setattr(uploads, "PART_BYTES", MIB)
    with fault_proxy(server.host) as proxy:
        yield proxy


@pytest.fixture
def blob(tmp_path):
    data = os.urandom(4 * MIB)
    (tmp_path / "weights").write_bytes(data)
    return LocalBlob("application/octet-stream", Digest.of(data), len(data), path=tmp_path / "weights")


class Bar:
    """Progress that nobody sees; `moved` hears where the transfer stands."""

    def __init__(self, moved=lambda position: None):
        self.move = moved

    def say(self, line):
        pass

    def bar(self, label, total):
        return self

    def close(self):
        pass


def remote(server, line):
    auth = Authenticator(Outbound(connect_s=5, read_s=20), token=server.admin_token)
    return RemoteRepository(auth, line.url, RepositoryName("parts/m"), is_pushing=True)


def push(server, line, folder, **options):
    return Push(remote(server, line), UploadNotes(folder / "notes"), Bar(), first_pause_s=0.05, **options)


def is_part(start):
    return lambda heard: heard.method == "PATCH" and heard.start == start


def sent(line):
    return line.traffic("PATCH", UPLOADS).up


@pytest.mark.parametrize("at", [0, MIB + 5, 4 * MIB - 1], ids=["first", "inner", "last"])
def test_a_flipped_bit_costs_one_part(server, line, blob, tmp_path, at):
    line.when(is_part(at // MIB * MIB), Flips(at))

    push(server, line, tmp_path).push_blob(blob)

    assert remote(server, line).blob_size(blob.digest) == blob.size
    assert sent(line) == 5 * MIB


def test_a_part_that_is_cut_and_damaged_comes_again_from_its_beginning(server, line, blob, tmp_path):
    class Both(CutsRequest):
        def up(self, pieces, start):
            return super().up(Flips(MIB + 5).up(pieces, start), start)

    line.when(is_part(MIB), Both(MIB // 2))

    push(server, line, tmp_path).push_blob(blob)

    assert remote(server, line).blob_size(blob.digest) == blob.size
    assert sent(line) <= 4 * MIB + MIB // 2 + 64 * 1024


def test_a_part_that_never_arrives_whole_ends_the_push_and_nothing_of_it_is_gone_on_with(server, line, blob, tmp_path):
    for _ in range(3):
        line.when(is_part(MIB), Flips(MIB + 5))

    with pytest.raises(PartDamaged, match="3 times in a row"):
        push(server, line, tmp_path).push_blob(blob)

    assert sent(line) == 4 * MIB
    assert not list((tmp_path / "notes").iterdir())
    push(server, line, tmp_path).push_blob(blob)
    assert remote(server, line).blob_size(blob.digest) == blob.size


def test_a_session_with_a_wrong_beginning_is_left_before_anything_is_added(server, line, blob, tmp_path):
    where = remote(server, line)
    session = uploads.start_upload(where, blob.digest)
    uploads.send_part(where, session, MIB, lambda start, length: iter([bytes(length)]))
    UploadNotes(tmp_path / "notes").save(where, blob.digest, session.url)

    push(server, line, tmp_path).push_blob(blob)

    assert where.blob_size(blob.digest) == blob.size
    assert sent(line) == 5 * MIB


def test_a_server_that_starts_again_in_mid_push_is_waited_for(server, line, blob, tmp_path):
    """Longer than for one that has never answered; it comes back at the last attempt but one."""
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 4:
            line.listen()

    def leave(position):
        if position >= 2 * MIB and not pauses:
            line.close()

    pushing = Push(remote(server, line), UploadNotes(tmp_path / "notes"), Bar(leave), first_pause_s=0.05, sleep=sleep)
    pushing.push_blob(blob)

    assert len(pauses) >= 4
    assert remote(server, line).blob_size(blob.digest) == blob.size


class Keeps(Fault):
    """Of each part, says the registry, one byte was kept."""

    def said(self, said: Said) -> Said:
        start = int(said.header("X-Upload-Offset")) - MIB
        return said.having("X-Upload-Offset", str(start + 1)).having("Range", f"0-{start}")


def test_a_registry_that_keeps_hardly_anything_is_not_sent_parts_without_end(server, line, blob, tmp_path):
    line.when(lambda heard: heard.method == "PATCH", Keeps(), times=1000)

    with suppress(RemoteError):
        push(server, line, tmp_path, sleep=lambda seconds: None).push_blob(blob)

    assert sent(line) <= 40 * MIB


def test_a_noted_session_that_is_refused_for_good_is_left(server, line, blob, tmp_path):
    where = remote(server, line)
    session = uploads.start_upload(where, blob.digest)
    uploads.send_part(where, session, MIB, blob.part)
    UploadNotes(tmp_path / "notes").save(where, blob.digest, session.url)
    line.when(lambda heard: heard.method == "PATCH" and session.url.endswith(heard.target), Says(400), times=9)

    push(server, line, tmp_path).push_blob(blob)

    assert where.blob_size(blob.digest) == blob.size


def test_a_server_that_never_answered_is_not_waited_for(server, line, blob, tmp_path):
    line.close()
    pauses = []

    with pytest.raises(Unreachable):
        push(server, line, tmp_path, sleep=pauses.append).push_blob(blob)

    assert len(pauses) == 2


@pytest.fixture
def is_claimed(server):
    """Whether some request writes to an upload now: a process that has served nothing yet takes a while to begin."""
    database = Database(load_config(environ={"TONNAGE_DATA": str(server.data), **server.environ}).database_url)

    def look():
        with database.connect() as connection:
            return connection.execute(select(Upload.id).where(Upload.writer.is_not(None))).first() is not None

    yield look
    database.close()


class Counts(Fault):
    """How many answers say that the bytes were kept."""

    kept = 0

    def said(self, said: Said) -> Said:
        self.kept += said.status == 202
        return said


def test_two_who_push_the_same_blob_by_one_note_both_succeed(server, line, blob, tmp_path, is_claimed):
    """The second meets the session while the first writes to it; a refusal costs either of them one part at most."""
    held = line.when(is_part(MIB), Holds(MIB // 2, for_good=False)).fault
    taken = line.when(lambda heard: heard.method == "PATCH", Counts(), times=100).fault
    first = threading.Thread(target=push(server, line, tmp_path).push_blob, args=(blob,))
    first.start()
    assert held.is_held.wait(20)
    assert eventually(is_claimed, within_s=20)
    refusals = []

    def refused(seconds):
        refusals.append(seconds)
        held.go.set()

    push(server, line, tmp_path, sleep=refused).push_blob(blob)
    first.join(60)

    assert refusals
    assert not first.is_alive()
    assert remote(server, line).blob_size(blob.digest) == blob.size
    refused = line.traffic("PATCH", UPLOADS).requests - 1 - taken.kept
    assert sent(line) <= blob.size + refused * MIB
    assert line.traffic("POST", UPLOADS).requests == 1
