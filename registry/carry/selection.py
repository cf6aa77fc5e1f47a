"""From what people type to the models of the store that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final

from registry.carry.errors import ExportRefused
from registry.carry.layout import ModelAt
from registry.remotes.text import one_line
from storage.errors import ManifestUnknown, NameInvalid, NameUnknown, TagInvalid
from storage.reference import ModelName, RepositoryName, Tag
from storage.repositories import Repositories

MAX_MODELS: Final = 20_000
_WILD: Final = frozenset("*?[")


def chosen(repositories: Repositories, names: Iterable[str]) -> list[ModelAt]:
    """The models that `names` mean, each once, in order. Raises ExportRefused for a name that means none.

    A name is a model's as on /api; a repository without a tag means `latest`. One with `*` in it means every tag whose
    `repository:tag` it fits, where `*` also stands for slashes and colons.
    """
    found: set[ModelAt] = set()
    for name in names:
        found |= set(_fitting(repositories, name)) if _WILD & set(name) else {_named(repositories, name)}
    if len(found) > MAX_MODELS:
        raise ExportRefused(f"more than {MAX_MODELS} models are too many for one archive; name fewer")
    return sorted(found)


def _fitting(repositories: Repositories, pattern: str) -> list[ModelAt]:
    wanted = pattern.lower()
    found = [at for at in _all(repositories) if any(fnmatchcase(text.lower(), wanted) for text in _spellings(at))]
    if not found:
        raise ExportRefused(f"no model here is called {one_line(pattern)}")
    return found


def _spellings(at: ModelAt) -> set[str]:
    """The full name, and the short one that lists show."""
    short = ModelName.of(at.repository, at.tag)
    return {str(at), short.display if short is not None else str(at)}


def _all(repositories: Repositories) -> Iterator[ModelAt]:
    """Every tag of every repository, a page at a time."""
    last: str | None = None
    while True:
        page, has_more = repositories.catalog(last=last)
        for name in page:
            yield from _tags(repositories, RepositoryName(name))
        if not has_more:
            return
        last = page[-1]


def _tags(repositories: Repositories, name: RepositoryName) -> Iterator[ModelAt]:
    last: str | None = None
    while True:
        try:
            page, has_more = repositories.tags(name, last=last)
        except NameUnknown:  # it went since it was listed
            return
        yield from (ModelAt(name, Tag(tag)) for tag in page)
        if not has_more:
            return
        last = page[-1]


def _named(repositories: Repositories, text: str) -> ModelAt:
    try:
        at = _parse(text)
        return ModelAt(at.repository, repositories.resolve_tag(at.repository, at.tag))
    except (NameInvalid, TagInvalid) as error:
        raise ExportRefused(f"{one_line(text)} is no model's name: {error}") from error
    except (NameUnknown, ManifestUnknown):
        raise ExportRefused(f"no model here is called {one_line(text)}; `tonnage list` shows those there are") from None


def _parse(text: str) -> ModelAt:
    """A model's name, or that of a repository with more parts than a model's has."""
    try:
        name = ModelName.parse(text)
    except NameInvalid:
        return ModelAt.parse(text)
    return ModelAt(name.repository, name.tag)
