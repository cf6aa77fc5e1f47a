"""Which repositories are another registry's, and where they lie there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, or_, select

from registry.mirror.models import Mirror as Row
from registry.remotes.errors import UrlInvalid
from registry.remotes.http import Origin
from registry.remotes.places import registry_of
from registry.remotes.settings import parse_server
from storage.db import Database, insert
from storage.errors import NameInvalid, NameTaken, NameUnknown
from storage.models import Manifest, Namespace, Repository
from storage.reference import RepositoryName, Tag

DEFAULT_TTL_S: Final = 300.0
MAX_PATTERNS: Final = 100
_MAX_PATTERN: Final = 255
_MAX_MIRRORS: Final = 1000
_FRESH_S: Final = 2.0  # a process knows of a change after so long


@dataclass(frozen=True, slots=True)
class Mirror:
    """Repositories below `prefix` are those of `upstream`, below `path` there.

    ttl_s: how long a tag is believed. patterns: `repository[:tag]`, shell patterns for what lies below the prefix;
    none admits all. token_path: a file with what `upstream` wants to see.
    """

    prefix: RepositoryName
    upstream: Origin
    path: str = ""
    ttl_s: float = DEFAULT_TTL_S
    patterns: tuple[str, ...] = ()
    token_path: Path | None = None
    sync_every_s: float | None = None
    sync_at: float | None = None

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
        """Whether the patterns let us fetch it. tag: None for what has none, a blob for instance."""
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

    def add(self, mirror: Mirror, *, is_public: bool = False) -> None:
        """Also makes the namespace, if it is missing. Raises NameTaken where somebody has pushed, or a mirror is."""
        now, prefix = time.time(), str(mirror.prefix)
        with self._database.write() as session:
            pushed = select(Repository.name).where(
                _below(prefix), exists().where(Manifest.repository_id == Repository.id)
            )
            held = session.execute(pushed.limit(1)).scalar_one_or_none()
            if held is not None:
                raise NameTaken(
                    f"{held} was pushed here and would become a part of the mirror; choose another prefix, or remove it"
                )
            namespace = {"name": mirror.prefix.namespace, "is_private": not is_public, "created_at": now}
            session.execute(insert(session, Namespace).values(namespace).on_conflict_do_nothing())
            row = insert(session, Row).values(
                prefix=prefix,
                upstream=str(mirror.upstream),
                path=mirror.path,
                ttl_s=mirror.ttl_s,
                patterns=list(mirror.patterns),
                token_path=str(mirror.token_path) if mirror.token_path is not None else None,
                sync_every_s=mirror.sync_every_s,
                sync_at=mirror.sync_at,
                created_at=now,
            )
            if session.execute(row.on_conflict_do_nothing().returning(Row.id)).first() is None:
                raise NameTaken(f"{prefix} is a mirror already; `tonnage mirror remove {prefix}` first", name=prefix)

    def remove(self, prefix: RepositoryName) -> None:
        """What it fetched stays, as if it had been pushed. Raises NameUnknown."""
        with self._database.write() as session:
            gone = delete(Row).where(Row.prefix == str(prefix)).returning(Row.id)
            if session.execute(gone.execution_options(synchronize_session=False)).first() is None:
                raise NameUnknown("no such mirror; `tonnage mirror list` shows those there are", name=str(prefix))


def _below(prefix: str) -> ColumnElement[bool]:
    return or_(Repository.name == prefix, Repository.name.startswith(f"{prefix}/", autoescape=True))


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
    )
