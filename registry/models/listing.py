"""GET /api/tags: every tag that names a model. Source: the Ollama API, "GET /api/tags".

There may be tens of thousands, so a model is read once and its part of the answer kept, as text, beside its manifest;
a list then is one query for each 10,000 tags, and no parsing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Final

from flask import Blueprint, Response

from auth.access import current_gate
from registry.services import store
from runtime.api.durations import local_time
from runtime.api.replies import encode
from runtime.summary import summary
from storage.digest import Digest
from storage.errors import StorageError
from storage.listing import MAX_PAGE, Readable, TaggedManifest
from storage.reference import ModelName, RepositoryName, Tag

SUMMARY_VERSION: Final = 2  # higher whenever models are described in another way: what was kept is made anew then
_MAX_PAGES: Final = 100
_KEPT_AT_ONCE: Final = 500
_REMEMBERED: Final = 32_768
_ANY_TAG: Final = Tag("latest")
_UPDATED_AT: Final = attrgetter("updated_at")

bp = Blueprint("models_listing", __name__)
log = logging.getLogger("tonnage.models")


@bp.get("/api/tags")
def tags() -> Response:
    """The stored models that the caller may see, the newest first; images and other artifacts are not among them."""
    models = ",".join(_entry(row, model, described) for row, model, described in listed())
    return Response(f'{{"models":[{models}]}}', content_type="application/json; charset=utf-8")


def listed() -> Iterator[tuple[TaggedManifest, str, str]]:
    """Each model of the list: its row, its name but for the tag, and the JSON object that describes it."""
    rows = sorted(_rows(current_gate().may_see_all()), key=_UPDATED_AT, reverse=True)
    summaries = _described({row.manifest_id: row for row in rows if row.digest is not None})
    for row in rows:
        model, described = _display(row.repository), row.summary or summaries.get(row.manifest_id)
        if model is not None and described is not None:
            yield row, model, described


def _rows(readable: Readable | None) -> Iterator[TaggedManifest]:
    after = None
    for _ in range(_MAX_PAGES):
        rows = store().repositories.tagged(version=SUMMARY_VERSION, readable=readable, after=after, limit=MAX_PAGE)
        yield from rows
        if len(rows) < MAX_PAGE:
            return
        after = (rows[-1].repository, rows[-1].tag)


def _entry(row: TaggedManifest, model: str, described: str) -> str:
    """One model as JSON text; `described` is an object that is never empty, and goes on where this begins."""
    name = f"{model}:{row.tag}"  # none of these texts can hold what JSON must escape
    return f'{{"name":"{name}","model":"{name}","modified_at":"{_modified(row.updated_at)}",{described[1:]}'


@lru_cache(_REMEMBERED)
def _display(repository: str) -> str | None:
    """The model's name but for the tag; None if no model can have that name."""
    name = ModelName.of(RepositoryName(repository), _ANY_TAG)
    return name.display.removesuffix(f":{_ANY_TAG}") if name is not None else None


_modified = lru_cache(_REMEMBERED)(local_time)


def _described(rows: Mapping[int, TaggedManifest]) -> dict[int, str | None]:
    """What to show of manifests that nobody has described yet, by id; kept for all that ask later."""
    found: dict[int, str | None] = {}
    unkept: dict[int, str | None] = {}
    for manifest_id, row in rows.items():
        try:
            unkept[manifest_id] = _describe(row)
        except StorageError as error:  # a mirror lists what it does not hold yet
            log.debug("cannot read %s:%s: %s", row.repository, row.tag, error)
        except Exception:  # one odd model must not hide all the others
            log.exception("cannot describe %s:%s", row.repository, row.tag)
        if len(unkept) >= _KEPT_AT_ONCE:
            found |= _keep(unkept)
            unkept = {}
    return found | _keep(unkept)


def _describe(row: TaggedManifest) -> str | None:
    """A JSON object; None for what is no model."""
    digest = Digest.parse(row.digest or "")
    found = summary(store(), RepositoryName(row.repository), digest)
    if found is None:
        return None
    shown = {"size": found.size, "digest": digest.encoded, "details": found.details, **found.remote}
    told = {"capabilities": found.capabilities, "reason": found.reason}  # the second is ours: why it cannot run
    return encode(shown | {key: value for key, value in told.items() if value}).decode()


def _keep(summaries: dict[int, str | None]) -> dict[int, str | None]:
    try:
        store().repositories.keep_summaries(SUMMARY_VERSION, summaries)
    except StorageError as error:  # the list is no worse for it; the next one describes them again
        log.warning("cannot keep what lists show of %d models: %s", len(summaries), error)
    return summaries
