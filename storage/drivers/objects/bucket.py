"""What the driver asks of an object store: the few calls of the S3 protocol that every server of it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from storage.drivers.direct import PartAddress, Sent


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing tells of it. `modified_at`: seconds since 1970, by the store's clock."""

    name: str
    size: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """A multipart upload that was neither completed nor aborted."""

    name: str
    upload: str
    begun_at: float


class Body(Protocol):
    """The bytes of one answer, as they come."""

    size: int  # how many were announced

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end, or where the answer was cut. Raises StorageUnavailable."""

    def close(self) -> None:
        """Give the connection up."""


class Bucket(Protocol):
    """Objects by name. Each call raises StorageUnavailable when the store does not answer, StorageFull at a quota."""

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """Store `data`, all of it and seekable, at `name`, whole or not at all."""

    def get(self, name: str, *, start: int = 0, size: int | None = None) -> Body:
        """`size` bytes, or all, from `start` on, which must lie within the object. Raises KeyUnknown."""

    def stat(self, name: str) -> Listed:
        """Raises KeyUnknown."""

    def delete(self, name: str) -> None:
        """Nothing happens if it is not there."""

    def list(self, prefix: str) -> Iterator[Listed]:
        """Every object below `prefix`, in byte order."""

    def begin(self, name: str, *, is_summed: bool = False) -> str:
        """Begin a multipart upload; its id. is_summed: each part is to come with its sha256, which the store checks."""

    def put_part(self, name: str, upload: str, number: int, body: bytes | bytearray | BinaryIO, size: int) -> str:
        """Upload `size` bytes as a part, from a seekable `body`; its ETag. Raises KeyUnknown if the upload is gone."""

    def copy_part(self, name: str, upload: str, number: int, source: str, *, start: int, size: int) -> str:
        """A part from a range of another object, of which no byte comes here; its ETag. Raises KeyUnknown."""

    def complete(
        self, name: str, upload: str, parts: Sequence[tuple[int, str]], sums: Mapping[int, bytes] = ...
    ) -> None:
        """Make an object of these parts (number, ETag), in this order. Raises KeyUnknown if the upload is gone.

        sums: their sha256 by number, where they had to come with it.
        """

    def abort(self, name: str, upload: str) -> None:
        """Forget a multipart upload; nothing happens if it is gone."""

    def uploads(self, prefix: str) -> Iterator[Begun]:
        """Multipart uploads under way to names below `prefix`; of very many to one name not all."""

    def url(self, name: str, expires_s: int) -> str:
        """An address where anybody may read the object for so long."""

    def part_url(
        self, name: str, upload: str, number: int, size: int, expires_s: int, *, sha256: bytes | None = None
    ) -> PartAddress:
        """Where anybody may PUT this part, of this size and sum, for so long, while the upload is under way."""

    def parts(self, name: str, upload: str) -> Iterator[Sent]:
        """The parts that are here, by number. Raises KeyUnknown if the upload is gone."""
