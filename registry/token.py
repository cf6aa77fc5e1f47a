"""The token endpoint on the wire. Spec: "Token Authentication Specification", "OAuth2 Token Authentication"."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, json, request
from flask.typing import ResponseReturnValue

from auth.access import current_gate
from auth.errors import AccessDenied, AuthError, RequestRefused, TooManyRequests, Unauthorized
from auth.scopes import format_scopes, parse_scopes
from auth.tokens import BearerToken
from registry.audit import note

bp = Blueprint("token", __name__)

_FORM_MAX_BYTES = 64 * 2**10
_FIELD_MAX = 4096  # characters


class OAuthRefused(AuthError):
    """A form that OAuth2 has a word for. `error` is that word."""

    def __init__(self, error: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.error, self.status = error, status


@bp.get("/v2/token", provide_automatic_options=False)
def get_token() -> ResponseReturnValue:
    """A bearer token for whoever the Authorization header names, or for nobody in particular.

    Fewer rights than asked for are no error. Raises Unauthorized, RequestRefused.
    """
    gate = current_gate()
    scopes = parse_scopes(request.args.getlist("scope"))
    asked = gate.token_request(request.args.get("service", ""), scopes)
    token = gate.answer_token_request(lambda: gate.token_requests.answer(asked))
    return _no_store({"token": token.text, **_common(token)})


@bp.post("/v2/token", provide_automatic_options=False)
def post_token() -> ResponseReturnValue:
    """The OAuth2 form, password grant: any user name, an access token as password. Raises OAuthRefused."""
    request.max_content_length = request.max_form_memory_size = _FORM_MAX_BYTES
    if _field("grant_type") != "password":
        raise OAuthRefused("unsupported_grant_type", "grant_type must be password; refresh tokens are not issued")
    secret = _field("password")
    if not secret:
        raise OAuthRefused("invalid_request", "password is missing; it is an access token")
    try:
        gate, scopes, service = current_gate(), parse_scopes([_field("scope")]), _field("service")
        token = gate.answer_token_request(lambda: gate.token_requests.with_secret(secret, service, scopes))
    except RequestRefused as error:
        raise OAuthRefused("invalid_request", str(error)) from error
    except Unauthorized as error:
        raise OAuthRefused("invalid_grant", str(error), 401) from error
    return _no_store({"scope": format_scopes(token.scopes), "token_type": "Bearer", **_common(token)})


@bp.errorhandler(OAuthRefused)
def oauth_refusal(error: OAuthRefused) -> ResponseReturnValue:
    note(error)
    return _no_store({"error": error.error, "error_description": str(error)}, error.status)


@bp.errorhandler(AuthError)
def refusal(error: AuthError) -> ResponseReturnValue:
    """A readable body: the ollama client shows it to people as it is."""
    note(error)
    if isinstance(error, TooManyRequests):
        body: dict[str, object] = {"errors": [{"code": "TOOMANYREQUESTS", "message": str(error), "detail": {}}]}
        response = _no_store(body, 429)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    is_unauthorized = isinstance(error, Unauthorized)
    status = 401 if is_unauthorized else 403 if isinstance(error, AccessDenied) else 400
    code = "UNAUTHORIZED" if is_unauthorized else "DENIED"
    response = _no_store({"errors": [{"code": code, "message": str(error), "detail": error.detail}]}, status)
    if is_unauthorized:
        response.headers["WWW-Authenticate"] = f'Basic realm="{current_gate().service}"'
    return response


def _common(token: BearerToken) -> dict[str, object]:
    issued_at = datetime.fromtimestamp(token.issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"access_token": token.text, "expires_in": token.expires_in_s, "issued_at": issued_at}


def _field(name: str) -> str:
    value = request.form.get(name, "")
    if len(value) > _FIELD_MAX and name != "scope":  # the length of scopes is judged where they are parsed
        raise OAuthRefused("invalid_request", f"{name} is too long")
    return value


def _no_store(body: dict[str, object], status: int = 200) -> Response:
    """JSON that no cache may keep."""
    response = Response(json.dumps(body), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
