"""The life and death of the processes behind the leases: none takes others with it, none is left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import RunnerGone, SupervisorGone
from runtime.messages import Done
from runtime.supervisor.client import Supervisor
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


def test_a_runner_killed_in_mid_stream_takes_nobody_with_it(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start().client
    with client.lease(spec_of(tiny, identity="a", name="a")) as one, client.lease(spec_of(tiny, identity="b")) as other:
        stream, survivor = one.generate(ENDLESS), other.generate(request("hello", tokens=300))
        next(stream)
        next(survivor)
        pid = runner_pid(client, "a")

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(RunnerGone, match="SIGKILL"):
            list(stream)
        assert isinstance(list(survivor)[-1], Done)
        with pytest.raises(RunnerGone):
            answer(one, request("hello"))
    with client.lease(spec_of(tiny, identity="a", name="a")) as again:
        assert runner_pid(client, "a") != pid
        assert answer(again, request("hello", tokens=3))[1].tokens == 3


def test_a_supervisor_killed_takes_its_runners_and_its_successor_serves(
    start: Callable[..., Supervised], tiny: Path
) -> None:
    first = start()
    lease = first.client.lease(spec_of(tiny))
    pid = runner_pid(first.client)
    stream = lease.generate(ENDLESS)
    next(stream)

    first.process.kill()

    with pytest.raises(RunnerGone):
        list(stream)
    assert eventually(lambda: not is_alive(pid), within_s=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.client.lease, spec_of(tiny))  # asked while there is none
        start()
        with waiting.result(10) as again:
            assert answer(again, request("hello", tokens=3))[1].tokens == 3


def test_without_a_supervisor_the_client_says_so(tmp_path: Path) -> None:
    with pytest.raises(SupervisorGone, match="cannot be reached"):
        Supervisor(tmp_path).ping()


def test_two_supervisors_do_not_share_a_directory(start: Callable[..., Supervised]) -> None:
    first = start()
    pid = first.client.ps() == [] and first.client.ping()

    second = start()

    assert second.process.wait(15) == 1
    assert first.client.ping() == pid


def test_told_to_stop_it_lets_streams_finish_and_leaves_nothing(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(grace_s=10)
    client = running.client
    client.lease(spec_of(tiny, identity="idle", name="idle")).close()
    lease = client.lease(spec_of(tiny))
    pids = [loaded.pid for loaded in client.ps()]
    stream = lease.generate(request("hello", tokens=300, temperature=1.0))
    next(stream)

    running.process.send_signal(signal.SIGTERM)

    assert isinstance(list(stream)[-1], Done)
    lease.close()
    assert running.process.wait(5) == 0
    assert not any(map(is_alive, pids))
    assert not [path for path in running.run_dir.iterdir() if path.is_socket()]


def test_the_grace_has_an_end(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(grace_s=0.3)
    lease = running.client.lease(spec_of(tiny))
    stream = lease.generate(ENDLESS)
    next(stream)

    running.client.stop()

    assert running.process.wait(5) == 0
    with pytest.raises(RunnerGone):
        list(stream)


def test_the_supervisor_ends_with_the_process_that_started_it(tmp_path: Path, tiny: Path) -> None:
    script = (
        "import json, os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'runtime.supervisor', '--run-dir', sys.argv[1]],"
        " stdin=subprocess.PIPE)\n"
        "child.stdin.write(json.dumps({'parent': os.getpid(), 'grace_s': 0.2}).encode()); child.stdin.close()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    pid = json.loads(parent.stdout.readline())
    client = Supervisor(tmp_path)
    client.lease(spec_of(tiny)).close()
    runner = runner_pid(client)

    parent.kill()
    parent.wait(5)

    assert eventually(lambda: not is_alive(pid) and not is_alive(runner))
    parent.stdout.close()
