"""Each signed request counts once, whichever process it reaches."""

from __future__ import annotations

from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError

from auth.errors import SignatureInvalid
from auth.models import UsedNonce
from auth.signatures import WINDOW_S
from storage.db import Database
from storage.retry import retried

_KEPT_S = 2 * WINDOW_S + 60  # a request may be dated WINDOW_S ahead and is valid for as long after


class Nonces:
    """Nonces of admitted keys; those of strangers are not kept, or anybody could fill the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    def use(self, fingerprint: str, nonce: str, now: float) -> None:
        """Raises SignatureInvalid if the pair was used before."""
        row = {"fingerprint": fingerprint, "nonce": nonce, "seen_at": now}
        try:
            with self._database.write() as transaction:
                transaction.execute(delete(UsedNonce).where(UsedNonce.seen_at < now - _KEPT_S))
                transaction.execute(insert(UsedNonce).values(**row))
        except IntegrityError:
            raise SignatureInvalid("this request was used before; sign a new one") from None
