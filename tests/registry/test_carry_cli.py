"""export, import and inventory as an operator types them, ended by kill -9, and beside other tools."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from auth.audit import AuditTrail, What
from registry.cli import carry, main
from registry.mirror.mirrors import Mirrors, parse_mirror
from storage.db import Database
from storage.digest import Digest
from storage.errors import StorageUnavailable
from storage.manifest import Manifest
from storage.models import Upload as UploadRow
from storage.reference import ModelName, RepositoryName, Tag
from storage.store import Store
from tests.backends import OF_FILES
from tests.client import Client
from tests.databases import url_of
from tests.registry.carried import Stores, manifest_of
from tests.registry.test_skopeo import NO_SKOPEO, image
from tests.server import ROOT, Server, wait_for
from tests.stored_models import push_model

MIB = 1024 * 1024
LARGE = 300 * MIB
MEASURED = """
import atexit, re, sys
from pathlib import Path
peak = lambda: print(re.search(r"VmHWM:.*", Path("/proc/self/status").read_text())[0], file=sys.stderr)
atexit.register(peak)
from registry.cli import main
main()
"""
PEAK_MIB = 200  # a process that holds the blob would need 300 more than the 100 that it is made of


class Operator:
    """Types commands on data folders, in this process."""

    def __init__(
        self, stores: Stores, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.stores, self.folder, self._monkeypatch, self._capsys = stores, folder, monkeypatch, capsys

    def store(self, name: str) -> Store:
        return self.stores.new(self.folder / name)

    def types(self, data: str, *arguments: str) -> tuple[int, str]:
        """The exit status, and all that was printed."""
        self._monkeypatch.setenv("TONNAGE_DATA", str(self.folder / data))
        self._monkeypatch.setenv("TONNAGE_DATABASE_URL", url_of(self.folder / data))
        self._monkeypatch.setattr(sys, "argv", ["tonnage", *arguments])
        mask = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            os.umask(mask)
        said = self._capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out + said.err

    def does(self, data: str, *arguments: str) -> str:
        status, said = self.types(data, *arguments)
        assert status == 0, said
        return said

    @property
    def tar(self) -> str:
        return str(self.folder / "models.tar")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture
def operator(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(stores, tmp_path, monkeypatch, capsys)


def rows(store: Store, what: What) -> list[tuple[str | None, str | None, str | None]]:
    return [(each.repository, each.reference, each.detail) for each in AuditTrail(store.database).events(what=what)]


def test_models_cross_the_gap_and_leave_traces_on_both_sides(operator: Operator) -> None:
    here, there = operator.store("here"), operator.store("there")
    digest = push_model(here, "acme/llama:v1", None, model=b"GGUF new")
    before = push_model(there, "acme/llama:v1", None, model=b"GGUF old")
    exported = operator.does("here", "export", "acme/*", "-o", operator.tar)
    typed = re.search(r"import --trust (SHA256:\S+)", exported)
    assert typed is not None

    refused, said = operator.types("there", "import", operator.tar)
    imported = operator.does("there", "import", "--trust", typed[1], operator.tar)

    assert refused == 1 and said.count("\n") == 1 and f"--trust {typed[1]}" in said
    assert f"imported acme/llama:v1, which named {before} until now" in imported
    assert manifest_of(there, "acme/llama:v1") == manifest_of(here, "acme/llama:v1")
    assert rows(here, What.EXPORT_MODEL) == [("acme/llama", "v1", "to models.tar")]
    assert rows(there, What.IMPORT_MODEL) == [
        ("acme/llama", "v1", f"{digest} from models.tar, signed by {typed[1]}")
    ]  # fmt: skip
    assert rows(there, What.TAG_MOVE) == [("acme/llama", "v1", f"from {before} to {digest}")]
    assert (operator.folder / "models.tar").stat().st_mode & 0o077 == 0


def test_whose_archive_it_is_can_be_said_by_a_key_file_or_not_at_all(operator: Operator) -> None:
    push_model(operator.store("here"), "acme/llama", None, model=b"GGUF")
    operator.store("there")
    operator.does("here", "export", "acme/llama", "-o", operator.tar)
    key = str(operator.folder / "here" / "keys" / "id_ed25519.pub")

    statuses = [
        operator.types(data, "import", operator.tar, *flags)[0]
        for data, flags in [
            ("here", []), ("there", []), ("there", ["--trust", "SHA256:" + "A" * 43]), ("there", ["--trust", key]),
            ("there", ["--any-signer"]), ("there", ["--trust", operator.tar]), ("there", ["--trust", "nowhere"]),
        ]
    ]  # fmt: skip

    assert statuses == [0, 1, 1, 0, 0, 1, 1]
    assert not (operator.folder / "there" / "keys" / "id_ed25519").exists()  # nothing there has needed one


def test_an_existing_file_is_replaced_only_when_told_to(operator: Operator) -> None:
    push_model(operator.store("here"), "acme/llama", None, model=b"GGUF")
    Path(operator.tar).write_bytes(b"last week's")

    status, said = operator.types("here", "export", "acme/llama", "-o", operator.tar)
    assert (status, "--force" in said) == (1, True)
    assert Path(operator.tar).read_bytes() == b"last week's"

    operator.does("here", "export", "acme/llama", "-o", operator.tar, "--force")
    assert tarfile.is_tarfile(operator.tar)


def test_a_folder_is_never_what_an_archive_replaces(operator: Operator) -> None:
    push_model(operator.store("here"), "acme/llama", None, model=b"GGUF")
    Path(operator.tar).mkdir()

    status, said = operator.types("here", "export", "acme/llama", "-o", operator.tar, "--force")

    assert (status, said) == (1, f"tonnage: {operator.tar} is a folder; name a file as --output\n")
    assert not list(operator.folder.glob("*.partial"))


def test_an_inventory_that_breaks_off_leaves_the_old_one(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.store("here")
    listed = operator.folder / "inventory"
    listed.write_text("last week's")

    def breaks(_: Database) -> Iterator[str]:
        yield "a line"
        raise StorageUnavailable("the database does not answer")

    monkeypatch.setattr(carry, "inventory_lines", breaks)
    assert operator.types("here", "inventory", "-o", str(listed)) == (1, "tonnage: the database does not answer\n")

    assert listed.read_text() == "last week's"
    assert sorted(path.name for path in operator.folder.iterdir()) == ["here", "inventory"]


@pytest.mark.parametrize(("where", "error"), [("/dev/full", "No space left on device"), (".", "Is a directory")])
def test_an_inventory_that_cannot_be_written_is_said_in_a_line(operator: Operator, where: str, error: str) -> None:
    operator.store("here")

    assert operator.types("here", "inventory", "-o", where) == (1, f"tonnage: cannot write {where}: {error}\n")


def test_a_full_disk_behind_standard_output_is_said_in_a_line(operator: Operator) -> None:
    operator.store("here").database.close()
    here = operator.folder / "here"
    command = [sys.executable, "-m", "registry", "inventory", "--data", str(here), "--database-url", url_of(here)]

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, check=False, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )

    assert (done.returncode, done.stderr) == (1, "tonnage: the disk: No space left on device\n")


def test_a_model_that_would_go_below_a_mirror_gets_another_name(operator: Operator) -> None:
    push_model(operator.store("here"), "acme/llama", None, model=b"GGUF")
    there = operator.store("there")
    Mirrors(there.database).add(parse_mirror("acme", "https://registry.example"))
    operator.does("here", "export", "acme/llama", "-o", operator.tar)

    status, said = operator.types("there", "import", operator.tar, "--any-signer")
    operator.does("there", "import", operator.tar, "--any-signer", "--as", "team/llama")

    assert (status, "--as" in said) == (1, True)
    assert there.repositories.catalog()[0] == ["team/llama"]


def test_an_inventory_travels_back_and_makes_the_next_archive_small(operator: Operator) -> None:
    here, there = operator.store("here"), operator.store("there")
    push_model(here, "acme/llama:v1", None, model=bytes(MIB), system="one")
    push_model(here, "acme/llama:v2", None, model=bytes(MIB), system="two")
    push_model(there, "acme/mine", None, model=bytes(MIB))
    listed = str(operator.folder / "inventory")
    operator.does("there", "inventory", "-o", listed)
    assert Path(listed).read_text() == operator.does("there", "inventory")

    operator.does("here", "export", "acme/llama*", "-o", operator.tar, "--since", listed)
    operator.does("there", "import", operator.tar, "--any-signer")

    assert Path(operator.tar).stat().st_size < MIB
    assert manifest_of(there, "acme/llama:v2") == manifest_of(here, "acme/llama:v2")


def test_one_refused_model_makes_the_status_one(operator: Operator) -> None:
    push_model(operator.store("here"), "acme/llama", None, model=b"GGUF", config={"a": 1})
    push_model(operator.store("more"), "acme/llama", None, model=b"GGUF", config={"a": 1}, system="b")
    there = operator.store("there")
    operator.does("more", "export", "acme/llama", "-o", str(operator.folder / "all.tar"))
    operator.does("here", "export", "acme/llama", "-o", operator.tar, "--since", str(operator.folder / "all.tar"))

    status, said = operator.types("there", "import", operator.tar, "--any-signer", "--as", "acme/other:v2")

    assert status == 1
    assert "refused acme/llama:latest: sha256:" in said
    assert there.repositories.catalog()[0] == []


@pytest.mark.parametrize(
    "arguments", [["export", "tiny"], ["export", "-o", "x.tar"], ["import"], ["import", "a", "b"], ["inventory", "x"]]
)
def test_wrong_usage_is_said_in_a_line(operator: Operator, arguments: list[str]) -> None:
    assert operator.types("here", *arguments)[0] == 2


@OF_FILES
def test_a_running_server_serves_what_was_imported_beside_it(
    operator: Operator, shared_server: Server, admin: Client
) -> None:
    digest = push_model(operator.store("here"), "carried/llama:v1", None, model=b"GGUF carried")
    operator.does("here", "export", "carried/llama:v1", "-o", operator.tar)

    operator.does(str(shared_server.data), "import", operator.tar, "--any-signer")

    assert Digest.of(admin.request("GET", "/v2/carried/llama/manifests/v1").body) == digest
    blob = admin.request("GET", f"/v2/carried/llama/blobs/{Digest.of(b'GGUF carried')}")
    assert (blob.status, blob.body) == (200, b"GGUF carried")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store, `here`, that holds a blob of which each MiB begins with its own number."""
    folder = tmp_path_factory.mktemp("large")
    store = Stores(folder / "template").new(folder / "here")
    with (folder / "weights").open("w+b", buffering=0) as weights:
        weights.truncate(LARGE)
        for at in range(0, LARGE, MIB):
            weights.seek(at)
            weights.write(b"GGUF%08d" % at)
        weights.seek(0)
        name = ModelName.parse("acme/large")
        upload = store.uploads.start(name.repository, algorithm="sha256")
        upload.append(weights)
        weights.seek(0)
        digest = Digest("sha256", hashlib.file_digest(weights, "sha256").hexdigest())
    upload.commit(digest)
    (folder / "weights").unlink()
    config = store.blobs.put(name.repository, b"{}")
    raw = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"config":{"mediaType":"a/b","digest":"%b","size":2},"layers":[{"mediaType":"a/b","digest":"%b","size":%d}]}'
    ) % (str(config.digest).encode(), str(digest).encode(), LARGE)
    store.repositories.put_manifest(name.repository, name.tag, raw)
    yield folder
    shutil.rmtree(folder)


def start(data: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own, which tells at its end how much memory it has had."""
    return subprocess.Popen(
        [sys.executable, "-c", MEASURED, *arguments],
        env={**os.environ, "TONNAGE_DATA": str(data), "TONNAGE_DATABASE_URL": url_of(data)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(process: subprocess.Popen[str]) -> str:
    """What it said. Its memory must be what it is without any blob."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    peak = re.search(r"VmHWM:\s+(\d+) kB", said)
    assert peak is not None
    assert int(peak[1]) < PEAK_MIB * 1024, said
    return said


def test_killed_exports_and_imports_go_on_and_hold_no_blob_in_memory(large: Path) -> None:
    archive, partial = large / "a.tar", large / "a.tar.partial"
    export = ("export", "acme/large", "-o", str(archive))
    first = start(large / "here", *export)
    wait_for(lambda: partial.exists() and partial.stat().st_size > 8 * MIB, 60, "some of the archive")
    first.kill()
    first.communicate()
    left = partial.stat().st_size
    assert left > 8 * MIB
    assert not archive.exists()

    said = ends(start(large / "here", *export))
    assert f"{left / MIB:.1f} MiB of it from an earlier run" in said

    there = Stores(large / "other").new(large / "there")
    first = start(large / "there", "import", str(archive), "--any-signer")
    wait_for(lambda: any(offsets(there)), 60, "some of the blob")
    first.kill()
    first.communicate()
    (reached,) = offsets(there)
    assert reached > 0
    assert there.repositories.catalog()[0] == []
    with there.database.write() as session:  # half a minute later
        session.execute(update(UploadRow).values(writer_until=time.time() - 1))

    said = ends(start(large / "there", "import", str(archive), "--any-signer"))

    assert f"behind its first {reached} bytes" in said
    raw = manifest_of(there, "acme/large:latest")
    with there.blobs.open(RepositoryName("acme/large"), Manifest.parse(raw).layers[0].digest, start=LARGE - MIB) as end:
        assert end.read(13) == b"GGUF%08d" % (LARGE - MIB)
    assert offsets(there) == []


def offsets(store: Store) -> list[int]:
    """How far each open upload session is."""
    query = select(UploadRow.offset).where(UploadRow.finished_digest.is_(None))
    with store.database.connect() as connection:
        return list(connection.execute(query).scalars())


@NO_SKOPEO
def test_skopeo_reads_what_we_write_and_writes_what_we_read(operator: Operator, tmp_path: Path) -> None:
    """Of an image as other tools make them: skopeo passes over the media types that ollama gives its models."""
    here, there = operator.store("here"), operator.store("there")
    raw, blobs = image("one file")
    for blob in blobs:
        here.blobs.put(RepositoryName("acme/image"), blob)
    here.repositories.put_manifest(RepositoryName("acme/image"), Tag("v1"), raw)
    push_model(here, "acme/llama", None, model=b"GGUF")
    operator.does("here", "export", "acme/*", "-o", operator.tar)
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(operator.tar) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")

    skopeo(f"oci-archive:{operator.tar}:acme/image:v1", f"dir:{tmp_path}/one")
    skopeo(f"oci:{tmp_path}/unpacked:acme/image:v1", f"oci-archive:{tmp_path}/theirs.tar:acme/theirs:v2")
    operator.does("there", "import", f"{tmp_path}/theirs.tar", "--any-signer")

    assert (tmp_path / "one" / "manifest.json").read_bytes() == raw
    assert manifest_of(there, "acme/theirs:v2") == raw


def skopeo(source: str, target: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", source, target]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
