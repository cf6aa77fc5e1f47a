"""Lists of tags and repositories, in byte order. Spec: "Listing Tags"."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, json
from flask.typing import ResponseReturnValue

from registry.errors import PaginationInvalid
from registry.pagination import link_to_next, requested_page
from registry.services import store
from storage.listing import MAX_PAGE, Readable
from storage.reference import RepositoryName

_REPOSITORIES_DEFAULT, _REPOSITORIES_MOST = 100, 1000


def list_tags(name: RepositoryName, _reference: str) -> ResponseReturnValue:
    """end-8: a page of the repository's tags. Raises NameUnknown, PaginationInvalid."""
    page = requested_page(default=MAX_PAGE, most=MAX_PAGE)
    tags, has_more = store().repositories.tags(name, n=page.n, last=page.last)
    response = _json({"name": str(name), "tags": tags})
    if has_more:
        response.headers.update(link_to_next(f"/v2/{name}/tags/list", page, tags[-1]))
    return response


def list_repositories(may_list: Callable[[], Readable | None]) -> ResponseReturnValue:
    """_catalog: a page of the repositories that the caller may read. Raises PaginationInvalid.

    Others show in no list and in no Link: the query itself leaves them out.
    """
    page = requested_page(default=_REPOSITORIES_DEFAULT, most=_REPOSITORIES_MOST + 1)
    if page.n > _REPOSITORIES_MOST:
        raise PaginationInvalid(f"n may be at most {_REPOSITORIES_MOST}", n=page.n)
    names, has_more = store().repositories.catalog(n=page.n, last=page.last, readable=may_list())
    response = _json({"repositories": names})
    if has_more:
        response.headers.update(link_to_next("/v2/_catalog", page, names[-1]))
    return response


def _json(body: object) -> Response:
    return Response(json.dumps(body), content_type="application/json")
