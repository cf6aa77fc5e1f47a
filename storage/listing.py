"""What a store lists, a page at a time: tags, repositories, referrers, and manifests under all their names.

A page is one query that walks an index onwards from where the last page ended: it costs what it shows, and pushes and
deletes between two pages move nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Result, Select, Text, and_, case, cast, exists, false, func, or_, select

from storage.db import Database, insert
from storage.digest import Digest
from storage.errors import NameUnknown
from storage.models import Manifest, ManifestBlob, ManifestSummary, Namespace, Repository
from storage.models import Tag as TagRow
from storage.reference import RepositoryName, Tag

MAX_PAGE: Final = 10_000
MAX_REFERRERS: Final = 2000
MAX_REFERRER_BYTES: Final = 7 * 2**19  # of their manifests: more than a page of descriptors can need
_BATCH: Final = 1000  # rows of one statement
_FETCHED: Final = 500  # rows in hand at once: some more make Python look through all its objects for garbage


@dataclass(frozen=True, slots=True)
class Readable:
    """What a list may show beside all that is public: private namespaces, and single repositories of others."""

    namespaces: frozenset[str] = frozenset()
    repositories: frozenset[str] = frozenset()


class Referrer(NamedTuple):
    """A manifest whose subject is another one. id: its place in the list; annotations: a JSON object as text."""

    id: int
    media_type: str
    digest: str
    size: int
    artifact_type: str | None
    annotations: str | None


class TaggedManifest(NamedTuple):
    """One tag of the store and what it names. summary: as it was kept; without one, the manifest's digest is here."""

    repository: str
    tag: str
    updated_at: float
    manifest_id: int
    summary: str | None
    digest: str | None


class Lists:
    """The lists of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tags(self, name: RepositoryName, *, n: int | None = None, last: str | None = None) -> tuple[list[str], bool]:
        """Tags after `last` in byte order, at most `n`; are there more? Raises NameUnknown. Spec: "Listing Tags"."""
        limit = _page(n)
        after = () if last is None else (TagRow.name > _searchable(last),)
        query = (
            select(TagRow.name)
            .select_from(Repository)
            .outerjoin(TagRow, and_(TagRow.repository_id == Repository.id, *after))
            .where(Repository.name == str(name))
            .order_by(TagRow.name)
            .limit(limit + 1)
        )
        with self._database.connect() as connection:
            found = _texts(connection.execute(query))
        if not found:
            raise NameUnknown("no such repository", name=str(name))
        if found == [None]:  # a repository without tags
            return [], False
        return _cut(found, limit)

    def catalog(
        self, *, n: int | None = None, last: str | None = None, readable: Readable | None = None
    ) -> tuple[list[str], bool]:
        """Repositories with a manifest, after `last` in byte order, at most `n`; are there more?

        readable: what the caller may read; None shows all.
        """
        limit = _page(n)
        query = select(Repository.name).where(exists().where(Manifest.repository_id == Repository.id))
        if readable is not None:
            query = query.where(_is_readable(readable))
        if last is not None:
            query = query.where(Repository.name > _searchable(last))
        with self._database.connect() as connection:
            found = _texts(connection.execute(query.order_by(Repository.name).limit(limit + 1)))
        return _cut(found, limit)

    def referrers(
        self,
        name: RepositoryName,
        digest: Digest,
        artifact_type: str | None = None,
        *,
        after: int = 0,
        limit: int = MAX_REFERRERS,
        max_bytes: int = MAX_REFERRER_BYTES,
    ) -> tuple[list[Referrer], bool]:
        """Manifests whose subject is `digest`, oldest first, behind the one with id `after`; are there more?

        At most `limit`, and no more than it takes for their manifests to reach `max_bytes`; one at least. Empty for
        anything unknown. Spec: "Listing Referrers".
        """
        limit = max(1, min(limit, MAX_REFERRERS))
        sized = _sized_referrers(name, digest, artifact_type, after).limit(limit + 1).cte("sized")
        final = select(func.max(sized.c.id)).scalar_subquery()
        query = (
            select(
                Manifest.id,
                Manifest.media_type,
                Manifest.digest,
                Manifest.size,
                Manifest.artifact_type,
                cast(Manifest.annotations, Text),
                final,
            )
            .join_from(sized, Manifest, Manifest.id == sized.c.id)
            .where(sized.c.before < max_bytes)
            .order_by(sized.c.id)
        )
        with self._database.connect() as connection:
            rows = connection.execute(query).all()
        page = [Referrer(*row[:-1]) for row in rows[:limit]]
        return page, bool(page) and page[-1].id < rows[-1][-1]

    def tagged(
        self,
        *,
        version: int = 0,
        readable: Readable | None = None,
        after: tuple[RepositoryName | str, Tag | str] | None = None,
        limit: int = 1000,
    ) -> list[TaggedManifest]:
        """Tags of all repositories with what they name, by repository and tag, beginning behind `after`.

        Left out are manifests of which it was kept that lists show nothing, and those that have no summary yet while
        a blob of theirs is not here. readable: as for the catalog. version: of the summaries, or a later one.
        """
        summary = and_(ManifestSummary.manifest_id == TagRow.manifest_id, ManifestSummary.version >= version)
        is_new = ManifestSummary.manifest_id.is_(None)
        lacks_blob = exists().where(ManifestBlob.manifest_id == TagRow.manifest_id, ManifestBlob.blob_id.is_(None))
        digest = select(Manifest.digest).where(Manifest.id == TagRow.manifest_id).scalar_subquery()
        query = (
            select(
                Repository.name,
                TagRow.name,
                TagRow.updated_at,
                TagRow.manifest_id,
                ManifestSummary.text,
                case((is_new, digest)),
            )
            .join_from(Repository, TagRow, TagRow.repository_id == Repository.id)
            .outerjoin(ManifestSummary, summary)
            .where(or_(ManifestSummary.text.is_not(None), and_(is_new, ~lacks_blob)))
            .order_by(Repository.name, TagRow.name)
            .limit(min(limit, MAX_PAGE))
        )
        if readable is not None:
            query = query.where(_is_readable(readable))
        if after is not None:
            repository, tag = str(after[0]), str(after[1])
            query = query.where(Repository.name >= repository, or_(Repository.name > repository, TagRow.name > tag))
        with self._database.connect() as connection:
            parts = connection.execute(query).partitions(_FETCHED)
            return [TaggedManifest._make(row) for part in parts for row in part]

    def keep_summaries(self, version: int, summaries: Mapping[int, str | None]) -> None:
        """Keep what lists show of manifests, by their ids; None for nothing. It goes when the manifest goes.

        Only what the manifest's content says for ever may be in it. version: of the code that read it; a later one is
        not overwritten.
        """
        ids = sorted(summaries)
        for start in range(0, len(ids), _BATCH):
            here = select(Manifest.id).where(Manifest.id.in_(ids[start : start + _BATCH])).order_by(Manifest.id)
            with self._database.write() as session:
                locked = session.scalars(here.with_for_update(read=True, key_share=True)).all()
                rows = [{"manifest_id": each, "version": version, "text": summaries[each]} for each in locked]
                if rows:
                    row = insert(session, ManifestSummary)
                    said = {"version": row.excluded.version, "text": row.excluded.text}
                    newer = ManifestSummary.version < version
                    row = row.on_conflict_do_update(index_elements=["manifest_id"], set_=said, where=newer)
                    session.execute(row, rows)


def _sized_referrers(
    name: RepositoryName, digest: Digest, artifact_type: str | None, after: int
) -> Select[*tuple[Any, ...]]:
    """Ids in order, each with the bytes of the manifests before it: so the database can end a page by size."""
    repository_id = select(Repository.id).where(Repository.name == str(name)).scalar_subquery()
    before = func.sum(Manifest.size).over(order_by=Manifest.id) - Manifest.size
    query = select(Manifest.id, before.label("before")).where(
        Manifest.repository_id == repository_id, Manifest.subject == str(digest), Manifest.id > after
    )
    if artifact_type is not None:
        query = query.where(Manifest.artifact_type == _searchable(artifact_type))
    return query.order_by(Manifest.id)


def _is_readable(readable: Readable) -> ColumnElement[bool]:
    """Asked row by row of the repositories in their order: a join would tempt the planner to sort them all."""
    is_named = Namespace.name.in_(readable.namespaces) if readable.namespaces else false()
    is_open = exists().where(Namespace.id == Repository.namespace_id, or_(Namespace.is_private.is_(False), is_named))
    return or_(is_open, Repository.name.in_(readable.repositories)) if readable.repositories else is_open


def _texts(result: Result[str]) -> list[str]:
    return [text for part in result.scalars().partitions(_FETCHED) for text in part]


def _page(n: int | None) -> int:
    return MAX_PAGE if n is None else max(0, min(n, MAX_PAGE))


def _cut(found: Sequence[str], limit: int) -> tuple[list[str], bool]:
    """The page, and whether the extra row was there; a page of nothing has no next one."""
    return list(found[:limit]), len(found) > limit > 0


def _searchable(text: str) -> str:
    """Hostile text as something both databases can compare: PostgreSQL refuses NUL and lone surrogates."""
    return text.encode(errors="replace").decode().replace("\0", "")
