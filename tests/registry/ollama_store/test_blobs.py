"""One blob: ended, gone on with, exchanged under our hands, brought by two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.ollama_store import blobs as bringing
from registry.ollama_store import sharing
from registry.ollama_store.blobs import Blobs, How
from registry.ollama_store.errors import ModelRefused
from registry.ollama_store.folder import OllamaFolder
from storage import claims
from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.errors import DigestInvalid
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from storage.store import Store
from tests.ollama_folder import OllamaFolderMaker
from tests.ollama_imports import MIB, WEIGHTS, Installation


class Recorder:
    """Progress that notes positions, and ends the import at one of them as Ctrl-C would."""

    def __init__(self, stop_at: int = 2**62) -> None:
        self.positions, self._stop_at = list[int](), stop_at

    def say(self, line: str) -> None:
        pass

    def bar(self, label: str, total: int) -> Recorder:
        return self

    def move(self, position: int) -> None:
        self.positions.append(position)
        if position >= self._stop_at:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def bring(store: Store, ollama: OllamaFolderMaker, data: bytes, progress: Recorder, *, may_link: bool) -> How:
    """One blob into a repository."""
    blob = Descriptor("x", Digest.of(data), len(data))
    with OllamaFolder.opened(ollama.path) as opened:
        blobs = Blobs(store, opened, progress, principal="me", may_link=may_link)
        return blobs.bring(RepositoryName("a/m"), blob)


@pytest.fixture
def all_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "_SHOWN_BYTES", 0)


@pytest.mark.usefixtures("all_shown")
@pytest.mark.parametrize("is_other", [False, True], ids=["as it was", "repaired meanwhile"])
def test_a_copy_that_was_ended_is_gone_on_with(here: Installation, ollama: OllamaFolderMaker, is_other: bool) -> None:
    data = os.urandom(6 * MIB)
    ollama.add_blob(data)
    if is_other:
        ollama.blob(Digest.of(data)).write_bytes(bytes(6 * MIB))
    with pytest.raises(KeyboardInterrupt):
        bring(here.store, ollama, data, Recorder(stop_at=4 * MIB), may_link=False)
    ollama.blob(Digest.of(data)).write_bytes(data)
    again = Recorder()

    assert bring(here.store, ollama, data, again, may_link=False) is How.COPIED

    assert again.positions[0] == 4 * MIB  # the block after the three that were kept
    assert (MIB in again.positions) is is_other
    assert here.file("a/m", Digest.of(data)).read_bytes() == data


@pytest.mark.usefixtures("all_shown")
def test_a_link_that_was_not_hashed_to_its_end_leaves_nothing(here: Installation, ollama: OllamaFolderMaker) -> None:
    data = os.urandom(3 * MIB)
    ollama.add_blob(data)

    with pytest.raises(KeyboardInterrupt):
        bring(here.store, ollama, data, Recorder(stop_at=2 * MIB), may_link=True)

    assert ollama.blob(Digest.of(data)).stat().st_nlink == 1
    assert ollama.blob(Digest.of(data)).read_bytes() == data
    assert here.store.uploads.expire(idle_s=-1) == 0


def test_a_store_without_files_gets_copies(here: Installation, ollama: OllamaFolderMaker) -> None:
    ollama.add_blob(WEIGHTS)
    store = Store(here.store.database, MemoryDriver())

    assert bring(store, ollama, WEIGHTS, Recorder(), may_link=True) is How.COPIED

    with store.blobs.open(RepositoryName("a/m"), Digest.of(WEIGHTS)) as reader:
        assert reader.read() == WEIGHTS


def test_a_file_that_takes_anothers_name_is_not_linked(
    here: Installation, ollama: OllamaFolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, link = ollama.add_blob(WEIGHTS), os.link

    def swapped(source: str, target: Path, **options: object) -> None:
        ollama.blob(digest).rename(ollama.path / "aside")
        ollama.blob(digest).symlink_to("/etc/passwd")
        link(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sharing.os, "link", swapped)

    assert bring(here.store, ollama, WEIGHTS, Recorder(), may_link=True) is How.COPIED

    assert here.file("a/m", Digest.of(WEIGHTS)).read_bytes() == WEIGHTS
    assert (ollama.path / "aside").stat().st_nlink == 1


def test_a_file_that_is_written_to_while_it_is_read_is_not_shared(
    here: Installation, ollama: OllamaFolderMaker
) -> None:
    digest, name = ollama.add_blob(WEIGHTS), RepositoryName("a/m")

    def rewrite(_: int) -> None:
        os.utime(ollama.blob(digest), ns=(0, 0))
        ollama.blob(digest).write_bytes(WEIGHTS)  # the same, this time

    with OllamaFolder.opened(ollama.path) as opened, opened.blob(digest) as file, pytest.raises(DigestInvalid):
        sharing.share(here.store, name, digest, file, principal="me", hashed=rewrite)

    assert not here.store.blobs.holders(digest)


def test_a_blob_that_two_bring_at_once_is_refused_to_one(
    here: Installation, ollama: OllamaFolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "WAIT_S", 0.0)
    digest = ollama.add_blob(WEIGHTS)
    upload = here.store.uploads.start(
        RepositoryName("a/m"), principal="me", algorithm="sha256", opened_with=f"import:{digest}"[:64]
    )

    class Slow:
        def read(self, size: int) -> bytes:
            with pytest.raises(ModelRefused, match="another import"):
                bring(here.store, ollama, WEIGHTS, Recorder(), may_link=False)
            return b""

    upload.append(Slow())  # type: ignore[arg-type]
