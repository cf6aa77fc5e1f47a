"""What is remembered of other registries. Times are Unix seconds (floats)."""

from __future__ import annotations

from sqlalchemy import Float, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage.db import Base


class RemoteUpload(Base):
    """An upload session at another registry that a push opened, to go on with it after a crash."""

    __tablename__ = "remote_uploads"

    server: Mapped[str] = mapped_column(String(300), primary_key=True)
    repository: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(136), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    saved_at: Mapped[float] = mapped_column(Float(53), index=True)
