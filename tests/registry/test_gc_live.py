"""gc while clients push, over several web processes: what was answered 201 and not deleted can be pulled."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path

from registry.config import Config
from storage.db import Database
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.store import Store
from tests.client import Client
from tests.server import running_server

PUSHERS, SWEEPERS, PUSHES = 4, 2, 12
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

    def __init__(self, host: str, token: str, number: int) -> None:
        super().__init__()
        self._client, self._random = Client(host, token), random.Random(number)
        self._repository = f"team/model{number % 2}"
        self._other = f"team/model{1 - number % 2}"
        self._number = number
        self.failures: list[str] = []

    def run(self) -> None:
        mine: dict[str, list[bytes]] = {}
        for turn in range(PUSHES):
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


def test_what_was_pushed_can_be_pulled_while_several_sweep(tmp_path: Path) -> None:
    environ = {"TONNAGE_ACCESS": "open", "TONNAGE_WORKERS": "3", "TONNAGE_THREADS": "8"}
    with running_server(tmp_path / "data", environ) as server:
        config = Config(data=str(server.data), database_url=f"sqlite:///{server.data}/tonnage.db")
        done, swept = threading.Event(), list[int]()

        def sweep() -> None:
            store = Store(Database(config.database_url), FilesystemDriver(config.data_path))
            while not done.is_set():
                swept.append(store.collector.sweep().objects)
                done.wait(0.02)
            store.database.close()

        sweepers = [threading.Thread(target=sweep) for _ in range(SWEEPERS)]
        # one principal each: what two pushes of one principal hold together, a manifest of the first uses up
        tokens = [server.create_token(f"pusher{number}", "push", "delete") for number in range(PUSHERS)]
        pushers = [Pusher(server.host, token, number) for number, token in enumerate(tokens)]
        for thread in (*sweepers, *pushers):
            thread.start()
        deadline = time.monotonic() + 120
        for pusher in pushers:
            pusher.join(max(0.0, deadline - time.monotonic()))
        done.set()
        for thread in sweepers:
            thread.join(30)
        assert not any(thread.is_alive() for thread in (*sweepers, *pushers))
        assert [failure for pusher in pushers for failure in pusher.failures] == []
        assert len(swept) > 2 * SWEEPERS
