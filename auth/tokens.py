"""Two kinds of token: access tokens, which people keep, and bearer tokens, which clients fetch for a few minutes.

Spec: "Token Authentication Implementation".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jwt
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auth.errors import GrantInvalid, GrantUnknown, TokenExpired, TokenInvalid
from auth.identity import TokenHolder, TokenScope
from auth.key_set import KeySet
from auth.keys import PublicKey
from auth.models import AccessToken
from auth.scopes import Scope
from storage.db import Database, HotQuery
from storage.reference import check_namespace

SECRET_PREFIX: Final = "tng_"  # noqa: S105  # what tells our secrets from other strings, not a secret
FIRST_ADMIN: Final = "admin"
LIFE_S: Final = 900
LEEWAY_S: Final = 60
UPLOAD_GRACE_S: Final = 24 * 3600  # a session that a token opened may end after the token
MAX_BEARER: Final = 16_380  # characters, the server's limit for one header

_SECRET: Final = re.compile(r"tng_(?P<id>[a-z0-9]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_NAMESPACES: Final = 200
_MAX_DECODED: Final = 512
_USE_EVERY_S: Final = 60.0
_MAX_USED: Final = 10_000
_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "tonnage"
_CLAIMS: Final = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """An access token as lists show it; empty `namespaces` is every namespace. Times in Unix seconds."""

    id: str
    name: str
    scopes: tuple[str, ...]
    namespaces: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class AccessTokens:
    """Access tokens, as rows; the secret itself is nowhere."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now
        self.uses = TokenUses(now)

    def create(
        self, name: str, *, scopes: Iterable[str], namespaces: Iterable[str] = (), expires_at: float | None = None
    ) -> str:
        """The secret of a new token, `tng_<id>_<43 characters>`; it is never to be had again.

        A name is taken while its token is neither revoked nor expired. No namespaces means all of them.
        Raises GrantInvalid, NameInvalid.
        """
        row = self._row(name, scopes, namespaces, expires_at)
        token_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
        secret = secrets.token_urlsafe(32)
        is_over = AccessToken.revoked_at.is_not(None) | (AccessToken.expires_at <= self._now())
        try:
            with self._database.write() as transaction:
                transaction.execute(delete(AccessToken).where(AccessToken.name == name, is_over))
                transaction.execute(insert(AccessToken).values(id=token_id, secret_sha256=_digest(secret), **row))
        except IntegrityError:
            raise GrantInvalid(f"a token named {name} exists; revoke it first, or choose another name") from None
        return f"{SECRET_PREFIX}{token_id}_{secret}"

    def verify(self, secret: str) -> TokenHolder:
        """Who presents `secret`. Raises TokenInvalid."""
        match = _SECRET.fullmatch(secret)
        if match is None:
            raise TokenInvalid("not an access token of this server")
        row = self._find(match["id"])
        stored = row.secret_sha256 if row is not None else bytes(32)
        if not hmac.compare_digest(_digest(match["secret"]), stored) or row is None:
            raise TokenInvalid("not an access token of this server")
        return self._holder(row)

    def holder(self, token_id: str) -> TokenHolder:
        """Whoever holds the token of that id, for a bearer token that was issued to them. Raises TokenInvalid."""
        row = self._find(token_id)
        if row is None:
            raise TokenInvalid("the access token is gone")
        return self._holder(row)

    def list(self) -> tuple[TokenInfo, ...]:
        """Every token, by name."""
        with self._database.read() as transaction:
            rows = transaction.execute(select(*_COLUMNS)).all()
        tokens = (
            TokenInfo(id_, name, tuple(scopes.split()), tuple((spaces or "").split()), created, *times)
            for id_, name, _, scopes, spaces, created, *times in rows
        )
        return tuple(sorted(tokens, key=lambda token: token.name))

    def revoke(self, name: str) -> None:
        """Make a token worthless at once. Raises GrantUnknown."""
        revoked = update(AccessToken).where(AccessToken.name == name, AccessToken.revoked_at.is_(None))
        with self._database.write() as transaction:
            gone = transaction.execute(revoked.values(revoked_at=self._now()).returning(AccessToken.id)).all()
        if not gone:
            raise GrantUnknown(f"no active token named {name}; `tonnage token list` shows those there are", name=name)

    def ensure_first_admin(self) -> str | None:
        """The secret of an admin token if there has never been a token; None otherwise."""
        with self._database.read() as transaction:
            if transaction.scalar(select(func.count()).select_from(AccessToken)):
                return None
        try:
            return self.create(FIRST_ADMIN, scopes=[TokenScope.ADMIN])
        except GrantInvalid:  # another process was first
            return None

    def _row(
        self, name: str, scopes: Iterable[str], namespaces: Iterable[str], expires_at: float | None
    ) -> dict[str, object]:
        if not _NAME.fullmatch(name):
            raise GrantInvalid("a token's name has 1 to 64 letters, digits, dots, dashes or underscores")
        wanted, places = sorted(set(scopes)), sorted({check_namespace(each) for each in namespaces})
        if not wanted or not set(wanted) <= set(TokenScope):
            raise GrantInvalid(f"scopes are one or more of {', '.join(TokenScope)}")
        if TokenScope.ADMIN in wanted and places:
            raise GrantInvalid("an admin token is for the whole server; leave its namespaces out")
        if len(places) > _MAX_NAMESPACES:
            raise GrantInvalid(f"at most {_MAX_NAMESPACES} namespaces in one token")
        now = self._now()
        if expires_at is not None and expires_at <= now:
            raise GrantInvalid("a token must expire in the future")
        return {
            "name": name,
            "scopes": " ".join(wanted),
            "namespaces": " ".join(places) or None,
            "created_at": now,
            "expires_at": expires_at,
        }

    def _find(self, token_id: str) -> _Row | None:
        row = self._database.first(_BY_ID, token_id=token_id)
        return _Row(*row) if row is not None else None

    def _holder(self, row: _Row) -> TokenHolder:
        if row.revoked_at is not None:
            raise TokenInvalid("the access token was revoked")
        if row.expires_at is not None and row.expires_at <= self._now():
            raise TokenInvalid("the access token expired")
        self.uses.saw(row.id, row.last_used_at)
        return TokenHolder(
            token_id=row.id,
            name=row.name,
            scopes=frozenset(map(TokenScope, row.scopes.split())),
            namespaces=frozenset(row.namespaces.split()) if row.namespaces is not None else None,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    name: str
    secret_sha256: bytes
    scopes: str
    namespaces: str | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


_COLUMNS: Final = (
    AccessToken.id,
    AccessToken.name,
    AccessToken.secret_sha256,
    AccessToken.scopes,
    AccessToken.namespaces,
    AccessToken.created_at,
    AccessToken.expires_at,
    AccessToken.revoked_at,
    AccessToken.last_used_at,
)
_BY_ID: Final = HotQuery(select(*_COLUMNS).where(AccessToken.id == bindparam("token_id")))


def _digest(secret: str) -> bytes:
    """A plain digest is enough: the secret is 256 random bits, not a password."""
    return hashlib.sha256(secret.encode("ascii")).digest()


class TokenUses:
    """When tokens were last used, a minute behind; a source of `auth.later.Later`.

    The row that a request reads anyway says whether another process wrote the same a moment ago.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()
        self.wake: Callable[[], None] = lambda: None  # called when there is something to write

    def saw(self, token_id: str, last_used_at: float | None) -> None:
        now = self._now()
        if last_used_at is not None and now - last_used_at < _USE_EVERY_S:
            return
        with self._lock:
            if token_id in self._used or len(self._used) >= _MAX_USED:
                return
            self._used[token_id] = now
        self.wake()

    def take(self, limit: int, *, everything: bool = False) -> Sequence[Any]:  # all of it is due, always
        with self._lock:
            taken = list(self._used.items())[:limit]
            for token_id, _ in taken:
                del self._used[token_id]
        return taken

    def put(self, session: Session, taken: Sequence[Any]) -> None:
        for token_id, at in sorted(taken):  # in one order everywhere: no two processes wait for each other
            used = update(AccessToken).where(
                AccessToken.id == token_id, func.coalesce(AccessToken.last_used_at, 0) < at
            )
            session.execute(used.values(last_used_at=at).execution_options(synchronize_session=False))

    def give_back(self, taken: Sequence[Any]) -> None:
        with self._lock:
            self._used.update(taken)

    def __len__(self) -> int:
        return len(self._used)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A signed token as it is handed out. issued_at: Unix seconds."""

    text: str
    scopes: tuple[Scope, ...]
    issued_at: int
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class BearerClaims:
    """What a verified bearer token says: whose it is, what it covers, and its own id."""

    subject: str
    scopes: tuple[Scope, ...]
    token_id: str


class TokenSigner:
    """Issues bearer tokens with the newest key of this node, and verifies those of every node."""

    def __init__(
        self,
        keys_dir: Path,
        *,
        elsewhere: Callable[[str], PublicKey | None] = lambda wanted: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """elsewhere: finds the keys of other nodes, by id. Raises KeyStoreInvalid."""
        self.keys = self._keys = KeySet(keys_dir, elsewhere=elsewhere)
        self._now = now
        # A push sends one token hundreds of times. What is invalid raises, and so takes no place here.
        self._decode = lru_cache(maxsize=_MAX_DECODED)(self._decode_once)

    def issue(self, subject: str, audience: str, scopes: Iterable[Scope]) -> BearerToken:
        """A token that lets `subject` do `scopes` at the service `audience`, for 15 minutes."""
        now, covered = int(self._now()), tuple(scopes)
        claims = {
            "iss": _ISSUER,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + LIFE_S,
            "jti": secrets.token_urlsafe(16),
            "access": [scope.to_json() for scope in covered],
        }
        key = self._keys.signing_key.signing_key
        text = jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": self._keys.signing_id})
        return BearerToken(text, covered, now, LIFE_S)

    def verify(self, text: str, audience: str) -> BearerClaims:
        """What the token says. Raises TokenInvalid; TokenExpired with its claims for a day longer."""
        if len(text) > MAX_BEARER:
            raise TokenInvalid("not a token of this server")
        claims, key_id, not_before, expires = self._decode(text, audience)
        if self._keys.public(key_id) is None:  # it was, when the token was decoded
            raise TokenInvalid("not a token of this server")
        now = self._now()
        if now >= expires + LEEWAY_S:
            raise TokenExpired("the token expired", claims if now < expires + UPLOAD_GRACE_S else None)
        if now < not_before - LEEWAY_S:
            raise TokenInvalid("the token is not valid yet")
        return claims

    def _decode_once(self, text: str, audience: str) -> tuple[BearerClaims, str, int, int]:
        """All of a token that time does not change: its claims, its key, and from when to when it is valid."""
        try:
            key_id = str(jwt.get_unverified_header(text).get("kid"))
            key = self._keys.public(key_id)
            if key is None:
                raise TokenInvalid("not a token of this server")
            # The algorithm is ours to say, never the token's.
            claims = jwt.decode(
                text,
                key.verifying_key,
                algorithms=[_ALGORITHM],
                audience=audience,
                issuer=_ISSUER,
                options={"require": list(_CLAIMS), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            raise TokenInvalid("not a token of this server") from None
        match claims:
            case {
                "sub": str(subject),
                "jti": str(token_id),
                "access": list(access),
                "nbf": int(start),
                "exp": int(end),
            }:
                scopes = tuple(scope for entry in access if (scope := Scope.from_json(entry)) is not None)
                return BearerClaims(subject, scopes, token_id), key_id, start, end
        raise TokenInvalid("not a token of this server")
