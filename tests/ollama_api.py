"""The ollama command line's side of the Ollama API: its requests to the byte, as Go serialises them, on real sockets.

Structs of Go are written with every field that has no omit rule, so absent values come as "", null and false.
Source: the Ollama API, "What the real clients call".
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from auth.keys import PrivateKey
from storage.digest import Digest
from tests.client import Client
from tests.ollama_client import AGENT, Transport, go_json

JSON = dict[str, Any]
_CHUNK = 32 * 2**10


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[JSON]:
        """The objects of a stream, as the client's scanner cuts them."""
        assert self.content_type == "application/x-ndjson", self.body
        assert self.body.endswith(b"\n")
        found = [json.loads(line) for line in self.body.removesuffix(b"\n").split(b"\n")]
        assert not [line for line in found[:-1] if "error" in line or line.get("done")]
        return found

    @property
    def error(self) -> str:
        return str(self.json["error"])


class GoClient:
    """One process of the command line. key: signs every request, as OLLAMA_AUTH=1 asks for."""

    def __init__(self, url: str, *, key: PrivateKey | None = None, extra: Mapping[str, str] | None = None) -> None:
        """extra: headers that something between adds, a proxy."""
        self._url, self._key, self._extra = url, key, extra or {}
        self._transport = Transport()

    def heartbeat(self) -> None:
        """What every command but `-v` does first; a failure is its end."""
        assert self.do("HEAD", "/").status == 200

    def do(self, method: str, path: str, body: JSON | None = None) -> Answer:
        return self._send(method, path, body, "application/json")

    def stream(self, path: str, body: JSON) -> Answer:
        return self._send("POST", path, body, "application/x-ndjson")

    def create_blob(self, data: bytes) -> tuple[str, int]:
        """Digest and status; the body has no length that the client would know, and the type of all its requests."""
        digest = str(Digest.of(data))
        path, headers = self._signed("POST", f"/api/blobs/{digest}", "application/json")
        headers |= {"Transfer-Encoding": "chunked", "Accept-Encoding": "gzip"}
        client = Client(self._url.removeprefix("http://"))
        return digest, client.request("POST", path, _pieces(data), headers, chunked=True).status

    def _send(self, method: str, path: str, body: JSON | None, accept: str) -> Answer:
        target, headers = self._signed(method, path, accept)
        reply = self._transport.send(method, self._url + target, headers, b"" if body is None else go_json(body))
        return Answer(reply.status, reply.headers.get("Content-Type", ""), reply.read())

    def _signed(self, method: str, path: str, accept: str) -> tuple[str, dict[str, str]]:
        headers = {"User-Agent": AGENT, "Content-Type": "application/json", "Accept": accept, **self._extra}
        if self._key is None:
            return path, headers
        target = f"{path}?ts={int(time.time())}"
        signature = base64.b64encode(self._key.sign(f"{method},{target}".encode())).decode()
        return target, headers | {"Authorization": f"{self._key.public.blob_base64}:{signature}"}


def _pieces(data: bytes) -> Iterator[bytes]:
    yield from (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))


def show_request(model: str = "", name: str = "", *, verbose: bool = False, system: str = "") -> JSON:
    return {"model": model, "system": system, "template": "", "verbose": verbose, "options": None, "name": name}


def generate_request(model: str, prompt: str = "", *, options: JSON | None = None, **given: Any) -> JSON:
    fields = {"model": model, "prompt": prompt, "suffix": "", "system": "", "template": ""}
    return fields | given | {"options": options}


def chat_request(model: str, messages: list[JSON], *, options: JSON | None = None, **given: Any) -> JSON:
    return {"model": model, "messages": messages} | given | {"options": options}


def embed_request(model: str, text: str, **given: Any) -> JSON:
    return {"model": model, "input": text} | given | {"options": None}


def create_request(model: str, **given: Any) -> JSON:
    return {"model": model} | given | {"name": ""}


def transfer_request(name: str, *, insecure: bool = False) -> JSON:
    """Of pull and push."""
    return {"model": ""} | ({"insecure": True} if insecure else {}) | {"username": "", "password": "", "name": name}


def delete_request(name: str) -> JSON:
    return {"model": "", "name": name}
