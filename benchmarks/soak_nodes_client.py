"""Requests to whichever node answers: what a client makes of nodes that are killed, stand still or are not there."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from benchmarks.soak_load import Tally

TIMEOUT_S: Final = 15.0  # without a byte; a process that is made to stand still may do so for longer
PATIENCE_S: Final = 180.0  # of one thing that a client wants; a killed writer may hold an upload for 30 s of it
_PAUSE_S: Final = 0.1
_AGAIN: Final = frozenset({503})
Body = bytes | Iterable[bytes] | None


class Unanswered(Exception):
    """Nobody knows whether the request was carried out, or, where it is `overdue`, whether it still will be."""

    def __init__(self, reason: str, *, is_overdue: bool) -> None:
        super().__init__(reason)
        self.is_overdue = is_overdue


class GaveUp(Exception):
    """No node did what was asked for within a client's patience."""


@dataclass(frozen=True, slots=True)
class Answer:
    """is_haunted: an earlier try of the same request may still be carried out."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_haunted: bool = False


class Spray:
    """One client with one token. Every request goes to a node by chance, on a connection of its own."""

    def __init__(self, hosts: Sequence[str], token: str, tally: Tally, draw: random.Random) -> None:
        self.hosts, self.tally, self.draw = hosts, tally, draw
        self._token = token

    def once(self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Raises Unanswered."""
        host = self.draw.choice(self.hosts)
        sent = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        is_chunked = body is not None and not isinstance(body, bytes)
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, sent, encode_chunked=is_chunked)
                response = connection.getresponse()
                told = {name.lower(): value for name, value in response.getheaders()}
                answer = Answer(response.status, told, response.read())
            except TimeoutError as error:
                self.tally.add(f"no answer in time: {method}")
                raise Unanswered(f"{method} {path}: no answer", is_overdue=True) from error
            except (OSError, http.client.HTTPException) as error:
                self.tally.add(f"connection lost: {method} ({type(error).__name__})")
                raise Unanswered(f"{method} {path}: {error!r}", is_overdue=False) from error
        if answer.status >= 500:
            self.tally.add(f"{answer.status} to {method}: {_reason(answer.body)}")
            if answer.status != 503:
                self.tally.wonder(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask until a node answers something else than "later". Raises GaveUp."""
        deadline, is_haunted, last = time.monotonic() + PATIENCE_S, False, ""
        while time.monotonic() < deadline:
            try:
                answer = self.once(method, path, body, headers)
                if answer.status not in _AGAIN:
                    return Answer(answer.status, answer.headers, answer.body, is_haunted)
                last = f"{answer.status} {answer.body[:200]!r}"
            except Unanswered as error:
                is_haunted, last = is_haunted or error.is_overdue, str(error)
            self.pause()
        raise GaveUp(f"{method} {path}: {last}")

    def break_off(self, method: str, path: str, body: bytes, part: float) -> None:
        """Announce all of the body, send a part of it, and hang up."""
        host, _, port = self.draw.choice(self.hosts).rpartition(":")
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self._token}\r\n"
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: int(len(body) * part)]
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.sendall(data)

    def pause(self) -> None:
        time.sleep(_PAUSE_S * self.draw.uniform(0.5, 2))


def _reason(body: bytes) -> str:
    """What the first error of an OCI body says."""
    try:
        error = json.loads(body)["errors"][0]
        return f"{error['message']} {error['detail'].get('reason', '')}".strip()
    except (ValueError, LookupError, AttributeError, TypeError):
        return repr(body[:80])


def path_of(location: str) -> str:
    """Whichever node gave it: a session is everybody's."""
    return urlsplit(location).path
