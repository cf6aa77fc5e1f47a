"""Blobs on the wire: HEAD, GET with ranges, DELETE. Spec: "Pulling blobs", "Deleting Blobs"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import PreconditionFailed

from auth.access import current_gate
from registry.conditions import is_current
from registry.errors import RangeInvalid, refusal
from registry.multipart import Multipart
from registry.ranges import MAX_RANGES, ByteRange, parse_ranges
from registry.redirects import redirected, store_address
from registry.services import store
from storage.digest import Digest
from storage.errors import BlobUnknown, DigestInvalid
from storage.reference import RepositoryName

_READ_BYTES = 2**20


def known_digest(text: str) -> Digest:
    """The digest to read by; one that cannot exist is simply unknown. Raises BlobUnknown."""
    try:
        return Digest.parse(text)
    except DigestInvalid:
        raise BlobUnknown("no such blob in this repository", digest=text[:256]) from None


def get_blob(name: RepositoryName, reference: str, *, may_lease: bool = True) -> Response:
    """end-2, GET and HEAD: the bytes of a blob that this repository links to.

    may_lease: whether a HEAD by who may push makes the blob stay until their manifest comes.
    Raises BlobUnknown, NameUnknown, PreconditionFailed.
    """
    digest = known_digest(reference)
    if may_lease and request.method == "HEAD" and current_gate().may(name, "push"):
        # a client that sees the blob skips its upload
        blob = store().blobs.renew_lease(name, digest, principal=current_gate().identify().principal)
    else:
        blob = store().blobs.stat(name, digest)
    return blob_response(
        name,
        digest,
        blob.size,
        lambda start: store().blobs.open(name, digest, start=start),
        elsewhere=store_address(blob),
    )


def blob_response(
    name: RepositoryName,
    digest: Digest,
    size: int,
    open_at: Callable[[int], BinaryIO],
    *,
    parts: int = MAX_RANGES,
    elsewhere: Callable[[int], str | None] = lambda size: None,
) -> Response:
    """The answer to GET or HEAD of a blob, as its headers want it. open_at: asked once at most, for a reader.

    parts: most ranges in one answer; with more the whole blob is sent. elsewhere: asked where the client may fetch so
    many bytes, if anywhere. Raises PreconditionFailed.
    """
    headers = _headers(name, digest)
    _check_if_match(digest)
    if is_current(digest):
        return Response(status=304, headers=headers)
    if request.method == "HEAD":
        return _sized(Response(headers=headers), size)
    try:
        wanted = parse_ranges(_honoured_range(digest), size)
    except RangeInvalid as error:
        refused = refusal(error)
        refused.headers["Content-Range"] = f"bytes */{size}"
        return refused
    if len(wanted) <= 1 and (url := elsewhere(sum(each.size for each in wanted) or size)) is not None:
        return redirected(url, digest)
    return _with_bytes(headers, () if len(wanted) > parts else wanted, size, open_at)


def _with_bytes(
    headers: dict[str, str], wanted: Sequence[ByteRange], size: int, open_at: Callable[[int], BinaryIO]
) -> Response:
    """200 with all bytes where none are wanted in particular, else 206 with those."""
    if not wanted:
        return _sized(Response(file_body(open_at(0), size), headers=headers, direct_passthrough=True), size)
    if len(wanted) > 1:
        return _parts(headers, wanted, size, open_at(0))
    (only,) = wanted
    body = file_body(open_at(only.first), only.size)
    partial = _sized(Response(body, 206, headers=headers, direct_passthrough=True), only.size)
    partial.headers["Content-Range"] = f"bytes {only.first}-{only.last}/{size}"
    return partial


def delete_blob(name: RepositoryName, reference: str) -> ResponseReturnValue:
    """end-10: unlink a blob that no manifest of the repository lists. Raises BlobUnknown, BlobReferenced."""
    store().blobs.unlink(name, known_digest(reference))
    return Response(status=202)


def blob_created(name: RepositoryName, digest: Digest, base_url: str) -> Response:
    """The 201 of every way to bring a blob in."""
    headers = {"Location": f"{base_url}/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return Response(status=201, headers=headers)


def file_body(file: BinaryIO, size: int) -> Iterable[bytes]:
    """A body of `size` bytes from where `file` stands: by sendfile where server and file can."""
    wrapper = request.environ.get("wsgi.file_wrapper")
    if wrapper is not None and "gunicorn.socket" in request.environ and _has_descriptor(file):
        body: Iterable[bytes] = wrapper(file, _READ_BYTES)
        return body
    return _pieces(file, size)


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError):
        return False
    return True


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        while size > 0 and (piece := file.read(min(_READ_BYTES, size))):
            size -= len(piece)
            yield piece


def _headers(name: RepositoryName, digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        # private: whether a stranger may read it is decided on each request, not by a shared cache
        "Cache-Control": "private, max-age=31536000, immutable",
        # the ollama client takes the address of its ranged requests from here, and fails without it
        "Location": current_gate().blob_location(name, digest),
    }


def _sized(response: Response, size: int) -> Response:
    response.headers["Content-Length"] = str(size)
    return response


def _parts(headers: dict[str, str], wanted: Sequence[ByteRange], size: int, file: BinaryIO) -> Response:
    """206 with several ranges, each with its own Content-Range inside the body."""
    parts = Multipart.of(wanted, size, headers["Content-Type"])
    headers["Content-Type"] = parts.content_type
    return _sized(Response(parts.stream(file), 206, headers=headers, direct_passthrough=True), parts.size)


def _check_if_match(digest: Digest) -> None:
    """Raises PreconditionFailed when If-Match lists other content only."""
    listed = request.headers.get("If-Match")
    if listed is not None and not {"*", f'"{digest}"'} & {tag.strip() for tag in listed.split(",")}:
        raise PreconditionFailed("the blob is none of those that If-Match lists")


def _honoured_range(digest: Digest) -> str | None:
    """The Range header, unless If-Range names another state of the blob."""
    if_range = request.headers.get("If-Range")
    return None if if_range is not None and if_range != f'"{digest}"' else request.headers.get("Range")
