"""The grants of keys over HTTP, for whoever automates them. JSON in, JSON out, `{"error": …}` for what is refused.

A change holds for the next request, whichever process answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from flask import Blueprint, Response, json, request
from flask.typing import ResponseReturnValue

from auth.audit import What
from auth.errors import GrantInvalid, GrantUnknown, KeyInvalid
from auth.grants import Grant, KeyGrants
from auth.identity import Role
from auth.keys import PublicKey, is_fingerprint
from registry.audit import record, records
from registry.body import read_body
from registry.errors import plain_error
from registry.services import store
from runtime.untrusted_json import parse_json
from storage.errors import NameInvalid, NameTaken, NameUnknown, StorageError
from storage.namespaces import Namespaces
from storage.reference import check_namespace

bp = Blueprint("admin", __name__)

_MAX_BODY_BYTES: Final = 64 * 2**10
_MAX_COMMENT: Final = 255
_FIELDS: Final[Mapping[str, type]] = {
    "namespace": str, "key": str, "role": str, "comment": str, "create_namespace": bool, "replace": bool,
}  # fmt: skip
_NEEDED: Final = ("namespace", "key", "role")


class FieldInvalid(ValueError):
    """The body is not what the route takes."""


class GrantTaken(Exception):
    """The key has another role there already."""


@bp.before_request
def refuse_other_pages() -> ResponseReturnValue | None:
    """Whatever origins are allowed to ask models: none but our own may say who may do what."""
    origin, host = request.headers.get("Origin"), request.environ.get("HTTP_HOST", "")
    is_foreign = origin is not None and origin not in (f"http://{host}", f"https://{host}")
    if is_foreign or request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return plain_error(403, "pages of another origin may not change who may do what")
    return None


@bp.post("/admin/keys", provide_automatic_options=False)
def add() -> ResponseReturnValue:
    """Let a key into a namespace; 201 with the grant, which may have been there. `replace` allows another role.

    Raises FieldInvalid, KeyInvalid, GrantInvalid, NameInvalid, GrantUnknown, GrantTaken.
    """
    if request.mimetype != "application/json":
        return plain_error(415, "Content-Type must be application/json")
    fields = _fields()
    key, namespace, role = PublicKey.parse(fields["key"]), fields["namespace"], fields["role"]
    check_namespace(namespace)
    if role not in set(Role):
        raise FieldInvalid(f"role must be one of {', '.join(Role)}")
    grants = KeyGrants(store().database)
    before = grants.roles_of(key.fingerprint).get(namespace)
    if before is not None and before != role and not fields.get("replace", False):
        raise GrantTaken(f'{key.fingerprint} may {before} in {namespace}; send "replace": true to change it')
    if fields.get("create_namespace", False):
        _create(namespace)
    grant = grants.add(namespace, key, role, comment=fields.get("comment", ""))
    what = What.KEY_ADD if before is None else What.KEY_CHANGE
    record(what, namespace=namespace, reference=grant.fingerprint, detail=str(grant.role))
    with suppress(StorageError):  # the key is let in; that it once was not is shown a little longer
        records().refused.forget(grant.fingerprint)
    return _json(_told(grant), 201)


@bp.get("/admin/keys", provide_automatic_options=False)
def show() -> ResponseReturnValue:
    """Every grant, or those of `?namespace=`. Raises NameUnknown."""
    namespace = _namespace()
    if namespace is not None:
        Namespaces(store().database).get(namespace)
    return _json({"keys": [_told(grant) for grant in KeyGrants(store().database).list(namespace)]})


@bp.delete("/admin/keys/<path:fingerprint>", provide_automatic_options=False)
def remove(fingerprint: str) -> ResponseReturnValue:
    """Take a key's grant in `?namespace=`, or all it has. The slashes of a fingerprint may be escaped or not.

    Raises GrantUnknown, FieldInvalid.
    """
    if not is_fingerprint(fingerprint):
        raise FieldInvalid("expected the fingerprint of a key, SHA256: and 43 characters")
    namespace = _namespace()
    grants = KeyGrants(store().database)
    roles = grants.roles_of(fingerprint)
    removed = grants.remove(fingerprint, namespace=namespace)
    if not removed:
        where = "" if namespace is None else f" in {namespace[:255]}"
        raise GrantUnknown(f"no grant of {fingerprint}{where}")
    taken_away = (f"{role} in {name}" for name, role in roles.items() if namespace in (None, name))
    record(What.KEY_REMOVE, namespace=namespace, reference=fingerprint, detail=", ".join(taken_away))
    return _json({"removed": removed})


@bp.errorhandler(FieldInvalid)
@bp.errorhandler(KeyInvalid)
@bp.errorhandler(GrantInvalid)
@bp.errorhandler(NameInvalid)
def invalid(error: Exception) -> ResponseReturnValue:
    return plain_error(400, str(error))


@bp.errorhandler(GrantUnknown)
@bp.errorhandler(NameUnknown)
def unknown(error: Exception) -> ResponseReturnValue:
    return plain_error(404, str(error))


@bp.errorhandler(GrantTaken)
def taken(error: Exception) -> ResponseReturnValue:
    return plain_error(409, str(error))


def _namespace() -> str | None:
    """`?namespace=`. Raises NameInvalid."""
    text = request.args.get("namespace")
    return None if text is None else check_namespace(text)


def _create(namespace: str) -> None:
    with suppress(NameTaken):
        Namespaces(store().database).create(namespace)
        record(What.NAMESPACE_CREATE, namespace=namespace, detail="private")


def _fields() -> dict[str, Any]:
    """The body's fields, each of its type and none unknown. Raises FieldInvalid."""
    try:
        body = parse_json(read_body(_MAX_BODY_BYTES).decode("utf-8"))
    except ValueError as error:
        raise FieldInvalid(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise FieldInvalid("the body must be a JSON object")
    for name, value in body.items():
        if name not in _FIELDS:
            raise FieldInvalid(f"unknown field {name[:64]!r}; there are {', '.join(_FIELDS)}")
        if type(value) is not _FIELDS[name]:
            raise FieldInvalid(f"{name} must be a {'string' if _FIELDS[name] is str else 'boolean'}")
    missing = [name for name in _NEEDED if name not in body]
    if missing:
        raise FieldInvalid(f"missing: {', '.join(missing)}")
    comment = body.get("comment", "")
    if len(comment) > _MAX_COMMENT or not comment.isprintable():
        raise FieldInvalid(f"comment must be at most {_MAX_COMMENT} printable characters")
    return body


def _told(grant: Grant) -> dict[str, object]:
    return {
        "namespace": grant.namespace,
        "fingerprint": grant.fingerprint,
        "key": PublicKey.from_blob(grant.blob).line,
        "role": str(grant.role),
        "comment": grant.comment,
        "created_at": grant.created_at,
    }


def _json(body: dict[str, Any], status: int = 200) -> Response:
    response = Response(json.dumps(body), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
