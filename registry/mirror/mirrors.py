"""Which repositories are another registry's, and where they lie there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from registry.mirror.models import Mirror as Row
from registry.remotes.errors import UrlInvalid
from registry.remotes.http import Origin
from registry.remotes.places import registry_of
from registry.remotes.settings import parse_server
from storage.db import Database, insert
from storage.errors import NameInvalid, NameTaken, NameUnknown, StorageError
from storage.models import Manifest, Namespace, Repository
from storage.reference import RepositoryName, Tag

DEFAULT_TTL_S: Final = 300.0
MAX_PATTERNS: Final = 100
_MAX_PATTERN: Final = 255
_MAX_MIRRORS: Final = 1000
_FRESH_S: Final = 2.0  # a process knows of a change after so long
SETTLE_S: Final = _FRESH_S + 0.5


class WouldBePublic(StorageError):
    """Everybody could pull what the upstream shows to the bearer of our token only."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Repositories below `prefix` are those of `upstream`, below `path` there.

    ttl_s: how long a tag is believed. patterns: `repository[:tag]`, shell patterns for what lies below the prefix;
    none admits all. token_path: a file with what `upstream` wants to see. opens_at: before, nothing is fetched (Unix
    seconds).
    """

    prefix: RepositoryName
    upstream: Origin
    path: str = ""
    ttl_s: float = DEFAULT_TTL_S
    patterns: tuple[str, ...] = ()
    token_path: Path | None = None
    sync_every_s: float | None = None
    sync_at: float | None = None
    opens_at: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.upstream}/{self.path}".rstrip("/")

    def covers(self, name: RepositoryName) -> bool:
        return name == self.prefix or name.text.startswith(f"{self.prefix}/")

    def remote_name(self, name: RepositoryName) -> RepositoryName:
        """What a repository of ours is called there. Raises NameInvalid: nothing is called so."""
        below = name.text[len(self.prefix.text) + 1 :]
        return RepositoryName("/".join(filter(None, (self.path, below))))

    def local_name(self, remote: RepositoryName) -> RepositoryName | None:
        """What a repository of theirs is called here; None if it does not lie below `path`, or cannot be called so."""
        start = f"{self.path}/" if self.path else ""
        try:
            if remote.text == self.path:
                return self.prefix
            return (
                RepositoryName(f"{self.prefix}/{remote.text[len(start) :]}") if remote.text.startswith(start) else None
            )
        except NameInvalid:
            return None

    def admits(self, name: RepositoryName, tag: Tag | None = None) -> bool:
        """Whether the patterns let us fetch it, and now. tag: None for what has none, a blob for instance."""
        if time.time() < self.opens_at:
            return False
        below = name.text[len(self.prefix.text) + 1 :] or self.prefix.text.rpartition("/")[2]
        return not self.patterns or any(matches(pattern, below, tag) for pattern in self.patterns)


def matches(pattern: str, below: str, tag: Tag | None) -> bool:
    """Whether `repository[:tag]`, each a shell pattern, is meant by `pattern`."""
    repositories, _, tags = pattern.partition(":")
    return fnmatchcase(below, repositories) and (tag is None or fnmatchcase(tag.text, tags or "*"))


def parse_mirror(
    prefix: str,
    upstream: str,
    *,
    ttl_s: float = DEFAULT_TTL_S,
    patterns: tuple[str, ...] = (),
    token_path: Path | None = None,
) -> Mirror:
    """A mirror as an operator writes it. upstream: `[scheme://]host[:port][/path]`.

    Without a path, a prefix that begins with a host stands for the whole registry, any other for the same path there:
    `hf.co` of hf.co, `library` of registry.ollama.ai/library. Raises NameInvalid, UrlInvalid.
    """
    name = RepositoryName.parse(prefix)
    scheme, mark, rest = upstream.strip().rpartition("://")
    server, slash, path = rest.partition("/")
    path = path.strip("/")
    if not slash:
        first, _, below = name.text.partition("/")
        path = below if "." in first or "__" in first or first == "localhost" else name.text
    if path:
        RepositoryName.parse(path)
    if len(patterns) > MAX_PATTERNS or any(len(each) > _MAX_PATTERN for each in patterns):
        raise UrlInvalid(f"at most {MAX_PATTERNS} patterns of {_MAX_PATTERN} characters")
    return Mirror(name, registry_of(parse_server(f"{scheme}{mark}{server}")), path, ttl_s, patterns, token_path)


class Mirrors:
    """Every mirror of the store. One for a process: it remembers them for two seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._known: tuple[Mirror, ...] = ()
        self._known_until = float("-inf")

    def find(self, name: RepositoryName) -> Mirror | None:
        """The mirror that the repository belongs to: of several, the one with the longest prefix."""
        now = self._clock()
        if now >= self._known_until:
            self._known = tuple(sorted(self.list(), key=lambda each: -len(each.prefix.text)))
            self._known_until = now + _FRESH_S
        return next((mirror for mirror in self._known if mirror.covers(name)), None)

    def list(self) -> list[Mirror]:
        """All of them, by prefix."""
        with self._database.read() as session:
            return [_of_row(row) for row in session.scalars(select(Row).order_by(Row.prefix).limit(_MAX_MIRRORS))]

    def get(self, prefix: RepositoryName) -> Mirror:
        """Raises NameUnknown."""
        with self._database.read() as session:
            row = session.scalars(select(Row).where(Row.prefix == str(prefix))).one_or_none()
            if row is None:
                raise NameUnknown("no such mirror; `tonnage mirror list` shows those there are", name=str(prefix))
            return _of_row(row)

    def add(self, mirror: Mirror, *, is_public: bool = False, adopts: bool = False, settle_s: float = 0.0) -> bool:
        """Also makes the namespace, if it is missing. False where the mirror was there: of it all but the upstream and
        the path, and its schedule, is now what this one says.

        is_public: everybody may pull. adopts: what is here below the prefix is the upstream's. settle_s: how long to
        wait for pushes that other processes let in before they knew of the mirror; SETTLE_S where there are any.
        Raises NameTaken where somebody has pushed, or a mirror of something else is, and WouldBePublic.
        """
        now, prefix = time.time(), str(mirror.prefix)
        with self._database.write() as session:
            if mirror.token_path is not None and not is_public:
                _check_private(session, mirror.prefix.namespace)
            row = session.scalars(select(Row).where(Row.prefix == prefix)).one_or_none()
            if row is not None:
                _change(row, mirror)
                return False
            if not adopts:
                _check_unused(session, prefix)
            namespace = {"name": mirror.prefix.namespace, "is_private": not is_public, "created_at": now}
            session.execute(insert(session, Namespace).values(namespace).on_conflict_do_nothing())
            added = (
                insert(session, Row).values(created_at=now + settle_s, **_values_of(mirror)).on_conflict_do_nothing()
            )
            if session.execute(added.returning(Row.id)).first() is None:
                raise NameTaken(f"{prefix} has become a mirror at this moment; try again", name=prefix)
        if settle_s:
            self._settle(mirror, now if adopts else 0.0, now + settle_s)
        return True

    def _settle(self, mirror: Mirror, since: float, until: float) -> None:
        """Wait till then; the mirror goes again if somebody has pushed meanwhile. Raises NameTaken."""
        try:
            time.sleep(max(0.0, until - time.time()))
            with self._database.read() as session:  # what comes later has been fetched: nothing is before
                _check_unused(session, str(mirror.prefix), since, until)
        except BaseException:
            with suppress(NameUnknown):
                self.remove(mirror.prefix)
            raise

    def remove(self, prefix: RepositoryName) -> None:
        """What it fetched stays, and counts as pushed from now on. Raises NameUnknown."""
        with self._database.write() as session:
            gone = delete(Row).where(Row.prefix == str(prefix)).returning(Row.id)
            if session.execute(gone.execution_options(synchronize_session=False)).first() is None:
                raise NameUnknown("no such mirror; `tonnage mirror list` shows those there are", name=str(prefix))


def _below(prefix: str) -> ColumnElement[bool]:
    return or_(Repository.name == prefix, Repository.name.startswith(f"{prefix}/", autoescape=True))


def _check_private(session: Session, namespace: str) -> None:
    """Raises WouldBePublic; a namespace that is still to be made will be private."""
    is_private = session.scalars(select(Namespace.is_private).where(Namespace.name == namespace)).one_or_none()
    if is_private is False:
        raise WouldBePublic(
            f"everybody may pull from {namespace}, and so what the token lets this server see; say --public if that is "
            f"meant, else `tonnage namespace set {namespace} --private` first",
            name=namespace,
        )


def _check_unused(session: Session, prefix: str, since: float = 0.0, until: float = float("inf")) -> None:
    """Raises NameTaken where a manifest came between those moments."""
    came = (
        select(Repository.name)
        .join(Manifest, Manifest.repository_id == Repository.id)
        .where(_below(prefix), Manifest.pushed_at >= since, Manifest.pushed_at < until)
    )
    held = session.execute(came.limit(1)).scalar_one_or_none()
    if held is not None:
        raise NameTaken(
            f"{held} was pushed here, or fetched by a mirror that is no more, and would pass for the upstream's; "
            "choose another prefix, remove it, or say --adopt if all of it came from there",
            name=held,
        )


def _change(row: Row, mirror: Mirror) -> None:
    """Raises NameTaken where the row is of another upstream."""
    if (row.upstream, row.path) != (str(mirror.upstream), mirror.path):
        raise NameTaken(
            f"{row.prefix} mirrors {_of_row(row)} already; `tonnage mirror remove {row.prefix}` first", name=row.prefix
        )
    values = _values_of(mirror)
    row.ttl_s, row.patterns, row.token_path = values["ttl_s"], values["patterns"], values["token_path"]


def _values_of(mirror: Mirror) -> dict[str, Any]:
    return {
        "prefix": str(mirror.prefix),
        "upstream": str(mirror.upstream),
        "path": mirror.path,
        "ttl_s": mirror.ttl_s,
        "patterns": list(mirror.patterns),
        "token_path": str(mirror.token_path) if mirror.token_path is not None else None,
        "sync_every_s": mirror.sync_every_s,
        "sync_at": mirror.sync_at,
    }


def _of_row(row: Row) -> Mirror:
    token_path = Path(row.token_path) if row.token_path is not None else None
    return Mirror(
        RepositoryName(row.prefix),
        Origin.of(row.upstream),
        row.path,
        row.ttl_s,
        tuple(row.patterns),
        token_path,
        row.sync_every_s,
        row.sync_at,
        row.created_at,
    )
