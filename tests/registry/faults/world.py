"""A server that pulls and pushes, registries of two makes behind proxies, and a model that all of it is about."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from auth.keys import PrivateKey
from tests.client import CONFIG_TYPE, DOCKER_MANIFEST, MODEL_TYPE, Client
from tests.docker_registry import docker_registry
from tests.exchange import Heard
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.server import Server, running_server

JSON = dict[str, Any]
MIB = 2**20
SUCCESS = {"status": "success"}
_TEMPLATE_TYPE = "application/vnd.ollama.image.template"
_numbers = itertools.count()


def fresh_path() -> str:
    """A repository that nobody has used before."""
    return f"a/m{next(_numbers)}"


@dataclass(frozen=True)
class Model:
    """Random layers, large and small, and a config. The first is the one that faults are about."""

    sizes: tuple[int, ...]

    @cached_property
    def blobs(self) -> dict[str, bytes]:
        """By digest, in the order of their transfer."""
        config = json.dumps({"model_format": "gguf", "model_family": "llama", "seed": os.urandom(8).hex()}).encode()
        return {digest_of(data): data for data in (*map(os.urandom, self.sizes), config)}

    @property
    def digests(self) -> list[str]:
        return list(self.blobs)

    @cached_property
    def manifest(self) -> bytes:
        *layers, config = ({"digest": digest, "size": len(data)} for digest, data in self.blobs.items())
        kinds = itertools.chain([MODEL_TYPE], itertools.repeat(_TEMPLATE_TYPE))
        body = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, **config},
            "layers": [{"mediaType": kind, **layer} for kind, layer in zip(kinds, layers, strict=False)],
        }
        return json.dumps(body, indent=1).encode()  # not as anybody would write it anew


@dataclass
class Registry:
    """A registry, reached straight by `client`, who may do everything, and by others through `proxy`."""

    make: str
    client: Client
    proxy: FaultProxy
    homes: dict[Model, str] = field(default_factory=dict)

    def name(self, path: str) -> str:
        """What a model of this registry is called elsewhere."""
        return f"{self.proxy.host}/{path}:v1"

    def local(self, path: str) -> str:
        """Where another server keeps it."""
        return f"{self.proxy.host.replace(':', '__')}/{path}"

    def offer(self, model: Model) -> str:
        """A repository that holds the model."""
        return put_model(self.client, model, fresh_path(), self.homes)

    def holds(self, path: str, model: Model) -> bool:
        return is_whole(self.client, path, model)


@dataclass
class World:
    """`near` may reach the registries, and `store`: another origin, where nobody may show credentials.

    far: what is behind the registry of our make. lonely: the other one, by a proxy of its own; None without it.
    """

    near: Server
    far: Server
    registries: dict[str, Registry]
    store: FaultProxy
    lonely: Registry | None = None
    homes: dict[Model, str] = field(default_factory=dict)

    @property
    def admin(self) -> Client:
        return Client(self.near.host, self.near.admin_token)

    def pull(self, registry: Registry, path: str) -> list[JSON]:
        return self._transfer("pull", registry, path)

    def push(self, registry: Registry, path: str) -> list[JSON]:
        return self._transfer("push", registry, path)

    def prepare(self, registry: Registry, model: Model) -> str:
        """A repository nearby that holds the model under the registry's name; its path there."""
        path = fresh_path()
        put_model(self.admin, model, registry.local(path), self.homes)
        return path

    def holds(self, registry: Registry, path: str, model: Model) -> bool:
        return is_whole(self.admin, registry.local(path), model)

    def is_visible(self, registry: Registry, path: str) -> bool:
        """Whether anybody could take what is there for a model."""
        stored = self.admin.request("GET", f"/v2/{registry.local(path)}/manifests/v1").status == 200
        shown = self.admin.post_json("/api/show", {"model": registry.name(path)}).status == 200
        return stored or shown

    def drop(self, registry: Registry, path: str) -> None:
        """Let the model, and its bytes, be gone from nearby."""
        body = json.dumps({"model": registry.name(path), "now": True}).encode()
        assert self.admin.request("DELETE", "/api/delete", body).status == 200

    def _transfer(self, verb: str, registry: Registry, path: str) -> list[JSON]:
        client = Client(self.near.host)
        return list(client.lines(f"/api/{verb}", {"model": registry.name(path), "insecure": True}))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_model(client: Client, model: Model, repository: str, homes: dict[Model, str]) -> str:
    """Store the model in `repository`: its bytes travel once, later its blobs are mounted from where they are."""
    for digest, data in model.blobs.items():
        source = f"?mount={digest}&from={homes[model]}" if model in homes else ""
        if not source or client.request("POST", f"/v2/{repository}/blobs/uploads/{source}").status != 201:
            push_blob(client, repository, data)
    homes[model] = repository
    answer = client.put_manifest(repository, "v1", model.manifest)
    assert answer.status == 201, answer.body
    return repository


def push_blob(client: Client, repository: str, data: bytes) -> None:
    """Past the proxy, whatever address the registry gives; some have a query in it already."""
    location = urlsplit(client.request("POST", f"/v2/{repository}/blobs/uploads/", b"").headers["Location"])
    query = "&".join(filter(None, (location.query, f"digest={digest_of(data)}")))
    done = client.request("PUT", f"{location.path}?{query}", data)
    assert done.status == 201, done.body


def is_whole(client: Client, repository: str, model: Model) -> bool:
    """Whether the repository has the manifest and every blob, byte for byte."""
    stored = client.request("GET", f"/v2/{repository}/manifests/v1", headers={"Accept": DOCKER_MANIFEST})
    return stored.body == model.manifest and all(
        client.request("GET", f"/v2/{repository}/blobs/{digest}").body == data for digest, data in model.blobs.items()
    )


def asks(method: str, path: str, part: str) -> Callable[[Heard], bool]:
    """Requests of this method to what `part` says of the repository `path`."""
    return lambda heard: heard.method == method and f"/v2/{path}/" in heard.target and part in heard.target


def error_of(lines: list[JSON]) -> str:
    """The one clear line that a transfer ended with; "" for success."""
    if lines[-1] == SUCCESS:
        return ""
    error = str(lines[-1]["error"])
    assert error.strip()
    assert "\n" not in error
    assert "Traceback" not in error
    return error


@contextmanager
def world_of(folder: Path, *, has_docker: bool) -> Iterator[World]:
    """near knows the proxies by name; its key is let in by the far server."""
    environ = {"TONNAGE_WORKERS": "1"}
    with ExitStack() as stack:
        proxies = [stack.enter_context(fault_proxy()) for _ in range(4)]
        # signatures name the address that was asked, and that is the proxy's
        far = stack.enter_context(running_server(folder / "far", {"TONNAGE_EXTERNAL_URL": proxies[0].url, **environ}))
        key = PrivateKey.generate()
        (folder / "near" / "keys").mkdir(mode=0o700, parents=True)
        key.save(folder / "near" / "keys" / "id_ed25519")
        allowed = ",".join(proxy.host for proxy in proxies)
        near = stack.enter_context(running_server(folder / "near", {"TONNAGE_ALLOWED_HOSTS": allowed, **environ}))
        client = Client(far.host, far.admin_token)
        let_in(client, key)
        ours, theirs, store, lonely = proxies
        ours.upstream = store.upstream = far.host
        world = World(near, far, {"tonnage": Registry("tonnage", client, ours)}, store)
        if has_docker:
            theirs.upstream = lonely.upstream = stack.enter_context(docker_registry(folder / "docker"))
            world.registries["docker"] = Registry("docker", Client(theirs.upstream), theirs)
            world.lonely = Registry("docker", Client(theirs.upstream), lonely)
        yield world


def let_in(client: Client, key: PrivateKey) -> None:
    """The key may push to the namespace that all paths here begin with."""
    grant = {"namespace": "a", "key": key.public.line, "role": "push", "create_namespace": True}
    answer = client.request("POST", "/admin/keys", json.dumps(grant).encode(), {"Content-Type": "application/json"})
    assert answer.status == 201, answer.body
