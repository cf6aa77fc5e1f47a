"""One open upload session: append, commit, cancel, whoever did so before.

The row says how much is durable and carries the hash states after it; the bytes are staged with the driver.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import BinaryIO, Final

from sqlalchemy import bindparam, delete, select

from storage import layout
from storage.blobs import BlobInfo, admit
from storage.chunks import Body, ChunkRange
from storage.claims import Claim, beside, claimed, is_left
from storage.db import Database
from storage.digest import Digest, Hasher
from storage.direct import check_proxied, sent_size, settle
from storage.drivers.protocol import Driver, StagedWriter
from storage.errors import (
    ChunkOutOfOrder,
    DigestInvalid,
    KeyUnknown,
    SizeInvalid,
    StagedBusy,
    StorageFull,
    UploadBusy,
    UploadUnknown,
)
from storage.intake import READ_BYTES, Intake
from storage.leftovers import drop, mark, unmark
from storage.models import Upload as Row
from storage.namespaces import drop_unused_repository
from storage.recovery import recover
from storage.reference import RepositoryName
from storage.retry import retried

_LONG_BYTES: Final = 256 * 2**20

_STATES: Final = select(Row.offset, Row.states).where(Row.id == bindparam("upload"), Row.finished_digest.is_(None))


class Upload:
    """One open session. `offset`: bytes that are safely stored."""

    def __init__(
        self,
        database: Database,
        driver: Driver,
        name: RepositoryName,
        upload_id: str,
        offset: int,
        *,
        states: dict[str, str] | None = None,
        is_direct: bool = False,
    ) -> None:
        """states: the hash states of what is stored, where they are known. is_direct: its parts do not come to us."""
        self._database = database
        self._driver = driver
        self._states = states
        self.name = name
        self.id = upload_id
        self.offset = offset
        self.is_direct = is_direct

    def digest_so_far(self) -> Digest | None:
        """sha256 of the first `offset` bytes, which are what is stored; None where nothing computes it.

        Raises UploadUnknown.
        """
        if self._states is None:
            with self._database.connect() as connection:
                row = connection.execute(_STATES, {"upload": self.id}).one_or_none()
            if row is None:
                raise UploadUnknown("no such upload", upload=self.id)
            self.offset, self._states = row
        return Hasher.resume(self._states).digests().get("sha256")

    def append(
        self,
        stream: BinaryIO,
        *,
        chunk: ChunkRange | None = None,
        length: int | None = None,
        may_repeat: bool = False,
        recovers: bool = False,
    ) -> int:
        """Store the body of one request; the new offset.

        chunk: the range the client says it sends; it must begin where the session ends, or where an interrupted chunk
        began. length: the size of the body, where the client announced one. may_repeat: the last finished chunk may
        come again (its answer may have been lost) and replaces itself. recovers: `stream` begins wherever `offset` is
        when it is first read, so what a killed writer left may count.

        A body that breaks off keeps what arrived. Raises ChunkOutOfOrder, SizeInvalid, UploadBusy, StorageFull, and
        whatever `stream` raises. Spec: "Pushing a blob in chunks".
        """
        body = Body(stream, chunk, length, may_repeat=may_repeat, offset=self.offset)
        with claimed(self._database, self.id) as claim, self._session_bytes(claim):
            if claim.is_taken_over and recovers:
                recover(claim, self._driver)
            self._append(claim, body)
        return self.offset

    def recover(self) -> None:
        """Count in what a killed writer left, if one did: whoever asks how far the session is may go on from there.

        Raises UploadUnknown, UploadBusy.
        """
        if is_left(self._database, self.id):
            with claimed(self._database, self.id) as claim, self._session_bytes(claim):
                if claim.is_taken_over:
                    recover(claim, self._driver)
                self.offset, self._states = claim.row.offset, claim.row.states

    def _append(self, claim: Claim, body: Body, *, last_for: Digest | None = None) -> int:
        """How many bytes the body had.

        last_for: a commit as this digest follows under the same claim, and makes durable what this would.
        """
        check_proxied(claim)
        self.offset, self._states = claim.row.offset, claim.row.states
        if body.size == 0 and body.chunk is None:
            return 0
        states = claim.row.states if body.chunk is None else self._enter(claim, body.chunk, body.may_repeat)
        start = self.offset
        marks = {
            "chunk_start": body.chunk and self.offset,
            "chunk_states": states if body.chunk else None,
            "chunk_end": None,
        }
        try:
            with self._writer(claim) as writer:
                hasher = Hasher.resume(states)
                self._states = None
                intake = Intake(
                    claim,
                    writer,
                    hasher,
                    offset=self.offset,
                    marks=marks,
                    size=body.size or 0,
                    wanted=last_for.algorithm if last_for is not None else "sha256",
                )
                try:
                    intake.run(body.stream, limit=body.size)
                except BaseException:
                    intake.finish()
                    self.offset = intake.offset
                    raise
                self._finish(intake, states, body, is_last=last_for is not None)
                self._states = hasher.states()
        except StorageFull:
            self._make_room(claim)
            raise
        return self.offset - start

    def _make_room(self, claim: Claim) -> None:
        """Cut off the bytes that no row tells of: they may fill the very disk that the row needs to let go."""
        if not claim.is_held:
            return  # all that arrived was saved, and the next writer may be at work
        with self._database.connect() as connection:
            self.offset = connection.execute(select(Row.offset).where(Row.id == self.id)).scalar_one()
        with self._writer(claim):
            pass

    @contextmanager
    def _session_bytes(self, claim: Claim) -> Iterator[None]:
        """A session whose bytes are gone is no session any more: the client begins again."""
        try:
            yield
        except KeyUnknown as error:
            claim.save()  # gone only from where a writer looked that was overtaken?
            raise UploadUnknown("the bytes of the upload are gone; begin again", upload=self.id) from error

    @contextmanager
    def _writer(self, claim: Claim) -> Iterator[StagedWriter]:
        """Append where the session ends."""
        with ExitStack() as held:
            try:
                append = self._driver.append(claim.row.handle, at=self.offset, fence=claim.keep)
                writer = held.enter_context(append)
            except StagedBusy:
                self._part_ways(claim)
                append = self._driver.append(claim.row.handle, at=self.offset, fence=claim.keep)
                writer = held.enter_context(append)
            yield writer

    def _part_ways(self, claim: Claim) -> None:
        """Leave the staged bytes to the writer before us: it holds them open, stands still, and may yet write.

        What is durable is copied to where only we write. Its claim has lapsed: all it can still do is find out.
        """
        left, key = claim.row.handle, layout.new_blob_key()
        handle = self._driver.restage(left, key, size=self.offset, keep=claim.keep)
        try:
            claim.save(handle=handle, storage_key=key)
        except UploadBusy:  # and nothing else: a row whose writing ended in an error may name what is ours
            self._driver.discard(handle)
            raise
        claim.row.handle, claim.row.storage_key = handle, key
        self._driver.discard(left)

    def _enter(self, claim: Claim, chunk: ChunkRange, may_repeat: bool) -> dict[str, str]:
        """The hash states where `chunk` begins; the session steps back if it must. Raises ChunkOutOfOrder."""
        row = claim.row
        if chunk.first == row.offset:
            return row.states
        is_interrupted = row.chunk_end is None
        is_repeat = may_repeat and row.chunk_end == row.offset == chunk.last + 1
        if row.chunk_states is None or chunk.first != row.chunk_start or not (is_interrupted or is_repeat):
            raise ChunkOutOfOrder("the chunk does not begin where the upload ends", offset=row.offset)
        claim.save(offset=chunk.first, states=row.chunk_states, chunk_end=None)  # before the bytes are cut
        self.offset = chunk.first
        return row.chunk_states

    def _finish(self, intake: Intake, states: dict[str, str], body: Body, *, is_last: bool) -> None:
        """Save the end of the body. Raises SizeInvalid when it is not as long as the client said."""
        start, arrived = self.offset, intake.offset - self.offset
        if body.size is None or arrived == body.size:
            if is_last:
                intake.leave()
            else:
                intake.finish(**({"chunk_end": intake.offset} if body.chunk is not None else {}))
            self.offset = intake.offset
            return
        if arrived < body.size and body.is_announced:  # the client went away in mid-body: what arrived counts
            intake.finish()
            self.offset = intake.offset
        else:
            nothing = {"chunk_start": None, "chunk_states": None, "chunk_end": None}
            intake.finish(offset=start, states=states, **nothing)
        raise SizeInvalid("the body is not as long as its headers say", offset=self.offset)

    def commit(self, digest: Digest) -> BlobInfo:
        """Make the bytes a blob of the repository, leased. Raises DigestInvalid (the session lives on), UploadBusy.

        Bytes that the store already has are dropped and the repository gets a link to those. Where parts came directly:
        DigestInvalid ends the session, SizeInvalid says that parts are missing.
        """
        with claimed(self._database, self.id) as claim, self._session_bytes(claim):
            return self._commit(claim, digest) if claim.row.direct is None else self._commit_direct(claim, digest)

    def complete(
        self, stream: BinaryIO, digest: Digest, *, chunk: ChunkRange | None = None, length: int | None = None
    ) -> BlobInfo:
        """`append` the last body and `commit`, as one step: nobody gets in between, and a short body costs less.

        A body that breaks off keeps what arrived; a whole one whose bytes have another digest ends the session.
        Raises what the two raise.
        """
        body = Body(stream, chunk, length, may_repeat=False, offset=self.offset)
        with claimed(self._database, self.id) as claim, self._session_bytes(claim):
            arrived = self._append(claim, body, last_for=digest)
            try:
                return self._commit(claim, digest)
            except DigestInvalid:
                if arrived:
                    self._cancel(claim)
                raise

    def _commit(self, claim: Claim, digest: Digest) -> BlobInfo:
        row = claim.row
        self.offset = row.offset
        digests = Hasher.resume(row.states).digests()
        if digest.algorithm not in digests:
            digests[digest.algorithm] = self._read_again(claim, digest.algorithm)
        if digests[digest.algorithm] != digest:
            told = {"digest": str(digest), "offset": row.offset, "received": str(digests[digest.algorithm])}
            raise DigestInvalid("the bytes have another digest", **told)
        try:
            self._publish(claim)
        except StagedBusy:
            self._part_ways(claim)
            self._publish(claim)
        return self._keep(claim, digest, digests.values())

    def _publish(self, claim: Claim) -> None:
        handle, size = claim.row.handle, claim.row.offset
        if size < _LONG_BYTES:
            self._driver.publish(handle, size=size, fence=claim.keep)
        else:  # some stores put the parts together byte by byte, for longer than a claim runs
            beside(claim, lambda: self._driver.publish(handle, size=size, fence=claim.keep))

    def _commit_direct(self, claim: Claim, digest: Digest) -> BlobInfo:
        try:
            claim.row.offset = self.offset = settle(self._driver, claim, digest)
        except DigestInvalid:
            self._cancel(claim)
            raise
        return self._keep(claim, digest, (digest,))

    def _keep(self, claim: Claim, digest: Digest, aliases: Collection[Digest]) -> BlobInfo:
        row, key = claim.row, self._admit(claim, digest, aliases)
        claim.is_held = False
        if key != row.storage_key:
            drop(self._database, self._driver, row.storage_key)
        return BlobInfo(digest, row.offset, key)

    @retried
    def _admit(self, claim: Claim, digest: Digest, aliases: Collection[Digest]) -> str:
        """The session is finished and its bytes are a blob; the key that is kept."""
        row = claim.row
        with self._database.begin() as connection:
            done = {"finished_digest": str(digest), "offset": row.offset, "writer": None, "touched_at": time.time()}
            claim.change(connection, **done)
            who, size = row.principal, row.offset
            return admit(connection, row.repository_id, digest, aliases, who, key=row.storage_key, size=size)

    def cancel(self) -> None:
        """End the session and free its bytes. Raises UploadUnknown, UploadBusy."""
        with claimed(self._database, self.id) as claim:
            self._cancel(claim)

    def _cancel(self, claim: Claim) -> None:
        with self._database.write() as session:
            gone = delete(Row).where(Row.id == self.id, Row.writer == claim.token).returning(Row.handle)
            handle = session.execute(gone.execution_options(synchronize_session=False)).scalar_one_or_none()
            if handle is None:
                raise UploadBusy("another request took over the upload", upload=self.id, offset=claim.row.offset)
            claim.is_held = False
            mark(session.connection(), {claim.row.storage_key: sent_size(claim.row.offset, claim.row.direct)})
            drop_unused_repository(session, claim.row.repository_id)
        self._driver.discard(handle)
        unmark(self._database, [claim.row.storage_key])

    def _read_again(self, claim: Claim, algorithm: str) -> Digest:
        """Hash the staged bytes under an algorithm that was given up, or never announced."""
        hasher, left = Hasher((algorithm,)), claim.row.offset
        with self._driver.read_staged(claim.row.handle, fence=claim.keep) if left else BytesIO() as staged:
            while left and (block := staged.read(min(READ_BYTES, left))):
                hasher.update(block)
                left -= len(block)
                claim.keep()
        return hasher.digests()[algorithm]
