"""Who refers to a manifest. Spec: "Listing Referrers"."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from flask import Response, json, request
from flask.typing import ResponseReturnValue

from registry.pagination import next_link
from registry.services import store
from storage.digest import Digest
from storage.manifest import OCI_INDEX
from storage.reference import RepositoryName

_PAGE_BYTES = 7 * 2**19  # 3.5 MiB: clients read an index of at most 4


def list_referrers(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-12: an index of the manifests whose subject is `reference`, empty when there is none; paged by size.

    Raises DigestInvalid.
    """
    digest = Digest.parse(reference)
    # a "+" of a media type arrives as a space from clients that do not escape it
    artifact_type = (request.args.get("artifactType") or "").replace(" ", "+") or None
    found = store().repositories.referrers(name, digest, artifact_type)
    page, has_more = _page(found, request.args.get("last"))
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
    response = Response(json.dumps(body, sort_keys=False), content_type=OCI_INDEX)
    if artifact_type is not None:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    if has_more:
        query = {"artifactType": artifact_type} if artifact_type is not None else {}
        path = f"/v2/{name}/referrers/{digest}"
        response.headers["Link"] = next_link(path, {**query, "last": str(page[-1]["digest"])})
    return response


def _page(found: Sequence[dict[str, Any]], last: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Those after `last` that fit into one index, and whether there are more; from the start if `last` is gone."""
    start = next((place + 1 for place, each in enumerate(found) if each["digest"] == last), 0) if last else 0
    page: list[dict[str, Any]] = []
    size = 0
    for each in islice(found, start, None):
        size += len(json.dumps(each)) + 2
        if page and size > _PAGE_BYTES:
            return page, True
        page.append(each)
    return page, False
