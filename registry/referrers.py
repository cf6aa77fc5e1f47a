"""Who refers to a manifest. Spec: "Listing Referrers"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from flask import Response, request
from flask.typing import ResponseReturnValue

from registry.pagination import next_link
from registry.services import store
from storage.digest import Digest
from storage.listing import Referrer
from storage.manifest import OCI_INDEX
from storage.reference import RepositoryName

_PAGE_BYTES: Final = 7 * 2**19  # 3.5 MiB: clients read an index of at most 4
_PLACE_DIGITS: Final = 18  # of a 64-bit id


def list_referrers(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-12: an index of the manifests whose subject is `reference`, empty when there is none; in pages.

    Raises DigestInvalid.
    """
    digest = Digest.parse(reference)
    # a "+" of a media type arrives as a space from clients that do not escape it
    artifact_type = (request.args.get("artifactType") or "").replace(" ", "+") or None
    found, has_more = store().repositories.referrers(
        name, digest, artifact_type, after=_place(request.args.get("last"))
    )
    descriptors = _page(found)
    body = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{",".join(descriptors)}]}}'
    response = Response(body, content_type=OCI_INDEX)
    if artifact_type is not None:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    if has_more or len(descriptors) < len(found):
        query = {"artifactType": artifact_type} if artifact_type is not None else {}
        last = str(found[len(descriptors) - 1].id)
        response.headers["Link"] = next_link(f"/v2/{name}/referrers/{digest}", {**query, "last": last})
    return response


def _place(last: str | None) -> int:
    """What our own Link said; the beginning for anything else."""
    is_ours = last is not None and last.isascii() and last.isdecimal() and len(last) <= _PLACE_DIGITS
    return int(last) if last is not None and is_ours else 0


def _page(found: Sequence[Referrer]) -> list[str]:
    """The descriptors that fit into one index, one at least."""
    page: list[str] = []
    size = 0
    for each in found:
        descriptor = _descriptor(each)
        size += len(descriptor) + 1  # all of it is ASCII
        if page and size > _PAGE_BYTES:
            break
        page.append(descriptor)
    return page


@lru_cache(256)
def _quoted(media_type: str) -> str:
    return json.dumps(media_type)


def _descriptor(referrer: Referrer) -> str:
    """As JSON text: thousands of annotations would take long to read, only to be written again."""
    _, media_type, digest, size, artifact_type, annotations = referrer
    text = f'{{"mediaType":{_quoted(media_type)},"digest":"{digest}","size":{size}'
    if artifact_type:
        text += f',"artifactType":{_quoted(artifact_type)}'
    if annotations and annotations != "{}":
        text += f',"annotations":{annotations}'
    return text + "}"
