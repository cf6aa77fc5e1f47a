"""Every refusal as HTTP, in one table a face. Spec: "Error Codes"."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flask import Flask, Response, current_app, g, json, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from auth.errors import AccessDenied, AuthError, Unauthorized
from auth.signed_urls import is_signed
from registry.audit import note
from registry.body import BodyBroken, RequestBody
from registry.paths import Kind, split_path
from registry.remotes.errors import UpstreamBusy, UpstreamFailed
from runtime.api.anthropic import errors as anthropic
from runtime.api.openai import errors as openai
from storage import errors as storage

_GO = "Go-http-client/"
_DRAIN_BYTES = 2**20
_FULL_DRAIN_BYTES = 64 * 2**20
log = logging.getLogger("tonnage.http")


class RequestInvalid(storage.StorageError):
    """The request is well-formed HTTP that says something impossible."""


class PaginationInvalid(storage.StorageError):
    """`n` is not a count."""


class RangeInvalid(storage.StorageError):
    """No byte of the blob lies in the range."""


class Busy(storage.StorageError):
    """As much of this is under way as a process does at once."""


class Unsupported(storage.StorageError):
    """Switched off, or not a method of this path."""


OCI_ERRORS: Mapping[type[Exception], tuple[str, int]] = {
    storage.BlobUnknown: ("BLOB_UNKNOWN", 404),
    storage.BlobReferenced: ("DENIED", 405),  # the conformance suite accepts 202, 404 and 405 here, never 400
    storage.UploadUnknown: ("BLOB_UPLOAD_UNKNOWN", 404),
    storage.UploadBusy: ("BLOB_UPLOAD_INVALID", 416),
    storage.ChunkOutOfOrder: ("BLOB_UPLOAD_INVALID", 416),
    storage.DigestInvalid: ("DIGEST_INVALID", 400),
    storage.ManifestBlobUnknown: ("MANIFEST_BLOB_UNKNOWN", 400),
    storage.ManifestInvalid: ("MANIFEST_INVALID", 400),
    storage.ManifestTooLarge: ("MANIFEST_INVALID", 413),
    storage.ManifestUnknown: ("MANIFEST_UNKNOWN", 404),
    storage.NameInvalid: ("NAME_INVALID", 400),
    storage.NameUnknown: ("NAME_UNKNOWN", 404),
    storage.SizeInvalid: ("SIZE_INVALID", 400),
    storage.TagInvalid: ("TAG_INVALID", 400),
    storage.TagMoved: ("DENIED", 412),
    storage.StorageFull: ("UNAVAILABLE", 507),
    storage.StorageUnavailable: ("UNAVAILABLE", 503),
    Busy: ("UNAVAILABLE", 503),
    RequestInvalid: ("UNSUPPORTED", 400),
    PaginationInvalid: ("PAGINATION_NUMBER_INVALID", 400),
    RangeInvalid: ("RANGE_INVALID", 416),
    Unsupported: ("UNSUPPORTED", 405),
    UpstreamBusy: ("TOOMANYREQUESTS", 503),
    UpstreamFailed: ("UNAVAILABLE", 502),
    Unauthorized: ("UNAUTHORIZED", 401),
    AccessDenied: ("DENIED", 403),
    AuthError: ("DENIED", 403),
    storage.NameTaken: ("DENIED", 409),
    storage.StorageError: ("UNKNOWN", 500),
}


def refusal(error: Exception) -> Response:
    """The OCI errors body and status of `error`, whose type, or a base of it, stands in the table."""
    code, status = next(OCI_ERRORS[kind] for kind in type(error).__mro__ if kind in OCI_ERRORS)
    errors = [{"code": code, "message": str(error), "detail": getattr(error, "detail", {})}]
    if isinstance(error, storage.ManifestBlobUnknown) and isinstance(error.detail.get("missing"), list):
        missing = error.detail["missing"]
        assert isinstance(missing, list)
        errors = [{"code": code, "message": "a blob of the manifest is not here", "detail": each} for each in missing]
    return oci_response(status, errors)


def oci_response(status: int, errors: list[dict[str, object]]) -> Response:
    """An errors body; empty for HEAD, whose answers carry none, and where it could be taken for a part of a blob."""
    is_empty = request.method == "HEAD" or (status != 416 and _asks_for_part())
    body = b"" if is_empty else json.dumps({"errors": errors}).encode()
    return Response(body, status, content_type="application/json")


def _asks_for_part() -> bool:
    """The ollama client fetches parts under the name of Go's own client; it looks at no status, and keeps the text as
    the blob's bytes.

    416 is told in full: it is for those who name bytes that no blob of this size has, and they do look.
    Source: the Ollama registry protocol, "Parts".
    """
    if "Range" not in request.headers or not request.headers.get("User-Agent", "").startswith(_GO):
        return False
    path = split_path(request.path.removeprefix("/v2/"))
    return path is not None and path.kind is Kind.BLOB and request.method == "GET"


def is_oci_path() -> bool:
    return request.path == "/v2" or request.path.startswith("/v2/")


def install(app: Flask) -> None:
    """Register the tables: OCI errors below /v2, the Ollama shape below /api, the OpenAI shape below /v1."""
    app.register_error_handler(storage.StorageError, _expected)
    app.register_error_handler(AuthError, _expected)
    app.register_error_handler(BodyBroken, _broken)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _expected(error: Exception) -> ResponseReturnValue:
    if isinstance(error, AuthError):
        note(error)
    RequestBody().discard(_FULL_DRAIN_BYTES if isinstance(error, storage.StorageFull) else _DRAIN_BYTES)
    if not is_oci_path():
        return _native(error)
    response = refusal(error)
    if isinstance(error, AuthError) and is_signed(request.args):
        response.set_data(b"")  # who follows signed addresses looks at no status, and would keep the text as the blob
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = error.challenge
    if response.status_code in (503, 507):
        response.headers["Retry-After"] = "5"
    return response


def _broken(error: BodyBroken) -> ResponseReturnValue:
    """Most often nobody is left to read this; the session, where there is one, keeps what arrived."""
    if is_oci_path():
        return oci_response(400, [{"code": "SIZE_INVALID", "message": str(error), "detail": {}}])
    return plain_error(400, str(error))


def _native(error: Exception) -> ResponseReturnValue:
    code = next(OCI_ERRORS[kind][1] for kind in type(error).__mro__ if kind in OCI_ERRORS)
    # 401 makes the ollama client print its own sign-in text in place of ours, so refusals of keys and tokens are 403.
    status = 403 if isinstance(error, AuthError) and request.path.startswith("/api/") else code
    response = plain_error(status, str(error))
    if status == 401 and isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = error.challenge
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response


def plain_error(status: int, message: str) -> Response:
    """The error of a face other than /v2, in its own shape."""
    if request.path == "/v1/messages" or request.path.startswith("/v1/messages/"):
        return anthropic.error_response(status, message)
    if request.path.startswith("/v1/"):
        return openai.error_response(status, message)
    body = json.dumps({"error": message})
    return Response(body, status, content_type="application/json; charset=utf-8")


def _http(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error  # redirects
    if is_oci_path():
        code = {404: "NAME_UNKNOWN", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}.get(error.code, "UNSUPPORTED")
        response = oci_response(error.code, [{"code": code, "message": str(error.description), "detail": {}}])
    elif isinstance(error, NotFound):
        response = _without_slash() or Response("404 page not found", 404, content_type="text/plain")
    elif isinstance(error, MethodNotAllowed):
        response = Response("405 method not allowed", 405, content_type="text/plain")
    else:
        response = plain_error(error.code, str(error.description))
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _without_slash() -> Response | None:
    """A redirect to the route of the same name without its final slash, if there is one; the query goes along."""
    path = request.path.rstrip("/")
    if path == request.path or not path.startswith("/"):
        return None
    rules = current_app.url_map.bind("")
    try:
        rules.match(path, method=request.method)
    except HTTPException:
        return None
    query = request.query_string.decode("latin-1")
    response = Response(status=301 if request.method == "GET" else 307)
    response.headers["Location"] = f"{path}?{query}" if query else path
    return response


def _unexpected(error: Exception) -> ResponseReturnValue:
    """A bug of ours: the trace goes to the log, the client gets the request id to quote."""
    log.exception("unexpected error request_id=%s", g.get("request_id", "-"))
    message = f"internal error; quote request id {g.get('request_id', '-')}"
    if is_oci_path():
        return oci_response(500, [{"code": "UNKNOWN", "message": message, "detail": {}}])
    return plain_error(500, message)
