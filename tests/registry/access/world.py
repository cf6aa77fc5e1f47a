"""A server whose every right is known: three namespaces, the same content in each, and everybody who might ask."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import tests.server
from auth.grants import KeyGrants
from auth.keys import PrivateKey
from auth.tokens import AccessTokens
from migrations.run import upgrade
from storage.db import Database
from storage.reference import RepositoryName, Tag
from storage.store import Store
from tests.backends import driver_of
from tests.client import Answer
from tests.databases import url_of
from tests.registry.conformance.wire import OCI_MANIFEST, digest_of
from tests.server import Server, running_server

PUBLIC, PRIVATE, OTHER = "commons/model", "vault/model", "other/model"
NO_REPOSITORY, NO_NAMESPACE = "vault/ghost", "ghost/model"  # as long as PRIVATE, so that answers can be compared
ABSENT = digest_of(b"nowhere")
SCOPES = ("pull", "push", "delete", "infer", "admin")
_TABLES = (
    "namespaces", "repositories", "objects", "blobs", "blob_links", "manifests", "manifest_blobs", "tags", "uploads",
    "key_grants", "access_tokens", "used_nonces",
)  # fmt: skip


# of credentials, what they may do; when they were last used is no change
_SETTLED = {
    "access_tokens": "id, name, secret_sha256, scopes, namespaces, created_at, expires_at, revoked_at",
    "key_grants": "namespace_id, fingerprint, blob, role, comment, created_at",
}


@dataclass(frozen=True)
class Content:
    """What one repository holds: two blobs, a manifest tagged v1, and one that refers to it."""

    config: bytes
    layer: bytes
    manifest: bytes
    referrer: bytes

    @classmethod
    def of(cls, repository: str) -> Content:
        config, layer = json.dumps({"of": repository}).encode(), f"the layer of {repository}".encode() * 20
        manifest = _manifest(config, layer)
        return cls(config, layer, manifest, _manifest(config, layer, subject=_descriptor(manifest, OCI_MANIFEST)))


def _descriptor(data: bytes, media_type: str = "application/x") -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _manifest(config: bytes, layer: bytes, **more: object) -> bytes:
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(config),
        "layers": [_descriptor(layer)],
    }
    return json.dumps({**body, **more}).encode()


class Wire:
    """One connection that stays open: thousands of requests to one server, none with a header too many."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._connection = http.client.HTTPConnection(host, timeout=30)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        for is_last in (False, True):
            try:
                self._connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
                for name, value in headers.items():
                    self._connection.putheader(name, value)
                self._connection.putheader("Content-Length", str(len(body)))
                self._connection.endheaders(body)
                response = self._connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except (http.client.HTTPException, OSError):  # the server may close a connection between two requests
                self._connection.close()
                if is_last:
                    raise
        raise AssertionError

    def close(self) -> None:
        self._connection.close()


class World:
    """Somewhere to ask, what is stored there, and the credentials of everybody."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.keys = {name: PrivateKey.generate() for name in ("pull", "push", "admin", "other", "unknown")}
        self.secrets: dict[str, str] = {}
        self.content = {repository: Content.of(repository) for repository in (PUBLIC, PRIVATE, OTHER)}
        self.host = ""
        self.server: Server
        data.mkdir(parents=True)
        upgrade(self._url)
        database = self._rows = Database(self._url)
        try:
            self._store(Store(database, driver_of(data)))
            self._admit(database)
        finally:
            database.close()

    @property
    def _url(self) -> str:
        return url_of(self.data)

    def _store(self, store: Store) -> None:
        for namespace in ("commons", "vault", "other"):
            store.namespaces.create(namespace, is_private=namespace != "commons")
        for repository, content in self.content.items():
            name = RepositoryName(repository)
            for blob in (content.config, content.layer):
                store.blobs.put(name, blob)
            store.repositories.put_manifest(name, Tag("v1"), content.manifest, OCI_MANIFEST)
            store.repositories.put_manifest(name, Tag("signature"), content.referrer, OCI_MANIFEST)

    def _admit(self, database: Database) -> None:
        grants, tokens = KeyGrants(database), AccessTokens(database)
        for role in ("pull", "push", "admin"):
            for namespace in ("commons", "vault"):
                grants.add(namespace, self.keys[role].public, role)
        grants.add("other", self.keys["other"].public, "admin")
        for scope in SCOPES:
            self.secrets[scope] = tokens.create(scope, scopes=[scope])
        everything = ("pull", "push", "delete", "infer")
        self.secrets["bound"] = tokens.create("bound", scopes=everything, namespaces=["vault"])
        self.secrets["other"] = tokens.create("other", scopes=everything, namespaces=["other"])
        self.secrets["revoked"] = tokens.create("revoked", scopes=["admin"])
        tokens.revoke("revoked")
        self.secrets["expired"] = AccessTokens(database, now=lambda: 1.0).create(
            "expired", scopes=["admin"], expires_at=2.0
        )

    def state(self, *, with_leases: bool = True) -> dict[str, list[str]]:
        """Every row that requests may change; tables that tell of requests are not among them.

        with_leases: also for how long a blob stays without a manifest, which HEAD by its publisher makes longer.
        """
        columns = dict(_SETTLED)
        if not with_leases:
            columns |= {"blob_links": "repository_id, blob_id", "objects": "id, storage_key, size, state"}
        asked = {table: f"SELECT {columns.get(table, '*')} FROM {table}" for table in _TABLES}
        with self._rows.connect() as rows:
            return {table: sorted(map(repr, rows.exec_driver_sql(query))) for table, query in asked.items()}


@contextlib.contextmanager
def serve(data: Path, environ: Mapping[str, str] | None = None, *, listen: str = "127.0.0.1:0") -> Iterator[World]:
    """A world with its server; one that listens on every address is reached by 127.0.0.1 all the same."""
    world = World(data)
    with serving(world, environ, listen=listen):
        yield world


@contextlib.contextmanager
def serving(world: World, environ: Mapping[str, str] | None = None, *, listen: str = "127.0.0.1:0") -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tests.server, "_LISTENING", re.compile(r"listening on http://((?:127\.0\.0\.\d+|0\.0\.0\.0):\d+)")
        )
        with running_server(world.data, environ, listen=listen) as server:
            world.server = server
            server.host = world.host = server.host.replace("0.0.0.0", "127.0.0.1")
            Wire(world.host).send("GET", "/healthz", {})  # it listens before it is ready to answer
            yield world
