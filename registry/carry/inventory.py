"""What the other side has already, so that it need not be carried there again: a list of digests, or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from registry.carry.errors import CarryError
from registry.carry.headers import Members
from registry.carry.layout import parse_blob_name
from storage.db import Database
from storage.digest import Digest
from storage.errors import DigestInvalid
from storage.inventory import held_digests

TITLE: Final = "# tonnage inventory: digests of blobs"
_MAX_LINE: Final = 200
_MAX_LINES: Final = 10_000_000


def inventory_lines(database: Database) -> Iterator[str]:
    """The inventory of a store: what it is, then a digest a line, sorted."""
    yield TITLE
    yield from map(str, held_digests(database))


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
