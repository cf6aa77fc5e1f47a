"""Manifests on the wire: exact bytes in, exact bytes out. Spec: "Pulling manifests", "Pushing Manifests"."""

from __future__ import annotations

from flask import Response, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge, RequestURITooLarge

from auth.audit import What
from registry.audit import record, record_push
from registry.body import read_body
from registry.conditions import is_current, tag_condition
from registry.heavy import room_to_parse
from registry.services import config, store
from registry.urls import base_url
from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestTooLarge, ManifestUnknown, SizeInvalid, TagInvalid
from storage.manifest import DOCKER_LIST, OCI_INDEX
from storage.reference import RepositoryName, Tag, parse_reference
from storage.repositories import StoredManifest

MANIFEST_MAX_BYTES = 4 * 2**20
_TAGS_MAX = 100
_TAG_LINES = 50


def known_reference(text: str) -> Tag | Digest:
    """The reference to read by; one that cannot exist is simply unknown. Raises ManifestUnknown."""
    try:
        return parse_reference(text)
    except (DigestInvalid, TagInvalid):
        raise ManifestUnknown("no such manifest or tag in this repository", reference=text[:256]) from None


def get_manifest(name: RepositoryName, reference: str) -> Response:
    """end-3, GET and HEAD: the manifest as it was pushed, whatever Accept says. Raises ManifestUnknown, NameUnknown."""
    wanted = known_reference(reference)
    manifest = store().repositories.get_manifest(name, wanted)
    if is_unreadable(manifest, request.headers.get("User-Agent", "")):
        raise ManifestUnknown("this is an index of several manifests; ask for one of them", reference=str(wanted))
    headers = manifest_headers(manifest, is_tag=isinstance(wanted, Tag))
    if is_current(manifest.digest):
        return Response(status=304, headers=headers)
    if request.method == "GET" and g.identity.is_known:  # what nobody in particular may read is not private
        record(What.PULL, repository=name, reference=wanted, detail=str(manifest.digest))
    response = Response(b"" if request.method == "HEAD" else manifest.raw, headers=headers)
    response.headers["Content-Length"] = str(len(manifest.raw))
    return response


def put_manifest(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-7: store a manifest and move its tags, all or nothing.

    Raises DigestInvalid, TagInvalid, ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown, TagMoved,
    RequestURITooLarge.
    """
    target = parse_reference(reference)
    tags = _tag_parameters() if isinstance(target, Digest) else []
    raw = _manifest_body()
    with room_to_parse(raw):
        manifest = store().repositories.put_manifest(
            name,
            target,
            raw,
            request.headers.get("Content-Type"),
            tags=tags,
            allow_sparse=config().allow_sparse,
            principal=g.identity.principal,
            condition=tag_condition(),
        )
    record_push(name, target, manifest, tags)
    response = Response(status=201)
    response.headers["Location"] = f"{base_url()}/v2/{name}/manifests/{manifest.digest}"
    response.headers["Docker-Content-Digest"] = str(manifest.digest)
    if manifest.subject is not None:
        response.headers["OCI-Subject"] = str(manifest.subject)
    for line in _tag_lines(tags):
        response.headers.add("OCI-Tag", line)
    return response


def delete_manifest(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-9: a tag alone, or by digest the manifest with every tag on it. Raises ManifestUnknown, NameUnknown."""
    wanted = known_reference(reference)
    store().repositories.delete_manifest(name, wanted)
    record(What.DELETE_TAG if isinstance(wanted, Tag) else What.DELETE_MANIFEST, repository=name, reference=wanted)
    return Response(status=202)


def _tag_lines(tags: list[Tag]) -> list[str]:
    """A header line a tag, as every client reads it; joined where there are many: clients refuse a hundred lines."""
    texts = [str(tag) for tag in tags]
    return texts if len(texts) <= _TAG_LINES else [",".join(texts)]


def _tag_parameters() -> list[Tag]:
    """Each tag of the query once. Raises TagInvalid, RequestURITooLarge."""
    texts = request.args.getlist("tag")
    if len(texts) > _TAGS_MAX:
        raise RequestURITooLarge(f"at most {_TAGS_MAX} tags in one push")
    return [Tag.parse(text) for text in dict.fromkeys(texts)]


def _manifest_body() -> bytes:
    """All of it. Raises ManifestTooLarge, SizeInvalid."""
    try:
        raw = read_body(MANIFEST_MAX_BYTES)
    except RequestEntityTooLarge:
        raise ManifestTooLarge("a manifest may have at most 4 MiB", limit=MANIFEST_MAX_BYTES) from None
    except OSError:
        raise SizeInvalid("the body ended before its end") from None
    if request.content_length not in (None, len(raw)):  # what arrived may be JSON all the same
        raise SizeInvalid("the body ended before its end", length=request.content_length, received=len(raw))
    return raw


def is_unreadable(manifest: StoredManifest, user_agent: str) -> bool:
    """Whether the client would take an index for a model without layers, and report success."""
    return user_agent.startswith("ollama/") and manifest.media_type in (OCI_INDEX, DOCKER_LIST)


def manifest_headers(manifest: StoredManifest, *, is_tag: bool) -> dict[str, str]:
    """What every answer with the manifest says of it, whether or not it carries the bytes."""
    digest = str(manifest.digest)
    headers = {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Cache-Control": "no-cache" if is_tag else "private, max-age=31536000, immutable",
        "ollama-push-time": str(int(manifest.pushed_at)),
    }
    if manifest.digest.algorithm == "sha256":
        headers["ollama-content-digest"] = manifest.digest.encoded
    return headers
