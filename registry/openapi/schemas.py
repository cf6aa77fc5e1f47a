"""Words in which faces describe JSON: JSON Schema 2020-12, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

JSON = dict[str, Any]

STRING: Final[JSON] = {"type": "string"}
INTEGER: Final[JSON] = {"type": "integer"}
COUNT: Final[JSON] = {"type": "integer", "minimum": 0}
NUMBER: Final[JSON] = {"type": "number"}
BOOLEAN: Final[JSON] = {"type": "boolean"}
OBJECT: Final[JSON] = {"type": "object"}
NULL: Final[JSON] = {"type": "null"}
TIME: Final[JSON] = {"type": "string", "format": "date-time"}
BASE64: Final[JSON] = {"type": "string", "contentEncoding": "base64"}
DIGEST: Final[JSON] = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"}
HEX_DIGEST: Final[JSON] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def said(text: str, schema: JSON) -> JSON:
    """`schema` with what it means."""
    return {**schema, "description": text}


def one_of(*values: str) -> JSON:
    """One of some words."""
    return {"type": "string", "enum": list(values)}


def either(*schemas: JSON) -> JSON:
    return {"anyOf": list(schemas)}


def array(items: JSON, **more: object) -> JSON:
    return {"type": "array", "items": items, **more}


def mapping(values: JSON) -> JSON:
    return {"type": "object", "additionalProperties": values}


def ref(name: str) -> JSON:
    """A schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(required: Mapping[str, JSON], optional: Mapping[str, JSON] | None = None) -> JSON:
    """An object that the server writes. Clients must allow for keys that are not named here."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def asked(required: Mapping[str, JSON], optional: Mapping[str, JSON]) -> JSON:
    """An object that clients write: null is as good as leaving an optional key out, and unknown keys are ignored."""
    nullable = {key: or_null(schema) for key, schema in optional.items()}
    return {"type": "object", "properties": {**required, **nullable}, "required": list(required)}


def or_null(schema: JSON) -> JSON:
    """`schema`, or null."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], NULL]}
    if "type" in schema and not {"enum", "const"} & schema.keys():
        return {**schema, "type": [schema["type"], "null"]}
    told = {key: schema[key] for key in ("description",) if key in schema}
    return {"anyOf": [{key: value for key, value in schema.items() if key not in told}, NULL], **told}


def constants(key: str, value: str) -> Mapping[str, JSON]:
    """A key that always has the same text, which tells one kind of object from another."""
    return {key: {"type": "string", "const": value}}


def events(data: JSON, names: Sequence[str] = (), end: str = "") -> JSON:
    """One event of a stream. data: the JSON that it carries as text; names: what types it may have, if it has any.

    end: the text of the last event, where that is no JSON.
    """
    carried: JSON = {"contentMediaType": "application/json", "contentSchema": data}
    text = {**STRING, "anyOf": [carried, {"const": end}]} if end else {**STRING, **carried}
    return answer({"data": text, **({"event": one_of(*names)} if names else {})})


def words(values: Sequence[str]) -> JSON:
    """One of the words that another module lists, in the order of the alphabet and each once."""
    return one_of(*sorted(set(values)))
