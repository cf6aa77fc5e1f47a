"""From route to right: every route of the server, as data. A route that is not here is denied."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from auth.policy import Right

_READ: Final = "GET HEAD"

# Routes are the nouns below /v2/<name>/, or URL rules with each converter as an asterisk.
_TABLE: Final[tuple[tuple[Right, str, str], ...]] = (
    # the registry
    (Right.PING, _READ, "ping /v2 /v2/"),
    (Right.PUBLIC, "GET HEAD POST", "token /v2/token"),  # hands out no more than the caller is entitled to
    (Right.CATALOG, _READ, "catalog /v2/_catalog"),
    (Right.PULL, _READ, "blob manifest tags referrers"),
    (Right.PULL, "GET", "chunksums"),
    (Right.PUSH, "POST", "upload-start"),
    (Right.PUSH, "GET HEAD PATCH PUT DELETE", "upload"),  # whoever may open a session may give it up
    (Right.PUSH, "PUT", "manifest"),
    (Right.DELETE, "DELETE", "blob manifest"),
    # what tells a stranger no more than that a server is here
    (Right.PUBLIC, _READ, "/ /healthz"),
    (Right.LOGIN, _READ, "/api/version"),
    (Right.LOGIN, "GET", "/openapi.json /api/status /api/experimental/model-recommendations"),
    (Right.LOGIN, "POST", "/api/me /api/signout"),
    (Right.LOGIN, "DELETE", "/api/user/keys/*"),  # another way to say signout; it takes no key away
    # models: look
    (Right.READ_MODELS, _READ, "/api/tags"),
    (Right.READ_MODELS, "GET", "/api/ps /v1/models /v1/models/*"),
    (Right.READ_MODELS, "POST", "/api/show"),
    # models: ask
    (Right.INFER, "POST", "/api/generate /api/chat /api/embed /api/embeddings /api/rerank"),
    (Right.INFER, "POST", "/api/tokenize /api/detokenize"),
    (Right.INFER, "POST", "/v1/chat/completions /v1/completions /v1/embeddings /v1/rerank /v1/responses"),
    (Right.INFER, "POST", "/v1/messages /v1/messages/count_tokens /v1/audio/transcriptions"),
    (Right.INFER, "POST", "/api/experimental/web_search /api/experimental/web_fetch"),
    # models: change; the handler checks the repositories that the body names
    (Right.MANAGE, "POST", "/api/create /api/copy /api/pull /api/push"),
    (Right.MANAGE, "DELETE", "/api/delete"),
    (Right.MANAGE, "HEAD POST", "/api/blobs/*"),
    # who may do what
    (Right.ADMIN, "GET POST", "/admin/keys"),
    (Right.ADMIN, "DELETE", "/admin/keys/*"),
)

_CONVERTER: Final = re.compile(r"<[^>]*>")


def _rows() -> Iterator[tuple[tuple[str, str], Right]]:
    for right, methods, routes in _TABLE:
        for method in methods.split():
            for route in routes.split():
                yield (method, route), right


RIGHTS: Final[Mapping[tuple[str, str], Right]] = MappingProxyType(dict(_rows()))


def right_of(method: str, route: str) -> Right | None:
    """The right that `method` on `route` asks for; None if the table has no such route."""
    return RIGHTS.get((method, _CONVERTER.sub("*", route)))
