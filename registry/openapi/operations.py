"""What a face says of one method on one path, and how that reads in the document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from auth.policy import Right
from auth.rights import right_of
from registry.paths import split_path

JSON = dict[str, Any]
JSON_TYPE: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"

_TEXTS: Final[Mapping[int, str]] = {
    400: "The request cannot be what it says.",
    401: "Credentials are missing, or are not accepted.",
    403: "The caller may not do this. Also, without a body, for a page or a `Host` that may not call this server.",
    404: "What was named is not here, or the caller may not know that it is.",
    405: "A manifest needs the blob.",
    409: "There is another one already.",
    412: "The tag names something else by now.",
    413: "The body is larger than this route takes.",
    414: "The address is too long.",
    415: "The body is of another type.",
    416: "The range lies outside of what is there.",
    429: "Too many failures from this address; `Retry-After` says when to try again.",
    500: "The model, its template or one of its options does not work.",
    501: "This server cannot do that yet.",
    503: "There is too much to do at the moment; `Retry-After` says when to ask again.",
    507: "The store is full.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status that is no refusal. content: media type → schema, empty for an answer without a body."""

    status: int
    text: str
    content: Mapping[str, JSON] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> JSON:
        told: JSON = {"description": self.text}
        if self.content:
            told["content"] = {kind: {"schema": schema} for kind, schema in self.content.items()}
        if self.headers:
            told["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in self.headers.items()
            }
        return told


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path. body: media type → schema. refusals: statuses besides those that any route has."""

    method: str
    path: str
    summary: str
    answers: tuple[Answer, ...]
    refusals: tuple[int, ...] = ()
    body: Mapping[str, JSON] = field(default_factory=dict)
    parameters: tuple[JSON, ...] = ()
    description: str = ""
    needs_body: bool = True

    @property
    def is_open_ended(self) -> bool:
        """Whether what stands for a parameter may make the path one that is no route of the server."""
        return "{" in self.path and not self.path.startswith("/v2/")

    @property
    def right(self) -> Right:
        """What the caller must be allowed to do, from the one table of that."""
        path = split_path(self.path.removeprefix("/v2/")) if self.path.startswith("/v2/{") else None
        right = right_of(self.method, path.kind if path is not None else re.sub(r"{[^}]*}", "*", self.path))
        if right is None:
            raise LookupError(f"{self.method} {self.path} is in no table of rights")
        return right


@dataclass(frozen=True, slots=True)
class Face:
    """Routes that speak alike. error: media type → schema of what refuses; denials: statuses for whoever may not."""

    tag: str
    text: str
    error: Mapping[str, JSON]
    denials: tuple[int, ...]
    operations: tuple[Operation, ...]
    schemas: Mapping[str, JSON] = field(default_factory=dict)

    def described(self, operation: Operation) -> JSON:
        """The operation object of OpenAPI."""
        right = operation.right
        told: JSON = {
            "tags": [self.tag],
            "operationId": _name(operation),
            "summary": operation.summary,
            "security": _security(operation.path, right),
        }
        if operation.description:
            told["description"] = operation.description
        if operation.parameters:
            told["parameters"] = list(operation.parameters)
        if operation.body:
            content = {kind: {"schema": schema} for kind, schema in operation.body.items()}
            told["requestBody"] = {"required": operation.needs_body, "content": content}
        denials = () if right is Right.PUBLIC else self.denials
        statuses = sorted({*operation.refusals, *denials, 403})
        told["responses"] = {str(each.status): each.described() for each in operation.answers}
        told["responses"] |= {str(status): self._refusal(operation, status) for status in statuses}
        return told

    def _refusal(self, operation: Operation, status: int) -> JSON:
        content = {} if operation.method == "HEAD" else self.error
        if content and status == 404 and operation.is_open_ended:
            content = {**content, "text/plain": {"type": "string"}}  # of what is no route
        headers = {"Retry-After": "Seconds until it is worth asking again."} if status in (429, 503) else {}
        return Answer(status, _TEXTS[status], content, headers).described()


def path_parameter(name: str, text: str, schema: JSON | None = None) -> JSON:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema or {"type": "string"}}


def query_parameter(name: str, text: str, schema: JSON | None = None) -> JSON:
    return {"name": name, "in": "query", "description": text, "schema": schema or {"type": "string"}}


def header_parameter(name: str, text: str) -> JSON:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _name(operation: Operation) -> str:
    parts = re.findall(r"[A-Za-z0-9]+", operation.path)
    ending = ["root"] if operation.path.endswith("/") else []
    return "_".join([operation.method.lower(), *parts, *ending])


def _security(path: str, right: Right) -> list[JSON]:
    """Ways to say who asks; the empty one is for this machine's own programs, and for what is open to all."""
    if path == "/v2/token":
        return [{}, {"basic": []}]
    if right is Right.PUBLIC:
        return [{}]
    schemes = ["bearer", "apiKey", *(["signature"] if path.startswith("/api/") else [])]
    named: list[JSON] = [{scheme: []} for scheme in schemes]
    return named if right is Right.ADMIN else [{}, *named]
