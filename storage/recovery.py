"""Bytes that a writer had staged when it was killed, and that no row tells of yet."""

from __future__ import annotations

from contextlib import closing
from io import UnsupportedOperation
from typing import Final

from storage.claims import Claim
from storage.digest import Hasher
from storage.drivers.protocol import Driver
from storage.errors import KeyUnknown, StagedBusy

_READ_BYTES: Final = 1024 * 1024


def recover(claim: Claim, driver: Driver) -> None:
    """Hash what is staged beyond the row's offset, and let the row tell of it.

    Whatever it is, it is no worse than what a body that breaks off leaves: the closing digest judges it. Nothing
    happens where the writer still has the bytes open, or left none.
    """
    handle, start = claim.row.handle, claim.row.offset
    try:
        with closing(driver.read_staged(handle)) as staged:
            end = staged.seek(0, 2)
            if end <= start:
                return
            with driver.append(handle, at=end, fence=claim.keep) as writer:  # while we read, nobody writes
                hasher = Hasher.resume(claim.row.states)
                staged.seek(start)
                while start < end and (block := staged.read(min(_READ_BYTES, end - start))):
                    claim.keep()
                    hasher.update(block)
                    start += len(block)
                writer.sync()
    except (KeyUnknown, StagedBusy, UnsupportedOperation):  # the last: published already, by a driver without files
        return
    _tell(claim, start, hasher.states())


def _tell(claim: Claim, offset: int, states: dict[str, str]) -> None:
    row = claim.row
    if row.chunk_start is None or row.chunk_end is not None:  # the one under way began after it
        row.chunk_start, row.chunk_states = row.offset, row.states
    row.offset, row.states, row.chunk_end = offset, states, None
    claim.save(offset=offset, states=states, chunk_start=row.chunk_start, chunk_states=row.chunk_states, chunk_end=None)
