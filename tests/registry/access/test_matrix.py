"""Everybody asks for everything, everywhere; each answer is what the access rules say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from auth.policy import Right
from auth.rights import RIGHTS
from registry.app import HANDLERS
from tests.client import Answer
from tests.registry.access.callers import Caller, Headers, everybody, forgeries, nobodies, own_token, signable
from tests.registry.access.expectations import (
    TARGETS,
    Ask,
    Place,
    all_asks,
    content_type_of,
    expected,
    registry_asks,
)
from tests.registry.access.world import NO_REPOSITORY, OTHER, PRIVATE, PUBLIC, Wire, World
from tests.registry.conformance.wire import OCI_MANIFEST, digest_of

TIRELESS = "ollama-transfer/0.33.0"
_SHOWN = 60


class Asker:
    """Sends asks and collects what was answered otherwise than expected."""

    def __init__(self, world: World, place: Place) -> None:
        self.place, self.wrong, self.count = place, [], 0
        self._wire = Wire(world.host)
        self._always: Headers = {"X-Forwarded-For": "203.0.113.9"} if place is Place.PROXIED else {}

    def ask(self, caller: Caller, ask: Ask, more: Headers | None = None) -> Answer:
        target = signable(ask.target) if "key" in caller.name and not ask.is_registry else ask.target
        headers = {**self._always, **caller.headers(ask.method, target), **(more or {})}
        if ask.body:
            headers["Content-Type"] = content_type_of(ask)
        self.count += 1
        return self._wire.send(ask.method, target, headers, ask.body)

    def judge(self, caller: Caller, asks: Sequence[Ask], more: Headers | None = None) -> None:
        is_tireless = bool(more and more.get("User-Agent", "").startswith("ollama-transfer/"))
        for ask in asks:
            answer = self.ask(caller, ask, more)
            wanted = expected(caller, ask, self.place, is_tireless=is_tireless)
            if answer.status != wanted:
                self._note(caller, ask, f"{answer.status} instead of {wanted}: {answer.body[:160]!r}")
            elif answer.status == 401 and not answer.headers.get("WWW-Authenticate", "").startswith("Bearer realm="):
                self._note(caller, ask, "401 without a challenge")

    def _note(self, caller: Caller, ask: Ask, what: str) -> None:
        self.wrong.append(f"{self.place.name} {caller.name}: {ask.method} {ask.target} [{ask.repository}] {what}")

    def verdict(self) -> None:
        shown = "\n".join(self.wrong[:_SHOWN])
        assert not self.wrong, f"{len(self.wrong)} of {self.count} answers are wrong:\n{shown}"


def test_the_matrix_knows_every_route_of_the_registry(network):
    """A handler that nobody added here fails this test."""
    asked = {ask.method + kind_of(ask.target) for ask in registry_asks(network, PRIVATE)}

    assert asked == {method + kind for method, kind in HANDLERS}
    unjudged = {Right.PUBLIC, Right.MANAGE, Right.ADMIN, Right.LOGIN}
    assert set(RIGHTS.values()) - unjudged <= {
        Right.PING, Right.CATALOG, Right.PULL, Right.PUSH, Right.DELETE, Right.READ_MODELS, Right.INFER,
    }  # fmt: skip


def kind_of(target: str) -> str:
    path = target.partition("?")[0].removeprefix(f"/v2/{PRIVATE}/")
    if path.startswith("blobs/uploads/"):
        return "upload-start" if path == "blobs/uploads/" else "upload"
    noun = path.partition("/")[0]
    return noun if noun in ("tags", "referrers", "chunksums") else noun.removesuffix("s")


@pytest.mark.parametrize("place", list(Place))
def test_everybody_gets_what_the_rules_say(world_at, place):
    world = world_at(place)
    asker, asks = Asker(world, place), all_asks(world)
    callers = everybody(world)
    if place is not Place.NETWORK:  # what proves nothing proves nothing anywhere: a few stand for all
        dropped = {each.name for each in nobodies(world)} - {each.name for each in nobodies(world)[::8]}
        callers = [each for each in callers if each.name not in dropped]
    before = world.state(with_leases=False)
    for caller in callers:
        asker.judge(caller, asks if caller.is_known or caller.name == "anonymous" else few(asks))

    asker.verdict()
    assert world.state(with_leases=False) == before


def few(asks: Sequence[Ask]) -> list[Ask]:
    """For callers who are nobody, each way to be nobody: what is public, what is private, and what has no name."""
    return [each for each in asks if each.repository in ("", PUBLIC, PRIVATE)]


def test_a_client_that_never_tires_is_told_403_once_it_is_known(network):
    asker = Asker(network, Place.NETWORK)
    asks = [ask for ask in all_asks(network) if ask.is_registry]
    for caller in everybody(network):
        if caller.name in ("anonymous", "pull key", "other token's bearer", "infer token", "key of another namespace"):
            asker.judge(caller, asks, {"User-Agent": TIRELESS})

    asker.verdict()


def test_what_the_server_signs_itself_is_let_in(network):
    """Or the forgeries would be refused for a reason that they all share."""
    wire = Wire(network.host)
    target = f"/v2/{PRIVATE}/manifests/v1"

    assert wire.send("GET", target, {"Authorization": f"Bearer {own_token(network)}"}).status == 200
    for name, text in forgeries(network).items():
        assert wire.send("GET", target, {"Authorization": f"Bearer {text}"}).status == 401, name


def test_a_token_covers_no_more_than_it_names(network):
    """Of a caller who may do everything: one token, one repository, one action."""
    access = [{"type": "repository", "name": PRIVATE, "actions": ["pull"]}]
    bearer = {"Authorization": f"Bearer {own_token(network, access=access)}"}
    narrow = Caller("narrow", lambda *_: bearer, is_known=True, has_token=True, may_infer=False)
    asker, wrong = Asker(network, Place.NETWORK), []
    for ask in (ask for ask in all_asks(network) if ask.is_registry):
        reads = ask.needs == "ping" or (ask.needs == "pull" and ask.repository in (PRIVATE, PUBLIC))
        status = asker.ask(narrow, ask).status
        if status != (ask.let_in if reads else 401):
            wrong.append((ask.method, ask.target, status))

    assert not wrong


@pytest.mark.parametrize(
    "change",
    [
        {"type": "repository(plugin)"},
        {"type": "registry"},
        {"name": "vault"},
        {"name": "vault/*"},
        {"name": "*"},
        {"name": "vault/model/"},
        {"name": "VAULT/model"},
        {"actions": ["PULL"]},
        {"actions": "pull"},
        {"actions": ["*"]},
    ],
)
def test_a_scope_means_what_it_says_and_nothing_like_it(network, change):
    access = [{"type": "repository", "name": PRIVATE, "actions": ["pull"]} | change]
    headers = {"Authorization": f"Bearer {own_token(network, access=access)}"}

    answer = Wire(network.host).send("GET", f"/v2/{PRIVATE}/manifests/v1", headers)

    assert answer.status == 401


MUTATIONS: dict[str, Callable[[World, str], Ask]] = {
    "push a tag": lambda world, name: put(name, "v2", world.content[OTHER].manifest),
    "move a tag": lambda world, name: put(name, "v1", b"{}"),
    "delete a tag": lambda world, name: Ask("DELETE", f"/v2/{name}/manifests/v1", "delete", name),
    "delete a manifest": lambda world, name: Ask(
        "DELETE", f"/v2/{name}/manifests/{digest_of(world.content[name].manifest)}", "delete", name
    ),
    "delete a blob": lambda world, name: Ask(
        "DELETE", f"/v2/{name}/blobs/{digest_of(world.content[name].layer)}", "delete", name
    ),
    "push a blob": lambda world, name: Ask(
        "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(b'new')}", "push", name, body=b"new"
    ),
    "open a session": lambda world, name: Ask("POST", f"/v2/{name}/blobs/uploads/", "push", name),
    "make a repository": lambda world, name: Ask("POST", f"/v2/{NO_REPOSITORY}/blobs/uploads/", "push", NO_REPOSITORY),
    "mount": lambda world, name: Ask(
        "POST", f"/v2/{name}/blobs/uploads/?mount={digest_of(world.content[OTHER].layer)}&from={OTHER}", "push", name
    ),
    "delete a model": lambda world, name: Ask(
        "DELETE", "/api/delete", "manage", name, body=f'{{"model": "{name}:v1", "now": true}}'.encode()
    ),
}


def put(name: str, tag: str, manifest: bytes) -> Ask:
    return Ask("PUT", f"/v2/{name}/manifests/{tag}", "push", name, body=manifest)


@pytest.mark.parametrize("change", list(MUTATIONS))
def test_what_is_refused_changes_nothing(network, change):
    asker, callers, refused = Asker(network, Place.NETWORK), everybody(network), 0
    before = network.state()
    for caller in callers:
        for name in (PUBLIC, PRIVATE):
            ask = MUTATIONS[change](network, name)
            if expected(caller, ask, Place.NETWORK) in (401, 403):
                refused += 1
                assert asker.ask(caller, ask, {"Content-Type": OCI_MANIFEST}).status in (401, 403), caller.name

    assert refused > 50
    assert network.state() == before


@pytest.mark.parametrize("place", [Place.NETWORK, Place.LOOPBACK])
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Real-IP": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1;host=localhost"},
        {"Via": "1.1 localhost"},
        {"Host": "192.168.1.1"},
    ],
)
def test_nobody_talks_himself_into_being_local(world_at, place, headers):
    asker = Asker(world_at(place), place)
    anonymous = Caller("anonymous", lambda *_: {})
    for ask in (ask for ask in all_asks(world_at(place)) if not ask.is_registry):
        assert asker.ask(anonymous, ask, headers).status == 403, ask


@pytest.fixture
def world_at(request: pytest.FixtureRequest) -> Callable[[Place], World]:
    fixtures = {Place.OPEN: "unlocked", Place.NETWORK: "network"}
    return lambda place: request.getfixturevalue(fixtures.get(place, "loopback"))


def test_the_expectations_differ_from_place_to_place(network):
    """They are the rules' table: a caller without credentials gets most in open, least on the network."""
    anonymous = Caller("anonymous", lambda *_: {})
    asks = all_asks(network)
    refused = {place: sum(expected(anonymous, ask, place) in (401, 403) for ask in asks) for place in Place}

    assert refused[Place.OPEN] == 0 < refused[Place.LOOPBACK] < refused[Place.NETWORK] == refused[Place.PROXIED]
    assert {expected(replace(anonymous, is_known=True), ask, Place.NETWORK) for ask in asks} >= {200, 401, 403}
    assert len(TARGETS) == 4


@pytest.mark.parametrize("place", [Place.NETWORK, Place.LOOPBACK])
def test_administration_is_for_the_administrators_token_alone(world_at, place):
    """From this machine too; and not by a token that it fetched, which covers repositories."""
    world = world_at(place)
    asker, routes = Asker(world, place), [each for each, right in RIGHTS.items() if right is Right.ADMIN]
    let_in = [
        (caller.name, method, route)
        for caller in everybody(world)
        for method, route in routes
        if not caller.is_admin
        and asker.ask(caller, Ask(method, route.replace("*", "x"), "admin")).status not in (401, 403)
    ]

    assert let_in == []
