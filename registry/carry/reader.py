"""An archive of models, looked through as a whole before anything of it is believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from auth.keys import PublicKey
from registry.carry.errors import ArchiveInvalid, BlobDamaged, CarryError
from registry.carry.headers import Member, Members, read_exactly
from registry.carry.layout import (
    INDEX_NAME,
    LAYOUT_NAME,
    MAX_INDEX,
    MAX_LAYOUT,
    SIGNATURE_NAME,
    Listed,
    check_layout,
    parse_blob_name,
    read_index,
)
from registry.carry.signature import signer_of
from registry.remotes.text import one_line
from storage.digest import Digest

_LIMITS: Final = {LAYOUT_NAME: MAX_LAYOUT, INDEX_NAME: MAX_INDEX, SIGNATURE_NAME: MAX_LAYOUT}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the bytes of a blob stand."""

    offset: int
    size: int


class Archive:
    """An archive whose every entry is where it should be, and whose signature, if it has one, fits its index.

    signer: who signed it, None if nobody did. models: as the index lists them. blobs: manifests among them.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Raises ArchiveInvalid, OSError."""
        self._file = file
        self._fixed: dict[str, Member] = {}
        self.blobs: dict[Digest, Stored] = {}
        for member in Members(file):
            self._admit(member)
        check_layout(self._read_fixed(LAYOUT_NAME))
        index = self._read_fixed(INDEX_NAME)
        self.signer: PublicKey | None = None
        if SIGNATURE_NAME in self._fixed:
            self.signer = signer_of(self._read_fixed(SIGNATURE_NAME), index)
        self.models: list[Listed] = read_index(index)

    def _admit(self, member: Member) -> None:
        """A place for the entry. Raises ArchiveInvalid for one that no image layout has, and for a second one."""
        limit = _LIMITS.get(member.name)
        if limit is not None:
            if member.name in self._fixed or member.size > limit:
                problem = "stands there twice" if member.name in self._fixed else f"has more than {limit} bytes"
                raise ArchiveInvalid(f"{member.name} {problem}")
            self._fixed[member.name] = member
            return
        digest = parse_blob_name(member.name)
        told = one_line(ascii(member.name), 160)
        if digest is None:
            raise ArchiveInvalid(f"entry {told} has no place in an image layout")
        if digest in self.blobs:
            raise ArchiveInvalid(f"entry {told} stands there twice")
        self.blobs[digest] = Stored(member.offset, member.size)

    def _read_fixed(self, name: str) -> bytes:
        member = self._fixed.get(name)
        if member is None:
            raise ArchiveInvalid(f"no image layout: there is no {name} in it")
        return self._read(member.offset, member.size)

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob, whole and checked. Raises BlobDamaged, ArchiveInvalid; KeyError if it is not here."""
        stored = self.blobs[digest]
        if stored.size > limit:
            raise ArchiveInvalid(f"{digest} has more than {limit} bytes")
        data = self._read(stored.offset, stored.size)
        if Digest.of(data, digest.algorithm) != digest:
            raise BlobDamaged(f"the archive holds other bytes than {digest}")
        return data

    def read_at(self, stored: Stored, start: int, size: int) -> bytes:
        """Up to `size` bytes of a blob, from `start` on; b"" at its end. Raises CarryError."""
        return self._read(stored.offset + start, max(0, min(size, stored.size - start)))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            self._file.seek(offset)
            data = read_exactly(self._file, size)
        except OSError as error:
            raise CarryError(f"cannot read the archive: {error.strerror}") from error
        if len(data) < size:  # its headers said otherwise a moment ago
            raise ArchiveInvalid("the file became shorter while it was read")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive in `path`. Raises CarryError, before anything else happens, if it is none."""
    with ExitStack() as held:
        try:
            file = held.enter_context(path.open("rb", buffering=0))
            if not file.seekable():
                raise CarryError(f"{path} is a pipe; an archive is read from a file")
            archive = Archive(file)
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"{path}: {error}") from error
        except OSError as error:
            raise CarryError(f"cannot read {path}: {error.strerror}") from error
        yield archive
