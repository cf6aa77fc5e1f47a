"""GET /api/tags: every tag that names a model. Source: the Ollama API, "GET /api/tags"."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

from flask import Blueprint, Response

from auth.access import current_gate
from registry.services import store
from runtime.api.durations import local_time
from runtime.api.replies import one_object
from runtime.model import summary
from storage.errors import StorageError
from storage.reference import ModelName
from storage.repositories import TaggedManifest

JSON = dict[str, Any]
_PAGE = 1000
_MAX_PAGES = 1000

bp = Blueprint("models_listing", __name__)
log = logging.getLogger("tonnage.models")


@bp.get("/api/tags")
def tags() -> Response:
    """The stored models that the caller may see, the newest first; images and other artifacts are not among them."""
    may_see = cache(current_gate().may_see)
    rows = sorted((row for row in _rows() if may_see(row.repository)), key=lambda row: -int(row.updated_at))
    entries = (_entry(row) for row in rows)
    return one_object({"models": [entry for entry in entries if entry is not None]})


def _rows() -> Iterator[TaggedManifest]:
    after = None
    for _ in range(_MAX_PAGES):
        rows = store().repositories.tagged(after=after, limit=_PAGE)
        yield from rows
        if len(rows) < _PAGE:
            return
        after = (rows[-1].repository, rows[-1].tag)


def _entry(row: TaggedManifest) -> JSON | None:
    name = ModelName.of(row.repository, row.tag)
    if name is None:
        return None
    try:
        found = summary(store(), row.repository, row.digest)
    except StorageError as error:  # a mirror lists what it does not hold yet
        log.debug("cannot read %s: %s", name, error)
        return None
    except Exception:  # one odd model must not hide all the others
        log.exception("cannot describe %s", name)
        return None
    if found is None:
        return None
    entry: JSON = {
        "name": name.display,
        "model": name.display,
        "modified_at": local_time(row.updated_at),
        "size": found.size,
        "digest": row.digest.encoded,
        "details": found.details,
    }
    return entry | ({"capabilities": found.capabilities} if found.capabilities else {})
