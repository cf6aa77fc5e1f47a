"""Every row of the store. Times are Unix seconds (floats); digests are text as they were pushed."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.db import Base, BigId, ordered_text

LIVE: Final = "live"
DELETING: Final = "deleting"
DAMAGED: Final = "damaged"

_DIGEST: Final = String(136)  # "sha512:" and 128 digits, rounded up
_HAS_SUBJECT: Final = sql_text("subject IS NOT NULL")  # few manifests have one: the others cost the index nothing


class Namespace(Base):
    """The first component of repository names: what grants attach to."""

    __tablename__ = "namespaces"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(ordered_text(255), unique=True)
    is_private: Mapped[bool]
    created_at: Mapped[float] = mapped_column(Float(53))


class Repository(Base):
    """Holder of manifests and tags."""

    __tablename__ = "repositories"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), index=True)
    name: Mapped[str] = mapped_column(ordered_text(255), unique=True)
    created_at: Mapped[float] = mapped_column(Float(53))


class Object(Base):
    """Bytes at a key of the driver. State and lease sit here: a sha256 and a sha512 name may share the bytes.

    A `deleting` object is unknown to every reader; its key is never used again. So is a `damaged` one, whose bytes are
    no longer what its digests say: they are kept, and the next push of the same blob takes its place. `lease_until` is
    the latest of its links' leases.
    """

    __tablename__ = "objects"
    __table_args__ = (
        CheckConstraint("size >= 0", name="size"),
        CheckConstraint(f"state IN ('{LIVE}', '{DELETING}', '{DAMAGED}')", name="state"),
        Index(None, "state", "lease_until"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(200), unique=True)
    size: Mapped[int] = mapped_column(BigId)
    state: Mapped[str] = mapped_column(String(8))
    lease_until: Mapped[float] = mapped_column(Float(53))


class Blob(Base):
    """A digest as a name of an object."""

    __tablename__ = "blobs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, unique=True)
    object_id: Mapped[int] = mapped_column(ForeignKey("objects.id"), index=True)


class ChunkSums(Base):
    """sha256 of each `chunk_bytes` of an object in turn, 32 bytes each: made when they are first asked for."""

    __tablename__ = "chunk_sums"

    object_id: Mapped[int] = mapped_column(ForeignKey("objects.id", ondelete="CASCADE"), primary_key=True)
    chunk_bytes: Mapped[int]
    sums: Mapped[bytes] = mapped_column(LargeBinary)


class BlobLink(Base):
    """The blob was pushed to, mounted in or pulled through the repository: the only way to read it there.

    Until `lease_until` it stays without a manifest, for a push under way. leased_by: whose push; `*` means several.
    """

    __tablename__ = "blob_links"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True)
    blob_id: Mapped[int] = mapped_column(ForeignKey("blobs.id"), primary_key=True, index=True)
    lease_until: Mapped[float] = mapped_column(Float(53))
    leased_by: Mapped[str | None] = mapped_column(String(255))


class Manifest(Base):
    """A manifest of one repository, byte for byte as pushed.

    annotations: kept apart only for manifests with a subject, where lists of referrers show them.
    """

    __tablename__ = "manifests"
    __table_args__ = (
        UniqueConstraint("repository_id", "digest"),
        UniqueConstraint("repository_id", "id"),  # lets a tag prove that its manifest is of its own repository
        Index(
            None,
            "repository_id",
            "subject",
            "id",
            "artifact_type",
            sqlite_where=_HAS_SUBJECT,
            postgresql_where=_HAS_SUBJECT,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(_DIGEST)
    media_type: Mapped[str] = mapped_column(String(255))
    artifact_type: Mapped[str | None] = mapped_column(String(255))
    subject: Mapped[str | None] = mapped_column(_DIGEST)
    annotations: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    size: Mapped[int]
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    pushed_at: Mapped[float] = mapped_column(Float(53))


class ManifestSummary(Base):
    """What lists show of a manifest, so that they need not read it. `text` is unset where they show nothing.

    version: of the code that read the manifest; rows of an older one count as missing.
    """

    __tablename__ = "manifest_summaries"

    manifest_id: Mapped[int] = mapped_column(ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int]
    text: Mapped[str | None] = mapped_column(Text)


class ManifestBlob(Base):
    """A blob that a manifest lists. `blob_id` is unset while we do not hold it (foreign layers, mirrors)."""

    __tablename__ = "manifest_blobs"

    manifest_id: Mapped[int] = mapped_column(ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True, index=True)
    blob_id: Mapped[int | None] = mapped_column(ForeignKey("blobs.id"), index=True)


class ManifestChild(Base):
    """A manifest that an index lists; it need not be here."""

    __tablename__ = "manifest_children"

    manifest_id: Mapped[int] = mapped_column(ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True, index=True)


class Tag(Base):
    """A movable name for one manifest of its own repository. Spec: "Definitions"."""

    __tablename__ = "tags"
    __table_args__ = (
        ForeignKeyConstraint(
            ["repository_id", "manifest_id"], ["manifests.repository_id", "manifests.id"], ondelete="CASCADE"
        ),
        Index(None, "manifest_id"),
    )

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(ordered_text(128), primary_key=True)  # spec limit, in characters
    manifest_id: Mapped[int] = mapped_column(BigId)
    updated_at: Mapped[float] = mapped_column(Float(53))


class Upload(Base):
    """An upload session between its POST and its closing PUT; a finished one stays a day, for repeats of that PUT.

    offset, states: bytes that are durable, and the hash states after them.
    chunk_start, chunk_states: where the last chunk began; chunk_end: where it ended, unset if it was interrupted.
    writer, writer_until: who may append, and until when nobody else may take over.
    opened_with: what opened it, for whoever asks; the store makes nothing of it.
    direct: how it is cut, where its parts go straight to the object store; see `storage.direct.Plan`.
    """

    __tablename__ = "uploads"
    __table_args__ = (CheckConstraint('"offset" >= 0', name="offset"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"), index=True)
    principal: Mapped[str | None] = mapped_column(String(255))
    handle: Mapped[str] = mapped_column(Text)
    storage_key: Mapped[str] = mapped_column(String(200))
    offset: Mapped[int] = mapped_column(BigId)
    states: Mapped[dict[str, str]] = mapped_column(JSON)
    chunk_start: Mapped[int | None] = mapped_column(BigId)
    chunk_states: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    chunk_end: Mapped[int | None] = mapped_column(BigId)
    writer: Mapped[str | None] = mapped_column(String(32))
    writer_until: Mapped[float] = mapped_column(Float(53))
    started_at: Mapped[float] = mapped_column(Float(53))
    touched_at: Mapped[float] = mapped_column(Float(53), index=True)
    finished_digest: Mapped[str | None] = mapped_column(_DIGEST)
    opened_with: Mapped[str | None] = mapped_column(String(64))
    direct: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
