"""Lists of tags and repositories, in byte order. Spec: "Listing Tags"."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, json
from flask.typing import ResponseReturnValue

from registry.errors import PaginationInvalid
from registry.pagination import Page, link_to_next, requested_page
from registry.services import store
from storage.reference import RepositoryName

_TAGS_MOST = 10_000
_REPOSITORIES_DEFAULT, _REPOSITORIES_MOST = 100, 1000
_SCANS_MOST = 1000  # pages looked through for one answer


def list_tags(name: RepositoryName, _reference: str) -> ResponseReturnValue:
    """end-8: a page of the repository's tags. Raises NameUnknown, PaginationInvalid."""
    page = requested_page(default=_TAGS_MOST, most=_TAGS_MOST)
    tags, has_more = store().repositories.tags(name, n=page.n, last=page.last)
    response = _json({"name": str(name), "tags": tags})
    if has_more and tags:
        response.headers.update(link_to_next(f"/v2/{name}/tags/list", page, tags[-1]))
    return response


def list_repositories(can_pull: Callable[[RepositoryName], bool]) -> ResponseReturnValue:
    """_catalog: a page of the repositories that the caller may read. Raises PaginationInvalid."""
    page = requested_page(default=_REPOSITORIES_DEFAULT, most=_REPOSITORIES_MOST + 1)
    if page.n > _REPOSITORIES_MOST:
        raise PaginationInvalid(f"n may be at most {_REPOSITORIES_MOST}", n=page.n)
    names, has_more = _readable(page, can_pull)
    response = _json({"repositories": names})
    if has_more and names:
        response.headers.update(link_to_next("/v2/_catalog", page, names[-1]))
    return response


def _readable(page: Page, can_pull: Callable[[RepositoryName], bool]) -> tuple[list[str], bool]:
    """A page of names that the caller may read; others show in no list and in no Link."""
    found: list[str] = []
    last, has_more = page.last, page.n > 0
    for _ in range(_SCANS_MOST):
        if not has_more or len(found) > page.n:
            break
        names, has_more = store().repositories.catalog(n=_REPOSITORIES_MOST, last=last)
        found += [name for name in names if can_pull(RepositoryName.parse(name))]
        last = names[-1] if names else last
    return found[: page.n], len(found) > page.n


def _json(body: object) -> Response:
    return Response(json.dumps(body), content_type="application/json")
