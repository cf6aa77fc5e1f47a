"""Clients that push, mount, delete and pull at once, and know what must be there."""

from __future__ import annotations

import json
import random
import threading

from storage.digest import Digest
from tests.client import Client

CONTENTS = [bytes([number]) * (1000 + number) for number in range(6)]  # few: pushes meet on the same blobs


def manifest(contents: list[bytes], note: str) -> bytes:
    described = [
        {"mediaType": "application/octet-stream", "digest": str(Digest.of(data)), "size": len(data)}
        for data in contents
    ]
    config, *layers = described
    return json.dumps({"schemaVersion": 2, "config": config, "layers": layers, "annotations": {"n": note}}).encode()


class Pusher(threading.Thread):
    """Pushes, skips what HEAD says is there, mounts, deletes, and pulls back what should be there."""

    def __init__(self, host: str, token: str, number: int, *, pushes: int) -> None:
        super().__init__()
        self._client, self._random, self._pushes = Client(host, token), random.Random(number), pushes
        self._repository = f"team/model{number % 2}"
        self._other = f"team/model{1 - number % 2}"
        self._number = number
        self.failures: list[str] = []

    def run(self) -> None:
        mine: dict[str, list[bytes]] = {}
        for turn in range(self._pushes):
            contents = self._random.sample(CONTENTS, 3)
            for data in contents:
                self._bring(data)
            tag = f"v{self._number}-{turn}"
            raw = manifest(contents, tag)
            answer = self._client.put_manifest(self._repository, tag, raw, "application/vnd.oci.image.manifest.v1+json")
            if answer.status != 201:
                self.failures.append(f"push {tag}: {answer.status} {answer.body[:200]!r}")
                continue
            mine[tag] = contents
            if len(mine) > 2:
                gone, _ = (
                    mine.popitem() if self._random.random() < 0.5 else (next(iter(mine)), mine.pop(next(iter(mine))))
                )
                self._expect(
                    "DELETE", "/api/delete", 200, json.dumps({"model": f"{self._repository}:{gone}", "now": True})
                )
            for kept, expected in mine.items():
                self._pull(kept, expected)

    def _bring(self, data: bytes) -> None:
        digest = Digest.of(data)
        way = self._random.randrange(3)
        if way == 0 and self._client.request("HEAD", f"/v2/{self._repository}/blobs/{digest}").status == 200:
            return
        query = f"mount={digest}&from={self._other}" if way == 1 else ""
        answer = self._client.request("POST", f"/v2/{self._repository}/blobs/uploads/?{query}", b"")
        if answer.status == 202:
            self._expect("PUT", f"{answer.headers['Location']}?digest={digest}", 201, data)

    def _pull(self, tag: str, contents: list[bytes]) -> None:
        self._expect("GET", f"/v2/{self._repository}/manifests/{tag}", 200)
        for data in contents:
            answer = self._client.request("GET", f"/v2/{self._repository}/blobs/{Digest.of(data)}")
            if answer.status != 200 or answer.body != data:
                self.failures.append(f"blob of {tag}: {answer.status}")

    def _expect(self, method: str, path: str, status: int, body: bytes | str | None = None) -> None:
        data = body.encode() if isinstance(body, str) else body
        answer = self._client.request(method, path, data)
        if answer.status != status:
            self.failures.append(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
