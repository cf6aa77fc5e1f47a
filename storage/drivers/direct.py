"""What a driver may offer besides: clients that send parts of staged bytes to where these are kept, past us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from storage.drivers.protocol import Driver

LEAST_PART: Final = 5 * 2**20  # of the S3 protocol, for every part but the last
MOST_PART: Final = 5 * 2**30


@dataclass(frozen=True, slots=True)
class PartAddress:
    """Where a part may be PUT, with which headers. It is a right: never to be written to a log."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that is here.

    etag: what the store calls these very bytes; it proves nothing of them. sha256: which the store itself found them to
    have, where it was told to look.
    """

    number: int
    size: int
    etag: str
    sha256: bytes | None = None


class DirectParts(Protocol):
    """Uploads in parts that whoever has the address of a part may send; each ends by `close` or by `Driver.discard`.

    An address is good for its own part, for as long as the upload is open. So nothing that is read before `close` is
    what it will be, and nothing changes after it. Any call raises StorageUnavailable.
    """

    def begin(self, handle: str, *, is_summed: bool) -> tuple[str, str] | None:
        """Open an upload to the key of `handle`: the handle from now on, and the upload's id.

        None where bytes have been staged in another way. is_summed: each part's address will be for one sha256.
        """

    def address(
        self, key: str, upload: str, number: int, *, size: int, expires_s: int, sha256: bytes | None = None
    ) -> PartAddress:
        """Where `size` bytes, of this sum where one is given, may be PUT as this part for so long."""

    def sent(self, key: str, upload: str) -> list[Sent]:
        """The parts that are here, by number. Raises KeyUnknown where the upload is not open."""

    def close(self, key: str, upload: str, parts: Sequence[Sent]) -> None:
        """Make these parts the bytes at `key`. Raises KeyUnknown where the upload is not open."""

    def read(self, key: str, start: int, size: int) -> bytes:
        """`size` bytes from `start` on, in one request. Raises KeyUnknown."""


@runtime_checkable
class TakesDirect(Protocol):
    """A driver with a store that clients can reach."""

    @property
    def direct(self) -> DirectParts: ...


def direct_parts(driver: Driver) -> DirectParts | None:
    return driver.direct if isinstance(driver, TakesDirect) else None
