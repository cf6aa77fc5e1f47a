"""/v2: the registry. Spec: "Endpoints"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from registry.errors import OCI_ERRORS
from registry.openapi.operations import (
    JSON_TYPE,
    Answer,
    Face,
    Operation,
    header_parameter,
    path_parameter,
    query_parameter,
)
from registry.openapi.schemas import (
    COUNT,
    DIGEST,
    JSON,
    OBJECT,
    STRING,
    TIME,
    answer,
    array,
    constants,
    ref,
    words,
)
from storage.manifest import OCI_INDEX, OCI_MANIFEST

_OCTETS: Final = "application/octet-stream"
_FORM: Final = "application/x-www-form-urlencoded"
_NAME: Final = path_parameter("name", "A repository; its slashes stand in the path as they are.")
_DIGEST: Final = path_parameter("digest", "A digest.")
_REFERENCE: Final = path_parameter("reference", "A tag or a digest.")
_UPLOAD: Final = path_parameter("upload_id", "An upload session.")
_WANTED_DIGEST: Final = query_parameter("digest", "The digest of what is uploaded.", DIGEST)
_RANGE: Final = header_parameter("Content-Range", "`<first>-<last>` of this chunk.")
_BACK_TO: Final = header_parameter("X-Upload-Offset", "The chunk's first byte: the last chunk comes again.")
_N: Final = query_parameter("n", "At most so many entries.", COUNT)
_LAST: Final = query_parameter("last", "The entry after which the page begins.")
_CONDITIONS: Final = (header_parameter("If-Match", "Digests."), header_parameter("If-None-Match", "Digests."))

_CHUNKS_AT: Final = {"Content-Location": "Where the bytes are.", "Docker-Content-Digest": "The blob's digest."}
_LOCATION: Final = {"Location": "Where it is.", "Docker-Content-Digest": "Its digest."}
_NEXT: Final = {"Location": "Where to PUT it.", "Docker-Upload-Location": "Where to ask for the next one."}
_SESSION: Final = {
    "Location": "Where to go on.",
    "Range": "`0-<last>` of what is stored.",
    "Docker-Upload-UUID": "The session.",
    "X-Upload-Offset": "How many bytes are stored.",
    "Repr-Digest": "Of what is stored, sha-256 (RFC 9530).",
}
_LINKED: Final = {"Link": "The next page, if there is one."}

_SCHEMAS: Final[Mapping[str, JSON]] = {
    "OCIErrors": answer(
        {
            "errors": array(
                answer(
                    {
                        "code": words([*(code for code, _ in OCI_ERRORS.values()), "TOOMANYREQUESTS"]),
                        "message": STRING,
                        "detail": {},
                    }
                ),
                minItems=1,
            )
        }
    ),
    "Descriptor": answer({"mediaType": STRING, "digest": DIGEST, "size": COUNT}, {"artifactType": STRING}),
}
_TOKEN: Final[Mapping[str, JSON]] = {"access_token": STRING, "expires_in": COUNT, "issued_at": TIME}
_OAUTH: Final = answer({"error": STRING, "error_description": STRING})
_GRANT: Final[JSON] = {
    "type": "object",
    "properties": {
        **constants("grant_type", "password"),
        "password": {**STRING, "description": "An access token."},
        "username": STRING,
        "scope": STRING,
        "service": STRING,
    },
    "required": ["grant_type", "password"],
}


def _both(
    path: str, summary: str, found: Answer, more: tuple[Answer, ...], refusals: tuple[int, ...]
) -> list[Operation]:
    """GET, and HEAD with the same headers and no body."""
    parameters = tuple(each for each in (_NAME, _DIGEST, _REFERENCE) if f"{{{each['name']}}}" in path)
    parameters += (header_parameter("If-None-Match", "Digests that the client has."),)
    bare = Answer(found.status, found.text, {}, found.headers)
    not_modified = tuple(each for each in more if each.status == 304)
    gets = (*parameters, header_parameter("Range", "Bytes.")) if 206 in {each.status for each in more} else parameters
    return [
        Operation("GET", path, summary, (found, *more), refusals, parameters=gets),
        Operation("HEAD", path, f"{summary}, told of", (bare, *not_modified), refusals, parameters=parameters),
    ]  # fmt: skip


def _reading() -> list[Operation]:
    current = Answer(304, "The client has it.")
    blob = Answer(200, "The bytes.", {_OCTETS: {}}, {"Docker-Content-Digest": "Its digest."})
    part = Answer(206, "Some of the bytes.", {_OCTETS: {}, "multipart/byteranges": {}})
    elsewhere = Answer(307, "The bytes are in an object store, for a while at this address.", headers=_LOCATION)
    manifest = Answer(200, "The manifest as it was pushed.", {OCI_MANIFEST: OBJECT, "*/*": {}}, _LOCATION)
    tags = answer({"name": STRING, "tags": array(STRING)})
    referrers = answer(
        {"schemaVersion": COUNT, **constants("mediaType", OCI_INDEX), "manifests": array(ref("Descriptor"))}
    )
    return [
        *_both("/v2/{name}/blobs/{digest}", "A blob", blob, (part, current, elsewhere), (404, 412, 416, 503)),
        *_both("/v2/{name}/manifests/{reference}", "A manifest", manifest, (current,), (404, 503)),
        Operation(
            "GET",
            "/v2/{name}/tags/list",
            "The tags of a repository",
            (Answer(200, "A page.", {JSON_TYPE: tags}, _LINKED),),
            (400, 404, 503),
            parameters=(_NAME, _N, _LAST),
        ),
        Operation(
            "GET",
            "/v2/{name}/referrers/{digest}",
            "The manifests that refer to one",
            (Answer(200, "An index.", {OCI_INDEX: referrers}, _LINKED),),
            (400, 404, 503),
            parameters=(_NAME, _DIGEST, query_parameter("artifactType", "Only those of this type."), _LAST),
        ),
        Operation(
            "GET",
            "/v2/{name}/chunksums/{digest}",
            "The digests of a blob's chunks",
            (Answer(200, "A line for each, with its first and last byte.", {"text/plain": STRING}, _CHUNKS_AT),),
            (404, 503),
            parameters=(_NAME, _DIGEST),
        ),
    ]


def _pushing() -> list[Operation]:
    created = Answer(201, "The blob is stored.", headers=_LOCATION)
    going_on = Answer(202, "The session has come so far.", headers=_SESSION)
    elsewhere = Answer(307, "The part goes to an object store.", headers=_NEXT)
    body: dict[str, JSON] = {_OCTETS: {}}
    session = "/v2/{name}/blobs/uploads/{upload_id}"
    begin = (
        _NAME,
        _WANTED_DIGEST,
        query_parameter("mount", "A blob of another repository.", DIGEST),
        query_parameter("from", "That repository."),
        query_parameter("digest-algorithm", "`sha256` or `sha512`."),
    )
    tags = query_parameter("tag", "Tags that a manifest pushed by digest takes.", array(STRING, maxItems=100))
    manifest = Answer(201, "The manifest is stored.", headers={**_LOCATION, "OCI-Tag": "A tag.", "OCI-Subject": "…"})
    put = (400, 404, 412, 413, 414, 503, 507)
    return [
        Operation(
            "POST",
            "/v2/{name}/blobs/uploads/",
            "Begin an upload, store a whole blob, or mount one",
            (created, going_on),
            (400, 404, 503, 507),
            body,
            begin,
            needs_body=False,
        ),
        Operation(
            "PATCH",
            session,
            "Append a chunk",
            (going_on, elsewhere),
            (400, 404, 416, 503, 507),
            body,
            (_NAME, _UPLOAD, _RANGE, _BACK_TO),
            needs_body=False,
        ),
        Operation(
            "PUT",
            session,
            "Append what is left, and commit",
            (created,),
            (400, 404, 416, 503, 507),
            body,
            (_NAME, _UPLOAD, _RANGE, {**_WANTED_DIGEST, "required": True}),
            needs_body=False,
        ),
        *(
            Operation(method, session, summary, (Answer(204, text, headers=headers),), (400, 404, 503),
                      parameters=(_NAME, _UPLOAD))
            for method, summary, text, headers in (
                ("GET", "How far a session has come", "So far.", _SESSION),
                ("HEAD", "The same", "So far.", _SESSION),
                ("DELETE", "Give a session up", "It is gone.", {}),
            )
        ),
        Operation(
            "PUT", "/v2/{name}/manifests/{reference}", "Store a manifest and move its tags", (manifest,), put,
            {OCI_MANIFEST: OBJECT, "*/*": {}}, (_NAME, _REFERENCE, tags, *_CONDITIONS),
        ),
    ]  # fmt: skip


def _deleting() -> list[Operation]:
    gone = (Answer(202, "It is gone."),)
    return [
        Operation(
            "DELETE", "/v2/{name}/blobs/{digest}", "Unlink a blob", gone, (400, 404, 405, 503),
            parameters=(_NAME, _DIGEST),
        ),
        Operation(
            "DELETE", "/v2/{name}/manifests/{reference}", "Delete a tag, or a manifest and its tags", gone,
            (400, 404, 503), parameters=(_NAME, _REFERENCE),
        ),
    ]  # fmt: skip


def _finding() -> list[Operation]:
    here = Answer(200, "A registry is here.", {JSON_TYPE: OBJECT})
    bare = Answer(200, "A registry is here.")
    listed = Answer(200, "A page.", {JSON_TYPE: answer({"repositories": array(STRING)})}, _LINKED)
    pings = [
        Operation(method, path, "Whether a registry is here", (here if method == "GET" else bare,))
        for path in ("/v2", "/v2/")
        for method in ("GET", "HEAD")
    ]
    summary = "The repositories that the caller may read"
    return [
        *pings,
        Operation("GET", "/v2/_catalog", summary, (listed,), (400, 503), parameters=(_N, _LAST)),
        Operation(
            "HEAD", "/v2/_catalog", summary, (Answer(200, "A page.", headers=_LINKED),), (400, 503),
            parameters=(_N, _LAST),
        ),
    ]  # fmt: skip


REGISTRY: Final = Face(
    tag="Registry",
    text="The OCI Distribution API 1.1. Names and references are read strictly.",
    error={JSON_TYPE: ref("OCIErrors")},
    denials=(401, 403),
    operations=(*_finding(), *_reading(), *_pushing(), *_deleting()),
    schemas=_SCHEMAS,
)


def _tokens() -> tuple[Operation, ...]:
    asked = (query_parameter("service", "This server's name."), query_parameter("scope", "What for.", array(STRING)))
    given = Answer(200, "A bearer token.", {JSON_TYPE: answer({"token": STRING, **_TOKEN})})
    granted = Answer(200, "A bearer token.", {JSON_TYPE: answer({"scope": STRING, "token_type": STRING, **_TOKEN})})
    refusals = (400, 401, 413, 429, 503)
    return (
        Operation("GET", "/v2/token", "A bearer token for whoever asks", (given,), refusals, parameters=asked),
        Operation("POST", "/v2/token", "The same, as OAuth2 has it", (granted,), refusals, {_FORM: _GRANT}),
    )


TOKENS: Final = Face(
    tag="Tokens",
    text="Bearer tokens for the registry, for a few minutes.",
    error={JSON_TYPE: {"anyOf": [ref("OCIErrors"), _OAUTH]}},
    denials=(),
    operations=_tokens(),
)
