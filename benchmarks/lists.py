"""Lists of 10,000 things over a real server: median and 95th percentile of each, as those who may ask, and the
processor time that the server spends on one, which tells more on a machine that others use too.

    python benchmarks/lists.py [--repositories 10000] [--tags 10000] [--requests 40]

The rows are written straight into the database, in seconds: half the namespaces are private, and in the order of names
all of them come before the public ones, which is the worst order for those who may not read them. One repository holds
all the tags, and as many referrers of one manifest.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from auth.tokens import AccessTokens  # noqa: E402
from migrations.run import upgrade  # noqa: E402
from storage import models as rows  # noqa: E402
from storage.db import Database  # noqa: E402
from storage.drivers.filesystem import FilesystemDriver  # noqa: E402
from tests.server import Server, running_server  # noqa: E402
from tests.tiny_gguf import write_tiny_gguf  # noqa: E402

NAMESPACES = 100
BIG = "public-00/model-00000"
SUBJECT = f"sha256:{hashlib.sha256(b'subject').hexdigest()}"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OLLAMA = "application/vnd.ollama.image."
FAR_AWAY = {"X-Forwarded-For": "203.0.113.9"}  # what makes a peer on this machine count as another one


def fill(database: Database, driver: FilesystemDriver, weights: Path, repositories: int, tags: int) -> None:
    """Rows as pushes would have left them; the blobs are few, as models that share weights have them."""
    half = NAMESPACES // 2
    names = [f"private-{number:02}" for number in range(half)] + [f"public-{number:02}" for number in range(half)]
    spaces = [
        {"id": place, "name": name, "is_private": name.startswith("private"), "created_at": 0.0}
        for place, name in enumerate(names, start=1)
    ]
    homes = [
        {
            "id": place + 1,
            "namespace_id": place % NAMESPACES + 1,
            "name": f"{names[place % NAMESPACES]}/model-{place // NAMESPACES:05}",
            "created_at": 0.0,
        }
        for place in range(repositories)
    ]
    blobs = list(_blobs(driver, weights))
    links = [
        {"repository_id": home["id"], "blob_id": blob["id"], "lease_until": 0.0, "leased_by": None}
        for home in homes
        for blob in (blobs[0], blobs[1 + home["id"] % (len(blobs) - 1)])
    ]
    big = next(home["id"] for home in homes if home["name"] == BIG)
    models = [_model(home["id"], blobs) for home in homes]
    referrers = [_referrer(repositories + number, big, number) for number in range(1, tags + 1)]
    held = [
        {"manifest_id": model["id"], "digest": blob["digest"], "blob_id": blob["id"]}
        for model in models
        for blob in (blobs[0], blobs[1 + model["id"] % (len(blobs) - 1)])
    ]
    names_of = [(model["repository_id"], "latest", model["id"]) for model in models]
    names_of += [(big, f"v{number:05}", repositories + 1) for number in range(tags)]
    tagged = [
        {"repository_id": home, "name": name, "manifest_id": manifest, "updated_at": 1.7e9 + place % 7919}
        for place, (home, name, manifest) in enumerate(names_of)
    ]
    with database.write() as session:
        for table, values in (
            (rows.Namespace, spaces),
            (rows.Repository, homes),
            (rows.Object, [{**blob["object"], "state": "live", "lease_until": 0.0} for blob in blobs]),
            (rows.Blob, [{key: blob[key] for key in ("id", "digest", "object_id")} for blob in blobs]),
            (rows.BlobLink, links),
            (rows.Manifest, [*models, *referrers]),
            (rows.ManifestBlob, held),
            (rows.Tag, tagged),
        ):
            session.execute(insert(table), values)


def _blobs(driver: FilesystemDriver, weights: Path) -> Iterator[dict[str, Any]]:
    """The weights, and some configs."""
    facts = {"model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "file_type": "Q4_K_M"}
    configs = [json.dumps({**facts, "model_type": f"{number}B"}).encode() for number in range(1, 21)]
    for number, data in enumerate([weights.read_bytes(), *configs], start=1):
        key = f"objects/be/bench{number}"
        driver.write(key, io.BytesIO(data))
        stored = {"id": number, "storage_key": key, "size": len(data)}
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        yield {"id": number, "digest": digest, "object_id": number, "object": stored, "size": len(data)}


def _model(number: int, blobs: list[dict[str, Any]]) -> dict[str, Any]:
    config = blobs[1 + number % (len(blobs) - 1)]
    body = {
        "schemaVersion": 2,
        "mediaType": DOCKER,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config["digest"],
            "size": config["size"],
        },
        "layers": [{"mediaType": f"{OLLAMA}model", "digest": blobs[0]["digest"], "size": blobs[0]["size"]}],
        "number": number,
    }
    return _manifest(number, number, body)


def _referrer(row_id: int, repository_id: int, number: int) -> dict[str, Any]:
    note = {"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "example.number": f"{number:05}"}
    subject = {"mediaType": DOCKER, "digest": SUBJECT, "size": 7}
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject, "annotations": note}
    kind = f"application/vnd.example.kind{number % 10}"
    return _manifest(row_id, repository_id, {**body, "artifactType": kind})


def _manifest(row_id: int, repository_id: int, body: dict[str, Any]) -> dict[str, Any]:
    raw = json.dumps(body).encode()
    return {
        "id": row_id,
        "repository_id": repository_id,
        "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
        "media_type": body["mediaType"],
        "artifact_type": body.get("artifactType"),
        "subject": SUBJECT if "subject" in body else None,
        "annotations": body.get("annotations"),
        "size": len(raw),
        "raw": raw,
        "pushed_at": 0.0,
    }


def lists(n: int) -> list[tuple[str, str]]:
    """What is measured: a name and a path."""
    return [
        ("tags, default", f"/v2/{BIG}/tags/list"),
        (f"tags, n={n}", f"/v2/{BIG}/tags/list?n={n}&last=v05000"),
        ("catalog, default", "/v2/_catalog"),
        (f"catalog, n={n}", f"/v2/_catalog?n={n}"),
        (f"catalog, n={n}, late", f"/v2/_catalog?n={n}&last=public-20"),
        ("referrers", f"/v2/{BIG}/referrers/{SUBJECT}"),
        ("referrers of a type", f"/v2/{BIG}/referrers/{SUBJECT}?artifactType=application/vnd.example.kind3"),
        ("/api/tags", "/api/tags"),
    ]


@dataclass(frozen=True)
class Measured:
    status: int
    size: int  # of the answer
    seconds: list[float]
    cpu_s: float  # of the server, for one request


def cpu_s(server: Server) -> float:
    """Processor seconds of all the server's processes up to now."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.descendants())
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def measure(server: Server, path: str, headers: dict[str, str], requests: int) -> Measured:
    """The first requests do not count: each worker has some to itself."""
    connection = http.client.HTTPConnection(server.host, timeout=600)
    seconds, status, size, before = [], 0, 0, 0.0
    for number in range(requests + 6):
        if number == 6:
            before = cpu_s(server)
        start = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        status, size = answer.status, len(answer.read())
        if number >= 6:
            seconds.append(time.perf_counter() - start)
        elif time.perf_counter() - start > 0.5:
            print(f"    a first request took {time.perf_counter() - start:.1f} s")
    connection.close()
    return Measured(status, size, seconds, (cpu_s(server) - before) / requests)


def report(who: str, what: str, found: Measured) -> None:
    if found.status != 200:
        print(f"{who:9} {what:22} refused: {found.status}")
        return
    p50, p95 = statistics.median(found.seconds) * 1e3, statistics.quantiles(found.seconds, n=20)[-1] * 1e3
    times = f"p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   server's cpu {found.cpu_s * 1e3:6.1f} ms"
    print(f"{who:9} {what:22} {found.size:>9} bytes   {times}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=int, default=10_000)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tonnage-bench-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        url = f"sqlite:///{data}/tonnage.db"
        upgrade(url)
        database = Database(url)
        weights = write_tiny_gguf(Path(folder) / "tiny.gguf")
        start = time.perf_counter()
        fill(database, FilesystemDriver(data), weights, given.repositories, given.tags)
        print(f"filled in {time.perf_counter() - start:.1f} s")
        tokens = AccessTokens(database)
        some = [f"private-{number:02}" for number in range(3, 50, 10)]
        bearer = {
            "token": tokens.create("reader", scopes=["pull", "infer"], namespaces=some),
            "admin": tokens.create("root", scopes=["admin"]),
        }
        database.close()
        callers = {who: {"Authorization": f"Bearer {secret}", **FAR_AWAY} for who, secret in bearer.items()}
        with running_server(data) as server:
            for who, headers in {"stranger": FAR_AWAY, "here": {}, **callers}.items():
                for what, path in lists(1000):
                    report(who, what, measure(server, path, headers, given.requests))


if __name__ == "__main__":
    main()
