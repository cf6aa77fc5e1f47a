"""HEAD and POST /api/blobs/<digest>: bytes that a model is to be made of.

Source: the Ollama API, "HEAD / POST /api/blobs/:digest".
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import Final

from flask import Blueprint, Response, request

from registry.body import RequestBody
from registry.models.staging import Staging
from runtime.api.errors import Refused
from runtime.api.replies import refusal
from runtime.errors import RuntimeFailure
from storage.digest import Digest
from storage.errors import DigestInvalid, UploadUnknown

_DIGEST: Final = re.compile(r"sha256[:-](?P<hex>[0-9a-fA-F]{64})")
_READ_BYTES: Final = 2**20
_SLACK_BYTES: Final = 64 * 2**20

bp = Blueprint("models_blobs", __name__)


@bp.errorhandler(RuntimeFailure)
def _refused(error: RuntimeFailure) -> Response:
    """A client that still sends would not see the answer."""
    RequestBody().discard(_READ_BYTES)
    return refusal(error)


@bp.route("/api/blobs/<digest>", methods=["HEAD"])
def has_blob(digest: str) -> Response:
    """200 for what the caller uploaded or may read; it then stays for long enough to create a model of it."""
    if Staging.of_caller().find(parse_digest(digest)) is None:
        raise Refused(404, f'blob "{digest}" not found')
    return Response(status=200)


@bp.post("/api/blobs/<digest>")
def put_blob(digest: str) -> Response:
    """Store the body, sized or chunked, under its digest; 200 where it is here already."""
    wanted, staging = parse_digest(digest), Staging.of_caller()
    known = staging.find(wanted)
    if known is not None:
        _read_away(known.size + _SLACK_BYTES)
        return Response(status=200)
    if digest != str(wanted):  # as the reference has it: what was hashed is compared with the text of the request
        raise _mismatch(digest, _hash_body())
    _receive(staging, wanted)
    return Response(status=201)


def parse_digest(text: str) -> Digest:
    """`sha256:` or `sha256-` and 64 hexadecimal digits, in any case. Raises Refused."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise Refused(400, "invalid digest format")
    return Digest("sha256", match["hex"].lower())


def _receive(staging: Staging, wanted: Digest) -> None:
    """The whole body or nothing of it: nobody is told how to go on with a part. Raises Refused, OSError."""
    upload = staging.store.uploads.start(staging.place, principal=staging.principal, algorithm=wanted.algorithm)
    try:
        upload.complete(RequestBody(), wanted, length=request.content_length)  # type: ignore[arg-type]  # only read
    except BaseException as error:
        with suppress(UploadUnknown):
            upload.cancel()
        if isinstance(error, DigestInvalid):
            raise _mismatch(str(wanted), str(error.detail["received"])) from None
        raise


def _mismatch(expected: str, received: str) -> Refused:
    return Refused(400, f'digest mismatch, expected "{expected}", got "{received}"')


def _read_away(limit: int) -> None:
    """Clients see a broken connection in place of an answer that comes while they send.

    The connection's own patience bounds the time. Raises BodyBroken.
    """
    body, total = RequestBody(), 0
    while total <= limit and (piece := body.read(_READ_BYTES)):
        total += len(piece)


def _hash_body() -> str:
    body, hasher = RequestBody(), hashlib.sha256()
    while piece := body.read(_READ_BYTES):
        hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"
