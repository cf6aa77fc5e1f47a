"""Limits of rate: the bucket by a clock of the test's own, transfers by what they may have moved at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
from click.testing import CliRunner

from registry.cli import group
from registry.config import Config, ConfigInvalid, load_config, parse_rate
from registry.remotes import http, pace
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import ConnectionCut
from registry.remotes.http import Outbound
from registry.remotes.incoming import Incoming
from registry.remotes.jobs import Job
from registry.remotes.rate import Limits, RateLimit
from storage.digest import Digest
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from tests.faulty_registry import FaultyRegistry, faulty_registry
from tests.registry.transfers import MIB, Pair, add_model, pair
from tests.server import wait_for
from tests.stored_models import open_store
from tests.tiny_gguf import write_tiny_gguf

BURST_S = 0.25
RATE = 4 * MIB


@dataclass
class Clock:
    """Time that passes only where somebody waits."""

    ns: int = 5_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def wait(self, seconds: float) -> None:
        self.ns += -int(-seconds * 1e9 // 1)  # up: nobody wakes too early


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as running:
        yield running


@pytest.mark.parametrize("size", [1, 7, 997, 65536, 400_000])
def test_many_takes_keep_the_rate_to_the_byte(clock: Clock, size: int) -> None:
    rate, began, passed = 1_000_003, clock.ns, 0
    limit = RateLimit(rate, clock_ns=clock.now_ns)

    for _ in range(20_000):
        clock.wait(limit.take(size))
        passed += size
        assert passed <= rate * ((clock.ns - began) / 1e9 + BURST_S) + 1e-3

    slack = 20_000 * 2e-9  # waits end on whole nanoseconds
    assert (clock.ns - began) / 1e9 == pytest.approx(max(0.0, passed / rate - BURST_S), abs=slack)


def test_threads_that_ask_at_once_get_what_one_would_get(clock: Clock) -> None:
    limit, waits, barrier = RateLimit(MIB, clock_ns=clock.now_ns), list[float](), threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        waits.extend([limit.take(8192) for _ in range(500)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ends = accumulate([8192 / MIB] * 4000)
    assert sorted(waits) == pytest.approx([max(0.0, end - BURST_S) for end in ends])


def test_time_that_was_not_used_is_not_saved_up(clock: Clock) -> None:
    limit = RateLimit(MIB, clock_ns=clock.now_ns)
    clock.wait(1000)

    assert limit.take(MIB) == pytest.approx(1 - BURST_S)


class Count:
    """Bytes as they pass, held against the most that may have passed by then."""

    def __init__(self) -> None:
        self.began = time.monotonic()  # before the bucket is made: what is allowed can only be more
        self.limit = RateLimit(RATE)
        self.passed = 0

    def add(self, size: int) -> None:
        self.passed += size
        assert self.passed <= RATE * (time.monotonic() - self.began + BURST_S)


def test_two_bodies_that_come_share_one_limit(registry: FaultyRegistry) -> None:
    url = f"{registry.url}/v2/a/m/blobs/{registry.add(bytes(2 * MIB))}"
    count = Count()
    client, other = (Outbound(limits=Limits(down=count.limit)) for _ in range(2))

    with client.request("GET", url) as first, other.request("GET", url) as second:
        for pieces in zip(first.stream(), second.stream(), strict=False):
            count.add(sum(map(len, pieces)))

    assert count.passed > 3 * MIB


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_body_that_goes_is_limited_and_arrives_as_it_was(registry: FaultyRegistry, is_whole: bool) -> None:
    data, count = bytes(range(256)) * (12 * 1024), Count()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 65536):
            yield data[start : start + 65536]
            count.add(65536)  # asked for the next one: this one has left

    body: bytes | Callable[[], Iterator[bytes]] = data if is_whole else pieces
    url = f"{registry.url}/v2/a/m/manifests/v1"
    headers = {"Content-Type": "text/plain"}

    with Outbound(limits=Limits(up=count.limit)).request("PUT", url, headers=headers, body=body, length=len(data)):
        count.passed = 0
        count.add(len(data))

    assert registry.manifests["v1"][0] == data


def test_who_waits_for_a_limit_stops_waiting_when_the_client_is_cut(registry: FaultyRegistry) -> None:
    registry.manifests["v1"] = (bytes(MIB), "text/plain")
    busy = RateLimit(16 * 1024)
    busy.take(600 * 16 * 1024)  # by others, who are served first: ten minutes
    limits = Limits(down=busy, up=busy)
    url, errors = f"{registry.url}/v2/a/m/manifests/v1", list[Exception]()
    client = Outbound(limits=limits)

    def transfer(method: str, body: bytes | None) -> None:
        try:
            client.request(method, url, headers={"Content-Type": "text/plain"}, body=body).read(2 * MIB)
        except ConnectionCut as error:
            errors.append(error)

    threads = [threading.Thread(target=transfer, args=args) for args in (("GET", None), ("PUT", bytes(MIB)))]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(registry.requests) == 2, 30, "both requests to be under way")

    client.abort()

    for thread in threads:
        thread.join(30)
    assert len(errors) == 2


def test_what_the_limit_takes_is_not_held_against_the_server(
    registry: FaultyRegistry, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = bytes(4 * MIB)
    registry.add(data)
    registry.manifests["v1"] = (data, "text/plain")
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(http, "time", clock)
    monkeypatch.setattr(pace, "LEAST_RATE", 64 * 1024)  # more than the limit lets through
    monkeypatch.setattr(Outbound, "_wait", lambda _, seconds: clock.wait(seconds))
    client = Outbound(limits=Limits(down=RateLimit(16 * 1024, clock_ns=clock.now_ns)))
    store, name = open_store(tmp_path), RepositoryName("a/m")
    upload = store.uploads.start(name)
    remote, blob = (
        RemoteRepository(Authenticator(client), registry.url, name),
        Descriptor("x", Digest.of(data), len(data)),
    )

    with client.request("GET", f"{registry.url}/v2/a/m/manifests/v1") as reply:
        assert len(reply.read(len(data))) == len(data)  # takes twice as long as a small body may
    with Incoming(remote, blob, upload, Job(lambda job: None)) as incoming:
        blocks = [len(block) for block in iter(lambda: incoming.read(MIB), b"")]

    assert sum(blocks) == len(data)
    assert clock.monotonic() > 2 * (len(data) / (16 * 1024)) - 1


@pytest.mark.parametrize("text", ["1", "16383", "15K"])
def test_a_limit_too_low_to_work_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"--limit-rate must be 0 .* or at least 16K"):
        parse_rate("--limit-rate", text)


@pytest.mark.parametrize(("text", "rate"), [("0", 0), ("16K", 16384), ("1.5M", 1572864), ("1G", 2**30)])
def test_limits_are_written_as_sizes(text: str, rate: int) -> None:
    assert parse_rate("--limit-rate", text) == rate


def test_processes_share_the_servers_limits(tmp_path: Path) -> None:
    environ = {"TONNAGE_WORKERS": "3", "TONNAGE_LIMIT_RATE_DOWN": "10M"}

    config = load_config({"data": str(tmp_path), "limit_rate_up": "1G"}, environ)

    down, up = config.remotes.rates
    assert (down, up) == (10 * MIB // 4, 2**30 // 4)  # three that serve, and one that syncs mirrors
    assert Config.from_json(config.to_json()) == config
    assert Config(data=str(tmp_path)).remotes.limits() == Limits(None, None)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("TONNAGE_LIMIT_RATE_DOWN", "fast", "size"),
        ("TONNAGE_LIMIT_RATE_DOWN", "95K", "at least 96K: 3 processes of up to 16 transfers"),
        ("TONNAGE_LIMIT_RATE_UP", "1", "at least 96K"),
    ],
)
def test_a_servers_limit_leaves_each_transfer_alive(tmp_path: Path, name: str, value: str, word: str) -> None:
    with pytest.raises(ConfigInvalid, match=name) as caught:
        load_config({"data": str(tmp_path)}, {name: value})

    assert word in str(caught.value)


@pytest.mark.parametrize("words", [["pull", "a/m"], ["push", "x.gguf", "a/m"], ["create", "m"]])
def test_commands_say_what_a_limit_may_be(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Modelfile").write_text("FROM ./x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(group, [*words, "--limit-rate", "1K"])

    assert done.exit_code == 1
    assert "--limit-rate must be 0 (no limit) or at least 16K a second" in done.output


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_command_keeps_its_limit(
    registry: FaultyRegistry, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    if verb == "pull":
        registry.add_model("v1", path.read_bytes())
    words = {"pull": ["pull", "a/m:v1", "-o", "out.gguf"], "push": ["push", str(path), "a/m:v2"]}[verb]
    size, rate = path.stat().st_size, 64 * 1024
    for name, value in {"HOME": str(tmp_path), "TONNAGE_DATA": str(tmp_path), "TONNAGE_SERVER": registry.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()

    done = CliRunner().invoke(group, [*words, "--limit-rate", "64K"])

    assert done.exit_code == 0, done.output
    assert size <= rate * (time.monotonic() - began + BURST_S)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    settings = {
        "WORKERS": "1",
        "THREADS": "16",
        "LIMIT_RATE_DOWN": "2M",
        "LIMIT_RATE_UP": "2M",
    }  # half for each process
    with pair(tmp_path_factory.mktemp("limited"), **{f"TONNAGE_{key}": value for key, value in settings.items()}) as it:
        yield it


def test_all_pulls_and_all_pushes_of_a_server_share_its_limits(limited: Pair) -> None:
    for tag in ("one", "two"):
        add_model(limited.registry, tag, tag.encode() * (200 * 1024))
    size = sum(map(len, limited.registry.blobs.values()))

    def at_once(verb: str) -> float:
        ends = list[object]()
        threads = [
            threading.Thread(target=lambda tag=tag: ends.append(limited.transfer(verb, limited.model(tag))[-1]))
            for tag in ("one", "two")
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ends == [{"status": "success"}] * 2
        return time.monotonic() - began

    assert size <= MIB * (at_once("pull") + BURST_S)
    limited.registry.blobs.clear()
    assert size <= MIB * (at_once("push") + BURST_S)
    assert sum(map(len, limited.registry.blobs.values())) == size
