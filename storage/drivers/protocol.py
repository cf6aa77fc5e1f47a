"""What holds for every driver; `tests/storage/test_drivers.py` holds each of them to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from storage import layout
from storage.errors import KeyUnknown, StagedBusy

HOLD_WAIT_S: Final = 1.0  # a writer that has just finished lets go within this
_POLL_S: Final = 0.005


class Fence(Protocol):
    """Raises where the caller of the driver has lost its right to write."""

    def __call__(self, handle: str | None = None, /) -> None:
        """handle: what names the staged bytes from now on; whoever comes next is given it, once this has returned."""


def no_fence(handle: str | None = None, /) -> None:
    """Where nobody else can be at work."""


class StagedWriter(Protocol):
    """The growing end of staged bytes."""

    @property
    def handle(self) -> str:
        """What names the staged bytes once this writer writes no more. To be kept instead of the one it was given."""

    def write(self, data: bytes) -> None:
        """Add all of `data`. Raises StorageFull; what `sync` made durable is safe then."""

    def mark(self) -> int:
        """How much is written, for a `sync` in another thread. Call between two writes; every mark is to be synced."""

    def sync(self, mark: int | None = None) -> None:
        """Return when everything written so far survives a power cut. Once refused, it is refused for good.

        mark: everything before that mark, which a later `append` may then begin at, whatever is written meanwhile.
        """


class Driver(Protocol):
    """A flat key → bytes store. It knows keys; not digests, repositories or HTTP.

    Bytes that arrive over many requests are staged: `stage` fixes the final key and gives a handle (JSON-ready text,
    kept in a row, good in any process), `append` grows them, `publish` makes them readable at the key without a copy.
    Any call raises StorageUnavailable when the backend does not answer.
    """

    def write(self, key: str, source: BinaryIO) -> int:
        """Store all of `source` at `key`, durable, whole or not at all. Returns the size in bytes."""

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        """A reader that begins `start` bytes in. Raises KeyUnknown."""

    def stat(self, key: str) -> int:
        """The size in bytes. Raises KeyUnknown."""

    def delete(self, key: str) -> None:
        """Forget `key`; nothing happens if it is not there."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under `prefix`, in byte order whatever the backend: pagination relies on it."""

    def changed_at(self, key: str) -> float | None:
        """When the bytes at `key` changed last, in seconds since 1970; None where nothing tells. Raises KeyUnknown."""

    def download_url(self, key: str, *, expires_s: int) -> str | None:
        """Where a client may fetch `key` itself; None means "stream it through us"."""

    def local_path(self, key: str) -> Path | None:
        """The file that holds exactly these bytes, if there is one to map. Raises KeyUnknown."""

    def stage(self, key: str) -> str:
        """Begin bytes that will be published at `key`, none as yet; the handle. Costs no more than the name."""

    def append(self, handle: str, *, at: int, fence: Fence = no_fence) -> AbstractContextManager[StagedWriter]:
        """Write from offset `at`; what lies beyond it is forgotten first. Raises KeyUnknown if less was kept.

        Until the block ends the bytes are this writer's alone, of all processes: whoever comes meanwhile waits a
        little and gets StagedBusy. `fence` is called once they are ours and before any of them changes; if it raises,
        none does. So a writer that stood still, for however long, finds out before it does harm. It may be told a new
        handle, here and while writing. Also StagedBusy: where a publishing that did not end may yet do so.
        """

    def staged_path(self, handle: str) -> Path | None:
        """The file that the staged bytes are to be in, for who writes it as a whole; None where there are no files."""

    def read_staged(self, handle: str, *, fence: Fence = no_fence) -> BinaryIO:
        """All staged bytes, published or not. Raises KeyUnknown.

        Where they can be read only once they are published, that is done, if there is a `fence`; see `publish`.
        """

    def publish(self, handle: str, *, size: int, fence: Fence = no_fence) -> None:
        """Make the first `size` staged bytes durable and readable at their key, atomically; again is harmless.

        Raises KeyUnknown if less was kept, StagedBusy; `fence` as for `append`. Until a row names the key, `append`
        takes the bytes back, or says StagedBusy, and `restage` does.
        """

    def restage(self, handle: str, key: str, *, size: int, keep: Fence) -> str:
        """Copy the first `size` staged bytes to a new handle, durable, to be published at `key`; the handle.

        The way on where a writer that stands still has them open: it can spoil only the old ones. `keep` is called
        now and then while copying. Raises KeyUnknown if less was kept.
        """

    def sweep_staged(self, is_known: Callable[[Collection[str]], Collection[str]], *, older_than_s: float) -> int:
        """Forget staged bytes that nothing has changed for so long and whose key is not known; how many objects.

        is_known: of some keys, those that a session's row names. What was published stays.
        """

    def discard(self, handle: str) -> None:
        """Forget the staged bytes, also published ones. Only for a key that no row names."""


def check_key(key: str) -> str:
    """`key` itself, if `storage.layout` could have spelt it. Raises KeyUnknown: nothing can be stored elsewhere."""
    if not layout.is_key(key):
        raise KeyUnknown("not a key", key=key[:200])
    return key


def hold_soon(attempt: Callable[[], bool], handle: str) -> None:
    """Try until `attempt` succeeds, for as long as a writer needs that is done. Raises StagedBusy."""
    deadline = time.monotonic() + HOLD_WAIT_S
    while not attempt():
        if time.monotonic() > deadline:
            raise StagedBusy("another writer has the staged bytes open", handle=handle)
        time.sleep(_POLL_S)
