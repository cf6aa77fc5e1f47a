"""The Ollama API of a server, as far as client commands need it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from registry.remotes.answers import failure
from registry.remotes.errors import AnswerInvalid, RemoteError
from registry.remotes.http import Origin, Outbound, Reply
from registry.remotes.text import one_line
from storage.digest import Digest

_MAX_ANSWER: Final = 64 * 1024 * 1024
_MAX_LINE: Final = 8_000_000  # the limit that other clients of this API have
_ANSWER_S: Final = 900.0  # a model may have to be loaded before the first byte


class Api:
    """Calls to `server` (a URL without a path). token: an access token, for servers that ask for one."""

    def __init__(self, http: Outbound, server: str, token: str | None = None) -> None:
        self._http = http
        self.home = Origin.of(server)
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token.rpartition(':')[2]}"

    def models(self, path: str) -> list[dict[str, Any]]:
        """What `/api/tags` or `/api/ps` lists. Raises RemoteError."""
        return self._models(self._get(path), path)

    def running(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Loaded models, and weights on their way from a bucket, which not every server tells. Raises RemoteError."""
        body = self._get("/api/ps")
        fetching = body.get("fetching")
        return self._models(body, "/api/ps"), _objects(fetching) if isinstance(fetching, list) else []

    def show(self, model: str, *, verbose: bool = False) -> dict[str, Any]:
        """Raises NotFound."""
        with self._post("/api/show", {"model": model, "verbose": verbose}) as reply:
            return self._json(reply, f"model {one_line(model)}")

    def unload(self, model: str) -> None:
        """As soon as nobody uses it. Raises NotFound."""
        with self._post("/api/generate", {"model": model, "keep_alive": "0s"}) as reply:
            self._json(reply, f"model {one_line(model)}")

    def embed(self, model: str, text: str, options: dict[str, Any]) -> list[Any]:
        """The vector of `text`. Raises RemoteError."""
        with self._post("/api/embed", {"model": model, "input": text, **options}) as reply:
            vectors = self._json(reply, f"model {one_line(model)}").get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != 1 or not isinstance(vectors[0], list):
            raise AnswerInvalid(f"{self.home} answered /api/embed without a vector")
        return vectors[0]

    def copy(self, source: str, destination: str) -> None:
        """Raises NotFound."""
        with self._post("/api/copy", {"source": source, "destination": destination}) as reply:
            if reply.status != 200:
                raise failure(reply, f"model {one_line(source)}")

    def delete(self, model: str, *, now: bool) -> None:
        """now: give its space back at once, not at the next sweep. Raises RemoteError."""
        body = json.dumps({"model": model, "now": now}).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        with self._http.request("DELETE", f"{self.home}/api/delete", headers=headers, body=body) as reply:
            if reply.status != 200:
                raise failure(reply, f"model {one_line(model)}")

    def has_blob(self, digest: Digest) -> bool:
        """Raises RemoteError."""
        with self._http.request("HEAD", f"{self.home}/api/blobs/{digest}", headers=self._headers) as reply:
            if reply.status not in {200, 404}:
                raise failure(reply, f"blob {digest}")
            return reply.status == 200

    def send_blob(self, digest: Digest, size: int, pieces: Callable[[], Iterable[bytes]]) -> None:
        """`pieces` are the whole blob, from its start whenever they are asked for. Raises RemoteError."""
        url, headers = f"{self.home}/api/blobs/{digest}", {**self._headers, "Content-Type": "application/octet-stream"}
        with self._http.request("POST", url, headers=headers, body=pieces, length=size, read_s=_ANSWER_S) as reply:
            if reply.status not in {200, 201}:
                raise failure(reply, f"blob {digest}")

    def abort(self) -> None:
        """Cut every request under way, from any thread; for good."""
        self._http.abort()

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The objects of a streamed answer; closing the iterator ends the request. Raises RemoteError."""
        with self._post(path, body) as reply:
            if reply.status != 200:
                raise failure(reply, f"model {one_line(str(body.get('model', '')))}")
            for line in _lines(reply):
                message = _parse(line, self.home)
                if "error" in message:
                    raise RemoteError(one_line(str(message["error"])) or f"{self.home} ended the answer with an error")
                yield message

    def _get(self, path: str) -> dict[str, Any]:
        with self._http.request("GET", f"{self.home}{path}", headers=self._headers) as reply:
            return self._json(reply, path)

    def _models(self, body: dict[str, Any], path: str) -> list[dict[str, Any]]:
        models = body.get("models")
        if not isinstance(models, list):
            raise AnswerInvalid(f"{self.home} answered {path} without a list of models")
        return _objects(models)

    def _post(self, path: str, body: dict[str, Any]) -> Reply:
        headers = {**self._headers, "Content-Type": "application/json"}
        return self._http.request(
            "POST", f"{self.home}{path}", headers=headers, body=json.dumps(body).encode(), read_s=_ANSWER_S
        )

    def _json(self, reply: Reply, what: str) -> dict[str, Any]:
        if reply.status != 200:
            raise failure(reply, what)
        return _parse(reply.read(_MAX_ANSWER), self.home)


def _lines(reply: Reply) -> Iterator[bytes]:
    """Non-empty lines as they come. Raises AnswerInvalid for one too long."""
    rest = b""
    for piece in reply.stream():
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > _MAX_LINE:
            raise AnswerInvalid(f"{Origin.of(reply.url)} streams a line of more than {_MAX_LINE} bytes")
    if rest:
        yield rest


def _parse(raw: bytes, home: Origin) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise AnswerInvalid(f"{home} answered with something that is not a JSON object")
    return body


def _objects(listed: list[Any]) -> list[dict[str, Any]]:
    return [each for each in listed if isinstance(each, dict)]
