"""Tables of who may do what. Times are Unix seconds (floats)."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.db import Base, BigId


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
    last_used_at: Mapped[float | None] = mapped_column(Float(53))  # a minute behind at most; NULL is never


class UsedNonce(Base):
    """A signed token request that was answered; the key makes its replay fail in every process."""

    __tablename__ = "used_nonces"

    fingerprint: Mapped[str] = mapped_column(String(50), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(86), primary_key=True)
    seen_at: Mapped[float] = mapped_column(Float(53), index=True)


class SigningKey(Base):
    """The public half of a key that a node signs with; the other half is a file of that node's."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)  # derived from the key
    blob: Mapped[str] = mapped_column(String(68))
    seen_at: Mapped[float] = mapped_column(Float(53), index=True)  # when its node last said that it is in use


class AuditRow(Base):
    """Something that somebody did, or was refused. Never changed: triggers of the schema refuse an UPDATE."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "at", "id"), Index(None, "what", "at"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[float] = mapped_column(Float(53))
    who: Mapped[str] = mapped_column(String(128))
    what: Mapped[str] = mapped_column(String(32))  # a value of auth.audit.What
    namespace: Mapped[str | None] = mapped_column(String(255))
    repository: Mapped[str | None] = mapped_column(String(255))
    reference: Mapped[str | None] = mapped_column(String(255))  # a tag, digest, fingerprint, or a token's name
    detail: Mapped[str | None] = mapped_column(String(500))
    address: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    count: Mapped[int] = mapped_column(BigId)  # how many times, where several were made one row


class RefusedKey(Base):
    """A key that signed as it should, and that nobody had let in."""

    __tablename__ = "refused_keys"

    fingerprint: Mapped[str] = mapped_column(String(50), primary_key=True)
    blob: Mapped[str] = mapped_column(String(68))
    address: Mapped[str] = mapped_column(String(64))
    wanted: Mapped[str] = mapped_column(String(300))  # `<repository>:<actions>`, or empty
    first_seen_at: Mapped[float] = mapped_column(Float(53))
    last_seen_at: Mapped[float] = mapped_column(Float(53), index=True)
    count: Mapped[int] = mapped_column(BigId)
