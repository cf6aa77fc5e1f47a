"""What each request must be answered, written from the access rules alone.

| access | registry, read | registry, write | inference | managing models | admin |
|---|---|---|---|---|---|
| keyed, loopback listener and peer | public: all; private: `pull` | `push`, `delete` | all | all | admin token |
| keyed, any other | the same | the same | token with `infer` | rights on the namespace | admin token |
| open | all | all | all | all | all |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from tests.registry.access.callers import Caller
from tests.registry.access.world import ABSENT, NO_NAMESPACE, NO_REPOSITORY, PRIVATE, PUBLIC, World
from tests.registry.conformance.wire import OCI_MANIFEST, digest_of

TARGETS = (PUBLIC, PRIVATE, NO_REPOSITORY, NO_NAMESPACE)
_STORED = {PUBLIC, PRIVATE}
_SESSION = "blobs/uploads/00000000-0000-0000-0000-000000000000"
_MODELS = ("generate", "chat", "embed", "embeddings")


class Place(Enum):
    """Where a request comes in."""

    NETWORK = auto()
    LOOPBACK = auto()
    PROXIED = auto()  # to a loopback listener, through something that forwards
    OPEN = auto()


@dataclass(frozen=True)
class Ask:
    """One request, what it needs, and what it is answered when it is let in, wherever its repository stands.

    let_in: the status where the repository is here; absent: where it is not. Neither changes anything.
    """

    method: str
    target: str
    needs: str
    repository: str = ""
    let_in: int = 200
    absent: int = 404
    body: bytes = b""

    @property
    def is_registry(self) -> bool:
        return self.target == "/v2" or self.target.startswith("/v2/")


def registry_asks(world: World, name: str) -> Iterator[Ask]:
    content = world.content.get(name)
    blob = digest_of(content.layer) if content is not None else ABSENT
    manifest = digest_of(content.manifest) if content is not None else ABSENT
    for method in ("GET", "HEAD"):
        for path in (f"blobs/{blob}", "manifests/v1", f"manifests/{manifest}"):
            yield Ask(method, f"/v2/{name}/{path}", "pull", name)
        yield Ask(method, f"/v2/{name}/{_SESSION}", "push", name, let_in=404)
    yield Ask("GET", f"/v2/{name}/tags/list", "pull", name)
    yield Ask("GET", f"/v2/{name}/referrers/{manifest}", "pull", name, absent=200)
    yield Ask("GET", f"/v2/{name}/chunksums/{blob}", "pull", name)
    yield Ask("POST", f"/v2/{name}/blobs/uploads/?digest=none", "push", name, let_in=400, absent=400)
    yield Ask("PATCH", f"/v2/{name}/{_SESSION}", "push", name, let_in=404, body=b"bytes")
    yield Ask("PUT", f"/v2/{name}/{_SESSION}?digest={ABSENT}", "push", name, let_in=404)
    yield Ask("DELETE", f"/v2/{name}/{_SESSION}", "push", name, let_in=404)
    yield Ask("PUT", f"/v2/{name}/manifests/v1", "push", name, let_in=400, absent=400, body=b"{}")
    yield Ask("DELETE", f"/v2/{name}/manifests/{ABSENT}", "delete", name, let_in=404)
    yield Ask("DELETE", f"/v2/{name}/blobs/{ABSENT}", "delete", name, let_in=404)


def model_asks(name: str) -> Iterator[Ask]:
    """What is stored there is no model: whoever is let in is told so, and nothing is loaded."""
    body = json.dumps({"model": f"{name}:v1", "prompt": "x", "input": "x", "messages": [], "stream": False}).encode()
    for route in _MODELS:
        yield Ask("POST", f"/api/{route}", "infer", name, let_in=400, body=body)
    yield Ask("POST", "/api/show", "show", name, let_in=400, body=body)
    unknown = json.dumps({"model": f"{name}:never-pushed"}).encode()
    yield Ask("DELETE", "/api/delete", "manage", name, let_in=404, body=unknown)


def all_asks(world: World) -> list[Ask]:
    asks = [ask for name in TARGETS for ask in (*registry_asks(world, name), *model_asks(name))]
    asks += [Ask(method, path, "ping") for method in ("GET", "HEAD") for path in ("/v2/", "/v2")]
    asks += [Ask(method, "/v2/_catalog", "catalog") for method in ("GET", "HEAD")]
    asks += [Ask("GET", "/api/tags", "look"), Ask("HEAD", "/api/tags", "look"), Ask("GET", "/api/ps", "look")]
    return asks


def expected(caller: Caller, ask: Ask, place: Place, *, is_tireless: bool = False) -> int:
    """The status of the answer. is_tireless: the client asks for a new token whenever it is told 401."""
    if place is Place.OPEN or _is_allowed(caller, ask, place):
        return ask.absent if ask.repository not in _STORED and ask.repository else ask.let_in
    if ask.target.startswith("/api/"):
        return 403  # 401 makes the ollama client show its own sign-in in place of our words
    return 403 if is_tireless and caller.is_known else 401


def _is_allowed(caller: Caller, ask: Ask, place: Place) -> bool:
    is_local = place is Place.LOOPBACK
    match ask.needs:
        case "pull":
            return ask.repository.startswith("commons/") or caller.may("pull", ask.repository)
        case "push" | "delete":
            return caller.may(ask.needs, ask.repository)
        case "ping":
            return caller.is_known or caller.has_token
        case "catalog":
            return caller.is_known
        case "infer":
            return is_local or (caller.may_infer and caller.may("infer", ask.repository))
        case "show":
            reads = ask.repository.startswith("commons/") or caller.may("pull", ask.repository)
            asks = caller.may_infer and caller.may("infer", ask.repository)
            return is_local or (caller.is_known and (reads or asks))
        case "look":
            return is_local or caller.is_known
        case "manage":
            return is_local or caller.may("delete", ask.repository)
    raise AssertionError(ask.needs)


def content_type_of(ask: Ask) -> str:
    return OCI_MANIFEST if "/manifests/" in ask.target else "application/octet-stream"
