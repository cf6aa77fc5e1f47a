"""The whole document. Source: OpenAPI 3.1.1."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from registry.models.about import DIALECT_VERSION
from registry.openapi import anthropic, distribution, inference, models, openai, service
from registry.openapi.operations import Face

JSON = dict[str, Any]

FACES: Final[tuple[Face, ...]] = (
    service.SERVICE,
    inference.FACE,
    models.FACE,
    openai.FACE,
    anthropic.FACE,
    distribution.REGISTRY,
    distribution.TOKENS,
    service.ADMIN,
)
_TEXT: Final = (
    "One server that stores models as an OCI registry and runs what it stores, in the words of the Ollama, OpenAI and"
    " Anthropic APIs. Every answer carries `X-Request-Id`, and `Tonnage-Node`: which of several servers gave it. A"
    " program on the server's own machine needs no credentials but for administration and for what is private in the"
    " registry."
)
_SCHEMES: Final[JSON] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token; below /v2 a bearer token, too."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "An access token."},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name, and an access token."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`<key>:<signature>` over `METHOD,path?ts=N`, as the ollama client signs.",
    },
}


@cache
def document() -> JSON:
    """The description of every route; the same object at each call, which nobody changes."""
    paths: JSON = {}
    schemas: JSON = {}
    for face in FACES:
        schemas |= face.schemas
        for operation in face.operations:
            paths.setdefault(operation.path, {})[operation.method.lower()] = face.described(operation)
    return {
        "openapi": "3.1.1",
        "info": {"title": "Tonnage", "version": DIALECT_VERSION, "description": _TEXT},
        "servers": [{"url": "/"}],
        "tags": [{"name": face.tag, "description": face.text} for face in FACES],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
    }
