"""What belongs to no dialect: the heartbeat, this description, and who may do what."""

from __future__ import annotations

from typing import Final

from auth.identity import Role
from registry.openapi.operations import JSON_TYPE, Answer, Face, Operation, path_parameter, query_parameter
from registry.openapi.schemas import BOOLEAN, COUNT, NUMBER, OBJECT, STRING, answer, array, ref, words

_PLAIN: Final = "text/plain"
_NAMESPACE: Final = query_parameter("namespace", "Only there.")
_FINGERPRINT: Final = path_parameter("fingerprint", "Of the key; its slashes may be escaped or not.")
_REFUSED: Final = {JSON_TYPE: ref("Refused")}
_ROLE: Final = words([str(role) for role in Role])

SERVICE: Final = Face(
    tag="Service",
    text="Whether the server runs, and what it can be asked.",
    error=_REFUSED,
    denials=(401, 403),
    operations=(
        Operation("GET", "/", "The heartbeat of Ollama's clients", (Answer(200, "It runs.", {_PLAIN: STRING}),)),
        Operation("HEAD", "/", "The same", (Answer(200, "It runs."),)),
        Operation("GET", "/healthz", "Whether the server answers", (Answer(200, "It does.", {_PLAIN: STRING}),)),
        Operation("GET", "/openapi.json", "This description", (Answer(200, "OpenAPI 3.1.", {JSON_TYPE: OBJECT}),)),
    ),
)

_GRANT: Final = answer(
    {
        "namespace": STRING,
        "fingerprint": STRING,
        "key": STRING,
        "role": _ROLE,
        "comment": STRING,
        "created_at": NUMBER,
    }
)
ADMIN: Final = Face(
    tag="Administration",
    text="Which keys may do what. Pages of other origins are refused.",
    error=_REFUSED,
    denials=(401, 403),
    operations=(
        Operation(
            "GET",
            "/admin/keys",
            "Every grant, or those of one namespace",
            (Answer(200, "The grants.", {JSON_TYPE: answer({"keys": array(ref("Grant"))})}),),
            (400, 404, 503),
            parameters=(_NAMESPACE,),
        ),
        Operation(
            "POST",
            "/admin/keys",
            "Let a key into a namespace",
            (Answer(201, "The grant, which may have been there.", {JSON_TYPE: ref("Grant")}),),
            (400, 404, 409, 413, 415, 503),
            {JSON_TYPE: ref("GrantWanted")},
        ),
        Operation(
            "DELETE",
            "/admin/keys/{fingerprint}",
            "Take a key's grants",
            (Answer(200, "How many there were.", {JSON_TYPE: answer({"removed": COUNT})}),),
            (400, 404, 503),
            parameters=(_FINGERPRINT, _NAMESPACE),
        ),
    ),
    schemas={
        "Grant": _GRANT,
        "GrantWanted": {
            "type": "object",
            "properties": {
                "namespace": STRING,
                "key": STRING,
                "role": _ROLE,
                "comment": {**STRING, "maxLength": 255},
                "create_namespace": BOOLEAN,
                "replace": BOOLEAN,
            },
            "required": ["namespace", "key", "role"],
            "additionalProperties": False,
        },
    },
)
