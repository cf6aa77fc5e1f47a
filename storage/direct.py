"""Uploads whose parts go straight to where bytes are kept: which part may go where, and what becomes of them.

Whoever has the address of a part may write that part again for as long as the upload is open, whatever it had before.
So a commit closes the upload first, which ends every address, and only then reads what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

from storage.chunks import ChunkRange
from storage.claims import Claim, beside, claimed
from storage.db import Database
from storage.digest import Digest, Hasher
from storage.drivers.direct import LEAST_PART, MOST_PART, DirectParts, PartAddress, Sent, direct_parts
from storage.drivers.protocol import Driver
from storage.errors import ChunkOutOfOrder, DigestInvalid, KeyUnknown, SizeInvalid, StorageUnavailable
from storage.read_ahead import read_ahead

ADDRESS_S: Final = 12 * 3600  # a part may take hours on a slow line; below the life of an idle session
_MOST_PARTS: Final = 10_000  # of the S3 protocol
_TOLD: Final = 20  # missing parts that a refusal names


@dataclass(frozen=True, slots=True)
class Plan:
    """How a session is cut into parts. upload: the store's name for it.

    part_bytes: of every part but the last, which may be shorter. size: where the parts end that have an address.
    sha256: in hex, of the only part there is to be, where the store was told to take no other bytes. is_closing: a
    commit has found all parts and may have closed the upload.
    """

    upload: str
    part_bytes: int
    size: int = 0
    sha256: str = ""
    is_closing: bool = False

    @property
    def count(self) -> int:
        return -(-self.size // self.part_bytes)

    def number(self, chunk: ChunkRange) -> int:
        """Of the part that is this chunk. Raises ChunkOutOfOrder unless it follows, or is, one of those before."""
        number, is_aligned = chunk.first // self.part_bytes + 1, chunk.first % self.part_bytes == 0
        if number > _MOST_PARTS:
            raise ChunkOutOfOrder(f"an upload has at most {_MOST_PARTS} parts; begin it with larger ones", offset=0)
        end, has_end = chunk.last + 1, self.size % self.part_bytes != 0
        is_last = chunk.size < self.part_bytes
        if (
            self.sha256
            or not is_aligned
            or chunk.size > self.part_bytes
            or not chunk.first <= self.size
            or (is_last and end < self.size)
            or (has_end and end > self.size)
        ):
            raise ChunkOutOfOrder("the chunk is none of the equal parts that the upload began with", offset=0)
        return number

    def reaching(self, chunk: ChunkRange) -> Plan:
        return replace(self, size=max(self.size, chunk.last + 1))

    def check(self, sent: Sequence[Sent]) -> None:
        """Raises SizeInvalid unless the parts are all there, and nothing else."""
        sizes = {part.number: part.size for part in sent}
        wanted = dict.fromkeys(range(1, self.count), self.part_bytes)
        if self.size:
            wanted[self.count] = self.size - (self.count - 1) * self.part_bytes
        if sizes != wanted:
            wrong = sorted(number for number in sizes | wanted if sizes.get(number) != wanted.get(number))
            raise SizeInvalid("parts of the upload have not arrived, or not whole", parts=wrong[:_TOLD])

    def to_json(self) -> dict[str, Any]:
        """What nodes of the version before can read too, unless it is closing."""
        told = asdict(self)
        return told if self.is_closing else {name: value for name, value in told.items() if name != "is_closing"}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """What a later version may have added is left out."""
        return cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})


class Direct:
    """The sessions of a store that take parts directly. `is_possible`: whether its driver can do that."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._parts = direct_parts(driver)
        self.is_possible = self._parts is not None

    def address(self, upload_id: str, chunk: ChunkRange, *, may_begin: bool) -> PartAddress | None:
        """Where the bytes of this chunk are to be PUT; None where they go through us.

        may_begin: whether a session without a byte may become a direct one. One that is goes on as one: raises
        ChunkOutOfOrder for a chunk that is not its next part, or one before; UploadUnknown, UploadBusy.
        """
        if self._parts is None:
            return None
        with claimed(self._database, upload_id) as claim:
            plan = Plan.from_json(claim.row.direct) if claim.row.direct is not None else None
            if plan is None and may_begin and chunk.first == 0:
                plan = _begin(self._parts, claim, chunk.size)
            if plan is None:
                return None
            number, reached = plan.number(chunk), plan.reaching(chunk)
            if plan.is_closing and (reached != plan or not _is_open(self._parts, claim, plan)):
                raise ChunkOutOfOrder("all parts of the upload are here: commit it", offset=plan.size)
            if reached != plan:
                claim.release(direct=reached.to_json())
        key, size = claim.row.storage_key, chunk.size
        return self._parts.address(key, plan.upload, number, size=size, expires_s=ADDRESS_S)

    def whole_address(self, upload_id: str, digest: Digest, size: int) -> PartAddress | None:
        """Where all the bytes of a new session are to be PUT at once; None where they cannot be. Raises UploadBusy."""
        if self._parts is None:
            return None
        with claimed(self._database, upload_id) as claim:
            plan = _begin(self._parts, claim, size, sha256=digest.encoded if digest.algorithm == "sha256" else "")
            if plan is None:
                return None
            claim.release(direct=replace(plan, size=size).to_json())
        key, sha256 = claim.row.storage_key, bytes.fromhex(plan.sha256) or None
        return self._parts.address(key, plan.upload, 1, size=size, expires_s=ADDRESS_S, sha256=sha256)


def _begin(parts: DirectParts, claim: Claim, part_bytes: int, *, sha256: str = "") -> Plan | None:
    row = claim.row
    if row.offset or row.direct is not None or not LEAST_PART <= part_bytes <= MOST_PART:
        return None
    try:
        begun = parts.begin(row.handle, is_summed=bool(sha256))
    except StorageUnavailable:
        if not sha256:
            raise
        begun, sha256 = parts.begin(row.handle, is_summed=False), ""  # not every store computes sums
    if begun is None:
        return None
    handle, upload = begun
    plan = Plan(upload, part_bytes, sha256=sha256)
    claim.save(handle=handle, direct=plan.to_json())
    return plan


def _is_open(parts: DirectParts, claim: Claim, plan: Plan) -> bool:
    try:
        parts.sent(claim.row.storage_key, plan.upload)
    except KeyUnknown:
        return False
    return True


def sent_size(offset: int, direct: Mapping[str, Any] | None) -> int:
    """About how many bytes of a session there are, by its row."""
    return offset if direct is None else Plan.from_json(direct).size


def check_proxied(claim: Claim) -> None:
    """Raises ChunkOutOfOrder where the session's bytes lie where nothing of ours can be added to them."""
    if claim.row.direct is not None:
        raise ChunkOutOfOrder("the parts of this upload go straight to the object store; begin another one", offset=0)


def settle(driver: Driver, claim: Claim, digest: Digest) -> int:
    """Close the session's parts and find out what they are: its size, where they have this digest.

    Raises DigestInvalid, for which the bytes are to be dropped; SizeInvalid, for parts that may still come; KeyUnknown.
    """
    parts, plan, key = direct_parts(driver), Plan.from_json(claim.row.direct or {}), claim.row.storage_key
    if parts is None:
        raise StorageUnavailable("the bytes of the upload are in an object store that is not in use any more")
    sent = _close(parts, driver, claim, plan)
    if plan.sha256 and str(digest) == f"sha256:{plan.sha256}" and _sums(sent) == [plan.sha256]:
        return plan.size  # the store has hashed them as they came, and takes no others at this address
    hasher = Hasher((digest.algorithm,))
    for block in read_ahead(lambda start, size: parts.read(key, start, size), plan.size):
        hasher.update(block)
        claim.keep()
    if hasher.digests()[digest.algorithm] != digest:
        # Not which: a careless store lets who has an address copy in what only we may read, and to commit that takes
        # its digest.
        raise DigestInvalid("the bytes have another digest", digest=str(digest))
    return plan.size


def _sums(sent: Sequence[Sent]) -> list[str]:
    return [part.sha256.hex() if part.sha256 is not None else "" for part in sent]


def _close(parts: DirectParts, driver: Driver, claim: Claim, plan: Plan) -> list[Sent]:
    """What the bytes are made of, unless an attempt before this one closed them."""
    key = claim.row.storage_key
    try:
        sent = parts.sent(key, plan.upload)
        plan.check(sent)
        claim.save(direct=replace(plan, is_closing=True).to_json())
        beside(claim, lambda: parts.close(key, plan.upload, sent))
        return sent
    except KeyUnknown:  # closed already, by an attempt that did not come to its end
        if driver.stat(key) != plan.size:
            raise
        return []
