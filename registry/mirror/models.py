"""What is remembered of mirrors. Times are Unix seconds (floats)."""

from __future__ import annotations

from sqlalchemy import JSON, Float, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.db import Base, BigId, ordered_text


class Mirror(Base):
    """Repositories below `prefix` are those of another registry, fetched when they are asked for.

    upstream: scheme, host and port. path: what takes the prefix's place there; may be empty. patterns: which of its
    repositories, all where there are none. token_path: a file. sync_every_s, sync_at: how often the whole of it is
    fetched, and when the next time is. created_at: nothing is fetched before.
    """

    __tablename__ = "mirrors"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    prefix: Mapped[str] = mapped_column(ordered_text(255), unique=True)
    upstream: Mapped[str] = mapped_column(String(300))
    path: Mapped[str] = mapped_column(String(255))
    ttl_s: Mapped[float] = mapped_column(Float(53))
    patterns: Mapped[list[str]] = mapped_column(JSON)
    token_path: Mapped[str | None] = mapped_column(Text)
    sync_every_s: Mapped[float | None] = mapped_column(Float(53))
    sync_at: Mapped[float | None] = mapped_column(Float(53))
    created_at: Mapped[float] = mapped_column(Float(53))


class MirrorTag(Base):
    """When the upstream was last asked for a tag."""

    __tablename__ = "mirror_tags"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(ordered_text(128), primary_key=True)
    checked_at: Mapped[float] = mapped_column(Float(53))


class MirrorRead(Base):
    """When a blob of a mirrored repository was last pulled, give or take an hour."""

    __tablename__ = "mirror_reads"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True)
    blob_id: Mapped[int] = mapped_column(ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True, index=True)
    read_at: Mapped[float] = mapped_column(Float(53), index=True)
