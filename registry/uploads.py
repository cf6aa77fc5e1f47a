"""Upload sessions on the wire. Spec: "Pushing blobs", "Pushing a blob in chunks"."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from flask import Response, g, request
from flask.typing import ResponseReturnValue

from auth.access import Right, current_gate
from registry import direct_uploads
from registry.blobs import blob_created
from registry.body import RequestBody, read_body
from registry.chunk_headers import chunk_range, may_repeat
from registry.errors import refusal
from registry.services import store
from registry.urls import base_url
from storage.digest import Digest
from storage.errors import (
    BlobUnknown,
    ChunkOutOfOrder,
    DigestInvalid,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    StorageError,
    UploadBusy,
    UploadUnknown,
)
from storage.reference import RepositoryName
from storage.upload import Upload

_IGNORED_BODY_BYTES = 64 * 2**10
_SHORT_BODY_BYTES = 2**20  # one read of a longer one takes as much memory


def start_upload(name: RepositoryName, can_pull: Callable[[RepositoryName], bool]) -> ResponseReturnValue:
    """end-4 and end-11: open a session, take a whole blob, or mount one that the caller may read.

    Raises DigestInvalid, SizeInvalid, Unauthorized.
    """
    mount, digest = request.args.get("mount"), request.args.get("digest")
    if mount is not None and _mount(name, Digest.parse(mount), can_pull):
        return blob_created(name, Digest.parse(mount), base_url())
    if digest is not None and mount is None:
        return _with_digest(name, Digest.parse(digest))
    algorithm = request.args.get("digest-algorithm")
    upload = _open(name, _algorithm(algorithm))
    if RequestBody().discard(_IGNORED_BODY_BYTES) > _IGNORED_BODY_BYTES:
        upload.cancel()
        raise SizeInvalid(
            "a body needs ?digest=; open the session first and PATCH the bytes", limit=_IGNORED_BODY_BYTES
        )
    return _progress(name, upload, 202)


def append_chunk(name: RepositoryName, upload_id: str) -> ResponseReturnValue:
    """end-5: append the body; 202 with the offset reached, or 307 to where its part belongs.

    Raises UploadUnknown, SizeInvalid; a chunk out of order is answered 416 with the offset to go on from.
    """
    upload = _resume(name, upload_id)
    try:
        chunk = chunk_range()
        if (elsewhere := direct_uploads.redirect_part(upload, chunk, _session_url(name, upload))) is not None:
            return elsewhere
        upload.append(_body(), chunk=chunk, length=request.content_length, may_repeat=may_repeat(chunk))
    except (ChunkOutOfOrder, UploadBusy) as error:
        return _out_of_order(name, upload, error)
    return _progress(name, upload, 202)


def complete_upload(name: RepositoryName, upload_id: str) -> ResponseReturnValue:
    """end-6: append the last chunk, if any, and commit; 201 with the blob's Location.

    A session whose own body did not match its digest is thrown away; one without a body is kept, the client may have
    mistyped. A repeated PUT of a finished session gets the first answer. Raises UploadUnknown, DigestInvalid.
    """
    digest = Digest.parse(request.args.get("digest", ""))
    if _was_finished(name, upload_id, digest):
        return blob_created(name, digest, base_url())
    try:
        return _complete(name, upload_id, digest)
    except UploadUnknown:
        if _was_finished(name, upload_id, digest):  # by the first of two equal requests, while the second waited
            return blob_created(name, digest, base_url())
        raise


def _was_finished(name: RepositoryName, upload_id: str, digest: Digest) -> bool:
    """Whether this PUT has been carried out already, and what it stored is still here."""
    return store().uploads.finished(name, upload_id) == digest and _is_linked(name, digest)


def _complete(name: RepositoryName, upload_id: str, digest: Digest) -> Response:
    upload = _resume(name, upload_id)
    try:
        if not request.content_length and "HTTP_TRANSFER_ENCODING" not in request.environ:
            direct_uploads.commit(upload, digest)
        else:
            upload.complete(_body(), digest, chunk=chunk_range(), length=request.content_length)
    except (ChunkOutOfOrder, UploadBusy) as error:
        return _out_of_order(name, upload, error)
    return blob_created(name, digest, base_url())


def upload_status(name: RepositoryName, upload_id: str) -> ResponseReturnValue:
    """end-13: how far the session has come. Raises UploadUnknown."""
    upload = _resume(name, upload_id)
    with suppress(UploadBusy):  # somebody goes on with it
        upload.recover()
    return _progress(name, upload, 204)


def cancel_upload(name: RepositoryName, upload_id: str) -> ResponseReturnValue:
    """end-14: give the session up and free its bytes. Raises UploadUnknown."""
    _resume(name, upload_id).cancel()
    return Response(status=204)


def _open(name: RepositoryName, algorithm: str | None) -> Upload:
    bearer_id = current_gate().bearer_id()
    return store().uploads.start(name, principal=g.identity.principal, algorithm=algorithm, opened_with=bearer_id)


def _resume(name: RepositoryName, upload_id: str) -> Upload:
    return store().uploads.resume(name, upload_id, principal=g.identity.principal)


def _with_digest(name: RepositoryName, digest: Digest) -> ResponseReturnValue:
    """POST ?digest=: the whole blob in the body, or, with an empty one, a session announced with its digest."""
    if 0 < (request.content_length or 0) <= _SHORT_BODY_BYTES:
        store().blobs.put(name, _short_body(), digest=digest, principal=g.identity.principal)
        return blob_created(name, digest, base_url())
    upload = _open(name, digest.algorithm)
    is_chunked = bool(request.environ.get("HTTP_TRANSFER_ENCODING"))
    if not request.content_length and not is_chunked:
        if digest == Digest.of(b"", digest.algorithm):
            upload.commit(digest)
            return blob_created(name, digest, base_url())
        if _is_linked(name, digest):
            upload.cancel()
            return blob_created(name, digest, base_url())
        response = _progress(name, upload, 202)
        direct_uploads.offer_whole(upload, digest, response)
        return response
    try:
        upload.complete(_body(), digest, length=request.content_length)
    except BaseException:
        with suppress(UploadUnknown):
            upload.cancel()  # nobody was told its id
        raise
    return blob_created(name, digest, base_url())


def _short_body() -> bytes:
    """All of it: such a push has no session that could keep a part. Raises SizeInvalid."""
    try:
        data = read_body(_SHORT_BODY_BYTES)
    except OSError:
        data = b""
    if len(data) != request.content_length:
        raise SizeInvalid("the body ended before its end")
    return data


def _is_linked(name: RepositoryName, digest: Digest) -> bool:
    try:
        store().blobs.stat(name, digest)
    except (BlobUnknown, NameUnknown):
        return False
    store().blobs.renew_lease(name, digest, principal=g.identity.principal)
    return True


def _mount(name: RepositoryName, digest: Digest, can_pull: Callable[[RepositoryName], bool]) -> bool:
    """Whether the blob was mounted; a source that is wrong, unknown or forbidden says no more than "not here"."""
    source_text = request.args.get("from")
    if source_text is None:
        sources = store().blobs.holders(digest)
    else:
        try:
            sources = [RepositoryName.parse(source_text)]
        except NameInvalid:  # the ollama client names files and other registries' models here
            return False
        if not can_pull(sources[0]):
            # Clients keep the token of their first request; without the challenge they would send gigabytes that are
            # here. Whether the blob is in the source plays no part, or a narrow token could tell.
            current_gate().ask_for_more(Right.PUSH, (name, "push"), also=(sources[0], "pull"))
    mount, principal = store().blobs.mount, g.identity.principal
    return any(can_pull(source) and mount(digest, source=source, into=name, principal=principal) for source in sources)


def _algorithm(text: str | None) -> str | None:
    if text is not None and text not in ("sha256", "sha512"):
        raise DigestInvalid("digest-algorithm must be sha256 or sha512", algorithm=text[:64])
    return text


def _body() -> BinaryIO:
    return RequestBody()  # type: ignore[return-value]  # append only reads


def _progress(name: RepositoryName, upload: Upload, status: int) -> Response:
    response = Response(status=status)
    if (digest := upload.digest_so_far()) is not None:
        encoded = b64encode(bytes.fromhex(digest.encoded)).decode()
        response.headers["Repr-Digest"] = f"sha-256=:{encoded}:"  # RFC 9530: a client can tell which part was damaged
    response.headers.update(_session_headers(name, upload))
    response.headers["Content-Length"] = "0"
    return response


def _session_headers(name: RepositoryName, upload: Upload) -> dict[str, str]:
    return {
        # absolute: the ollama client resolves no relative one
        "Location": _session_url(name, upload),
        "Range": f"0-{max(upload.offset - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
        "X-Upload-Offset": str(upload.offset),  # 0-0 means no byte or one; this tells
    }


def _session_url(name: RepositoryName, upload: Upload) -> str:
    return f"{base_url()}/v2/{name}/blobs/uploads/{upload.id}"


def _out_of_order(name: RepositoryName, upload: Upload, error: StorageError) -> Response:
    """416 with the offset to go on from; the session lives, and what was sent in vain is read away."""
    RequestBody().discard(2**20)
    response = refusal(error)
    response.headers.update(_session_headers(name, _resume(name, upload.id)))
    return response
