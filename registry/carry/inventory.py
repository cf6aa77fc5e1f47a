"""What the other side has already, so that it need not be carried there again: a list of digests, or an archive."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from registry.carry.errors import CarryError
from registry.carry.headers import Members
from registry.carry.layout import parse_blob_name
from storage.db import Database
from storage.digest import Digest
from storage.durable import sync_folder
from storage.errors import DigestInvalid
from storage.inventory import held_digests

TITLE: Final = "# tonnage inventory: digests of blobs"
_MAX_LINE: Final = 200
_MAX_LINES: Final = 10_000_000


def inventory_lines(database: Database) -> Iterator[str]:
    """The inventory of a store: what it is, then a digest a line, sorted."""
    yield TITLE
    yield from map(str, held_digests(database))


def write_inventory(path: Path, lines: Iterable[str]) -> None:
    """Put the lines at `path`; what is there goes only once they are all durable. A pipe gets them as they come.

    Raises CarryError, and what `lines` raises.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in lines)
        else:
            _replace(Path(os.path.realpath(path)), lines)  # a link stays one
    except OSError as error:
        raise CarryError(f"cannot write {path}: {error.strerror}") from error


def _replace(target: Path, lines: Iterable[str]) -> None:
    staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            with suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(handle)
        staged.replace(target)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise
    sync_folder(target.parent)


def digests_in(path: Path) -> Iterator[Digest]:
    """What an inventory lists, or an archive holds, without ever being in memory as a whole. Raises CarryError."""
    try:
        with path.open("rb", buffering=0) as file:
            is_list = file.read(len(TITLE)) == TITLE.encode()
            file.seek(0)
            yield from _of_list(path) if is_list else _of_archive(file, path)
    except OSError as error:
        raise CarryError(f"cannot read {path}: {error.strerror}") from error


def _of_list(path: Path) -> Iterator[Digest]:
    with path.open("rb") as file:
        file.readline(_MAX_LINE)
        for number in range(2, _MAX_LINES):
            line = file.readline(_MAX_LINE)
            if not line:
                return
            try:
                yield Digest.parse(line.decode("ascii", "replace").strip())
            except DigestInvalid:
                raise CarryError(
                    f"{path}: line {number} is no digest; make it again with `tonnage inventory`"
                ) from None
    raise CarryError(f"{path} has more than {_MAX_LINES} lines")


def _of_archive(file: BinaryIO, path: Path) -> Iterator[Digest]:
    try:
        found = (parse_blob_name(member.name) for member in Members(file))
        yield from (digest for digest in found if digest is not None)
    except CarryError as error:
        raise CarryError(f"{path} is no inventory, and as an archive: {error}") from error
