"""What a runner's process is given, who shares it, and what is said of one that hangs or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import LoadFailed, QueueFull, RunnerGone
from runtime.messages import Done
from runtime.supervisor.queue import PASSES
from runtime.wire import Channel
from tests.supervised import (
    ENDLESS,
    ROOT,
    Supervised,
    answer,
    eventually,
    is_alive,
    request,
    runner_pid,
    spec_of,
)


def _open_files(pid: int) -> dict[int, str]:
    """What each descriptor of a process is. Those that close while we look are left out."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(path.name)] = str(path.readlink())
        except FileNotFoundError:
            continue
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_runner_is_given_its_model_and_nothing_else(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)):
        pid = runner_pid(shared.client)
        files = _open_files(pid)
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")

        theirs = set(_open_files(shared.process.pid).values())
        assert not [name for name in files.values() if name.startswith("socket:") and name in theirs]
        assert files[1] == "/dev/null"
        assert files[2].startswith("pipe:")
        sockets = [name for name in files.values() if name.startswith("socket:")]
        assert len(set(sockets)) == 4  # to the supervisor, the one that listens, and two for its threads to wake it
        assert not [
            name for name in files.values() if name.startswith("/") and "gguf" not in name and name[:5] != "/dev/"
        ]
        assert "NoNewPrivs:\t1" in status
        assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii").strip() == "500"
        for limit, value in (("core file size", "0"), ("file size", "0"), ("open files", "2048")):
            (line,) = [each for each in limits.splitlines() if each.startswith(f"Max {limit}")]
            assert line.split()[-3 if limit != "core file size" else -2] == value


def test_a_runner_goes_by_the_names_it_was_asked_by(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start().client
    for number in range(40):
        spec = replace(spec_of(tiny, identity="one", name=f"n{number}"), details={"family": f"f{number}"})
        client.lease(spec).close()

    (loaded,) = client.ps()

    kept = [0, *range(9, 40)]  # the first and the latest
    assert loaded.name == loaded.names[0] == "n0"
    assert loaded.names == tuple(f"n{number}" for number in kept)
    assert loaded.digests == (loaded.digest,) * 32
    assert loaded.named_details == tuple({"family": f"f{number}"} for number in kept)


def test_requests_for_three_models_that_exclude_each_other_make_three_loads(
    start: Callable[..., Supervised], tiny: Path
) -> None:
    client = start(max_loaded=1, num_parallel=1).client

    def ask(model: str) -> int:
        with client.lease(spec_of(tiny, identity=model, name=model), caller=f"caller-{model}") as lease:
            assert answer(lease, request("hello", tokens=3))[1].tokens == 3
            return runner_pid(client, model)

    with ThreadPoolExecutor(8) as pool:
        pids = list(pool.map(ask, "ABAACABC"))

    assert len(set(pids)) == 3
    assert sum(map(is_alive, set(pids))) == 1


def test_a_model_in_use_makes_room_after_a_while(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(max_loaded=1)
    client, spec = running.client, spec_of(tiny, identity="a", name="a")
    first = client.lease(spec)
    waits = Channel.connect(str(running.run_dir / "supervisor.sock"), timeout_s=5)
    waits.send({"op": "lease", "spec": spec_of(tiny, identity="b", name="b").to_json()})
    assert waits.receive(timeout_s=5) == {"event": "queued"}
    for _ in range(PASSES):
        client.lease(spec).close()
    assert client.ps()[0].expires_at > time.time()

    with ThreadPoolExecutor(1) as pool:
        one_more = pool.submit(client.lease, spec)
        assert eventually(lambda: client.ps()[0].expires_at < time.time(), within_s=2.0)
        first.close()

        assert eventually(lambda: [loaded.name for loaded in client.ps()] == ["b"])
        assert not one_more.done()
        waits.close()
        one_more.result(10).close()


def test_a_model_stays_open_where_the_one_it_was_to_leave_for_hangs_up(
    start: Callable[..., Supervised], tiny: Path
) -> None:
    running = start()
    client, spec = running.client, spec_of(tiny)
    with client.lease(spec):
        waits = Channel.connect(str(running.run_dir / "supervisor.sock"), timeout_s=5)
        waits.send({"op": "lease", "spec": spec_of(tiny, num_ctx=128).to_json()})
        assert waits.receive(timeout_s=5) == {"event": "queued"}
        for _ in range(PASSES):
            client.lease(spec).close()
        with ThreadPoolExecutor(1) as pool:
            one_more = pool.submit(client.lease, spec)
            assert eventually(lambda: client.ps()[0].expires_at < time.time(), within_s=2.0)

            waits.close()

            one_more.result(5).close()
        assert client.ps()[0].expires_at > time.time()


def test_unloading_a_model_that_loads_waits_for_who_wants_it(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start()
    client, spec = running.client, spec_of(tiny)
    assert client.ps() == []  # it listens
    channel = Channel.connect(str(running.run_dir / "supervisor.sock"), timeout_s=5)
    channel.send({"op": "lease", "spec": spec.to_json(), "keep_alive": 3600})
    assert channel.receive(timeout_s=5) == {"event": "queued"}

    event = None
    while event is None or event["event"] == "loading":
        assert client.unload(spec.identity)
        with suppress(TimeoutError):
            event = channel.receive(timeout_s=0.02)
            assert event is not None

    assert event["event"] == "ready"
    assert event["socket"].endswith("-1.sock")  # of the first load
    channel.close()
    assert eventually(lambda: not client.ps())


def test_a_loaded_model_takes_no_more_than_its_lanes_and_a_queue(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(num_parallel=1, max_queue=2).client
    leases = [client.lease(spec_of(tiny)) for _ in range(3)]

    with pytest.raises(QueueFull, match=r"^server busy, please try again\.  maximum") as refused:
        client.lease(spec_of(tiny))

    assert refused.value.detail["retry_after_s"] >= 1
    leases.pop().close()
    assert eventually(lambda: _can_lease(client.lease, tiny))
    for lease in leases:
        lease.close()


def _can_lease(lease: Callable[..., object], tiny: Path) -> bool:
    try:
        lease(spec_of(tiny)).close()  # type: ignore[attr-defined]
    except QueueFull:
        return False
    return True


def test_a_runner_killed_tells_who_runs_and_who_waits_in_it(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(num_parallel=1).client
    with client.lease(spec_of(tiny)) as one, client.lease(spec_of(tiny)) as two, ThreadPoolExecutor(1) as pool:
        stream = one.generate(ENDLESS)
        next(stream)
        waiting = pool.submit(answer, two, request("hello"))
        pid = runner_pid(client)

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(RunnerGone, match="SIGKILL"):
            list(stream)
        with pytest.raises(RunnerGone, match="SIGKILL"):
            waiting.result(10)
    with client.lease(spec_of(tiny)) as again:
        assert runner_pid(client) != pid
        assert answer(again, request("hello", tokens=3))[1].tokens == 3


def test_a_runner_that_hangs_is_killed_and_says_so(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(stall_s=1.0).client
    with client.lease(spec_of(tiny)) as lease:
        stream = lease.generate(ENDLESS)
        next(stream)
        pid = runner_pid(client)

        os.kill(pid, signal.SIGSTOP)

        with pytest.raises(RunnerGone, match=r"was ended: it computed nothing for 1 s"):
            list(stream)
        assert eventually(lambda: not is_alive(pid))
    with client.lease(spec_of(tiny)) as again:
        assert answer(again, request("hello", tokens=3))[1].tokens == 3


def test_a_runner_at_rest_may_be_silent(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(stall_s=1.0).client
    with client.lease(spec_of(tiny)) as lease:
        for _ in range(3):
            assert isinstance(list(lease.generate(request("hello", tokens=5)))[-1], Done)
        pid = runner_pid(client)

        assert not eventually(lambda: not is_alive(pid), within_s=2.5)


def test_a_worker_that_dies_gives_its_leases_back(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(keep_alive_s=0)
    script = (
        "import sys; from pathlib import Path; from runtime.supervisor.client import Supervisor\n"
        "from tests.supervised import spec_of\n"
        "lease = Supervisor(Path(sys.argv[1])).lease(spec_of(Path(sys.argv[2])))\n"
        "print('leased', flush=True); sys.stdin.read()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(running.run_dir), str(tiny)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"leased\n"
        pid = runner_pid(running.client)

        worker.kill()

        assert eventually(lambda: not is_alive(pid) and not running.client.ps())


def test_a_failed_load_is_told_in_llama_cpps_words_without_our_paths(
    shared: Supervised, tiny: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-4096])

    with pytest.raises(LoadFailed, match=r"^unable to load model: .*(cut|corrupt|bounds|read)") as failed:
        shared.client.lease(spec_of(cut, name="acme/cut:v1"))

    assert str(tmp_path) not in str(failed.value)


def test_who_waits_hears_how_far_the_load_is(shared: Supervised, tiny: Path) -> None:
    channel = Channel.connect(str(shared.run_dir / "supervisor.sock"), timeout_s=5)
    spec = spec_of(tiny, identity="fresh", name="fresh")
    channel.send({"op": "lease", "spec": spec.to_json(), "keep_alive": 0, "caller": "me"})

    events = []
    while not events or events[-1]["event"] != "ready":
        event = channel.receive(timeout_s=10)
        assert event is not None
        events.append(event)
    channel.close()

    assert events[0] == {"event": "queued"}
    assert {event["event"] for event in events[1:-1]} <= {"loading"}
