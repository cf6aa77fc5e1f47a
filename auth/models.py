"""Tables of who may do what. Times are Unix seconds (floats)."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Float, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.db import Base


class KeyGrant(Base):
    """What one ed25519 key may do in one namespace."""

    __tablename__ = "key_grants"
    __table_args__ = (CheckConstraint("role IN ('pull', 'push', 'admin')", name="role"),)

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id", ondelete="CASCADE"), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(50), primary_key=True, index=True)  # SHA256: and 43 characters
    blob: Mapped[str] = mapped_column(String(68))  # the public key, base64 of its 51 bytes
    role: Mapped[str] = mapped_column(String(8))
    comment: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Float(53))


class AccessToken(Base):
    """A secret that was handed out once; its digest is all that is kept."""

    __tablename__ = "access_tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    scopes: Mapped[str] = mapped_column(String(64))  # space-separated, sorted
    namespaces: Mapped[str | None] = mapped_column(Text)  # space-separated, sorted; NULL is every namespace
    created_at: Mapped[float] = mapped_column(Float(53))
    expires_at: Mapped[float | None] = mapped_column(Float(53))
    revoked_at: Mapped[float | None] = mapped_column(Float(53))


class UsedNonce(Base):
    """A signed token request that was answered; the key makes its replay fail in every process."""

    __tablename__ = "used_nonces"

    fingerprint: Mapped[str] = mapped_column(String(50), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(86), primary_key=True)
    seen_at: Mapped[float] = mapped_column(Float(53), index=True)
