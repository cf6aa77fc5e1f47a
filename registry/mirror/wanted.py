"""What a sync of a mirror is about: what the upstream lists, else what we can name ourselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import exists, or_, select

from registry.mirror.mirrors import Mirror, Mirrors, matches
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import Forbidden, NotFound, RemoteError, RequestRefused, Unauthorized
from registry.remotes.listing import MAX_ENTRIES, list_repositories, list_tags
from registry.remotes.service import Remotes
from registry.remotes.upstream import Upstream
from storage.errors import NameInvalid, NameUnknown, TagInvalid
from storage.models import Manifest, Repository
from storage.reference import DEFAULT_NAMESPACE, DEFAULT_TAG, RepositoryName, Tag
from storage.store import Store

_WITHOUT_LIST: Final = (NotFound, Forbidden, Unauthorized, RequestRefused)  # what registries answer that show none
_NOT_LITERAL: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class WantedTag:
    """must_exist: somebody has named it; else it is only our guess."""

    tag: Tag
    must_exist: bool = True


class Wanted:
    """Of one mirror, in the order of a sync. allow: patterns like the mirror's own, for this sync alone."""

    def __init__(
        self,
        remotes: Remotes,
        store: Store,
        mirrors: Mirrors,
        mirror: Mirror,
        *,
        allow: tuple[str, ...],
        failed: Callable[[str], None],
    ) -> None:
        """failed: told of lists that were refused for another reason than that there is none."""
        self._remotes, self._store, self._mirrors, self._mirror = remotes, store, mirrors, mirror
        self._allowed = replace(mirror, patterns=allow)
        self._patterns = (*mirror.patterns, *allow)
        self._failed = failed

    @contextmanager
    def remote(self, name: RepositoryName | None) -> Iterator[RemoteRepository]:
        """The upstream of a repository, or of none, for one conversation. Raises NameInvalid, RemoteError."""
        path = self._mirror.remote_name(name) if name is not None else RepositoryName(DEFAULT_NAMESPACE)
        upstream = Upstream(self._mirror.upstream, path, self._mirror.token_path)
        with closing(self._remotes.outbound(upstream)) as http:
            yield self._remotes.repository(upstream).over(http)

    def repositories(self) -> list[RepositoryName]:
        """What they are called here, each once."""
        names = self._listed_repositories()
        if names is None:
            names = [*self._named_repositories(), *self._held_repositories()]
        return [name for name in dict.fromkeys(names) if self._is_ours(name) and self._admits(name)]

    def tags(self, name: RepositoryName, remote: RemoteRepository) -> list[WantedTag]:
        """Those of a repository of ours, each once."""
        tags = self._listed_tags(name, remote)
        if tags is None:
            named = dict.fromkeys((*self._held_tags(name), *self._named_tags(name)))
            tags = [WantedTag(tag) for tag in named]
            if Tag(DEFAULT_TAG) not in named:
                tags.append(WantedTag(Tag(DEFAULT_TAG), must_exist=False))
        return [each for each in tags if self._admits(name, each.tag)]

    def _admits(self, name: RepositoryName, tag: Tag | None = None) -> bool:
        return self._mirror.admits(name, tag) and self._allowed.admits(name, tag)

    def _is_ours(self, name: RepositoryName) -> bool:
        """A mirror with a longer prefix may have it."""
        found = self._mirrors.find(name)
        return found is not None and found.prefix == self._mirror.prefix

    def _listed_repositories(self) -> list[RepositoryName] | None:
        try:
            with self.remote(None) as remote:
                found = (self._mirror.local_name(each) for each in list_repositories(remote))
                return [name for name in found if name is not None]
        except _WITHOUT_LIST:
            return None
        except RemoteError as error:
            self._failed(str(error))
            return None

    def _listed_tags(self, name: RepositoryName, remote: RemoteRepository) -> list[WantedTag] | None:
        try:
            return [WantedTag(tag) for tag in list_tags(remote)]
        except _WITHOUT_LIST:
            return None
        except RemoteError as error:
            self._failed(f"{name}: {error}")
            return None

    def _named_repositories(self) -> Iterator[RepositoryName]:
        for pattern in self._patterns:
            below = pattern.partition(":")[0]
            if not _NOT_LITERAL & set(below):
                try:
                    yield RepositoryName(f"{self._mirror.prefix}/{below}")
                except NameInvalid:
                    continue

    def _named_tags(self, name: RepositoryName) -> Iterator[Tag]:
        below = name.text[len(self._mirror.prefix.text) + 1 :]
        for pattern in self._patterns:
            literal = pattern.partition(":")[2]
            if literal and not _NOT_LITERAL & set(literal) and matches(pattern, below, None):
                try:
                    yield Tag(literal)
                except TagInvalid:
                    continue

    def _held_repositories(self) -> list[RepositoryName]:
        prefix = str(self._mirror.prefix)
        below = or_(Repository.name == prefix, Repository.name.startswith(f"{prefix}/", autoescape=True))
        query = select(Repository.name).where(below, exists().where(Manifest.repository_id == Repository.id))
        with self._store.database.connect() as connection:
            names = connection.execute(query.order_by(Repository.name).limit(MAX_ENTRIES)).scalars().all()
        return [RepositoryName(name) for name in names]

    def _held_tags(self, name: RepositoryName) -> list[Tag]:
        try:
            names, _ = self._store.repositories.tags(name)
        except NameUnknown:
            return []
        return [Tag(each) for each in names]
