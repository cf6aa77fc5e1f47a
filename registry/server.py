"""`tonnage serve`: the parent of all processes. It holds the listener and the data folder's lock, starts the
supervisor and the web processes, starts the supervisor again when it dies, and ends everything when told to stop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from auth.errors import AuthError
from migrations.run import upgrade
from registry.checks import check_settings
from registry.config import GRACE_S, Config
from registry.origins import OriginsInvalid

_RESTART_PAUSES_S = (0.1, 0.5, 1.0, 2.0)  # of a supervisor that keeps dying; the last one repeats
_STEADY_S = 30.0  # a supervisor that lived this long starts again without a pause
_JANITOR_PAUSE_S = 5.0
_KILL_AFTER_S = GRACE_S + 3
_BACKLOG = 1024
_SILENT_S = 10
_CONTEXT_LENGTH = 4096  # tokens, of a machine without an accelerator of 23 GiB or more


class CannotServe(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass
class Children:
    """What the server has started, and when."""

    web: subprocess.Popen[bytes] | None = None
    supervisor: subprocess.Popen[bytes] | None = None
    janitor: subprocess.Popen[bytes] | None = None
    janitor_restart_at: float | None = None
    supervisor_started: float = 0.0
    deaths: int = 0
    restart_at: float | None = None
    signals: list[int] = field(default_factory=list)


def serve(config: Config, *, announce: Callable[[str], None], prepare: Callable[[Config], None]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. Raises CannotServe before anything was started.

    prepare: called once the schema is there, before the first request. announce: prints a line for the operator.
    """
    make_folders(config)
    try:
        check_settings(config)
    except (AuthError, OriginsInvalid) as error:
        raise CannotServe(str(error)) from error
    with _locked(config.run_path / "lock"), _listener(config) as listener:
        try:
            upgrade(config.database_url)
        except Exception as error:  # whatever a database driver raises is one line for the operator
            raise CannotServe(f"cannot open the database: {_first_line(error)}") from error
        prepare(config)
        with _wakeups() as wakeup_fd:
            children = Children()
            try:
                _start_supervisor(config, children)
                children.web = _start_web(config, listener)
                _start_janitor(config, children)
                announce(f"Tonnage is listening on http://{_printable(listener)}")
                return _watch(config, children, wakeup_fd)
            finally:
                _stop(children)


def make_folders(config: Config) -> None:
    """The data folder and what belongs in it, for our own user alone. Raises CannotServe when it cannot be written."""
    os.umask(0o077)  # manifests of private models and names of sessions are in the database file
    for folder in (config.data_path, config.keys_path, config.run_path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder != config.data_path:
                folder.chmod(0o700)
            probe = folder / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise CannotServe(
                f"cannot write to the data folder {folder}: {error.strerror}; set TONNAGE_DATA to a folder of yours"
            ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One server a data folder; the lock goes with the process, however it ends."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotServe(
                f"another tonnage server uses {path.parent.parent}; stop it or set TONNAGE_DATA"
            ) from error
        yield


@contextlib.contextmanager
def _listener(config: Config) -> Iterator[socket.socket]:
    """The listening socket, ours so that it outlives the web processes."""
    family = socket.AF_INET6 if ":" in config.listen_host else socket.AF_INET
    where = f"{config.listen_host}:{config.listen_port}"
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # for every accepted one: an answer's last bytes else wait 40 ms for the client to acknowledge its first
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):  # who connects and says nothing takes no thread
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT_S)
        try:
            listener.bind((config.listen_host, config.listen_port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotServe(f"{where} is in use; stop what listens there or set TONNAGE_LISTEN") from error
            raise CannotServe(f"cannot listen on {where}: {error.strerror}") from error
        listener.listen(_BACKLOG)
        yield listener


def _printable(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _wakeups() -> Iterator[int]:
    """A descriptor that yields the number of every signal of ours as a byte."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous_fd = signal.set_wakeup_fd(write_fd)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)


def _watch(config: Config, children: Children, wakeup_fd: int) -> int:
    """Wait for the end of a child or the word to stop; returns the exit status."""
    while True:
        restarts = [at for at in (children.restart_at, children.janitor_restart_at) if at is not None]
        wait_s = max(0.0, min(restarts) - time.monotonic()) if restarts else None
        ready, _, _ = select.select([wakeup_fd], [], [], wait_s)
        if ready and {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} & set(os.read(wakeup_fd, 64)):
            return 0
        assert children.web is not None
        if children.web.poll() is not None:
            print("tonnage: the web processes ended by themselves; see the log above", file=sys.stderr)
            return 1
        _mind_supervisor(config, children)
        _mind_janitor(config, children)


def _mind_supervisor(config: Config, children: Children) -> None:
    """Start the supervisor again when it has ended, at once the first time, then with pauses."""
    if children.supervisor is None:
        return
    if children.restart_at is None and children.supervisor.poll() is not None:
        if time.monotonic() - children.supervisor_started > _STEADY_S:
            children.deaths = 0
        pause = _RESTART_PAUSES_S[min(children.deaths, len(_RESTART_PAUSES_S) - 1)]
        children.deaths += 1
        children.restart_at = time.monotonic() + pause
        print(f"tonnage: the supervisor ended ({children.supervisor.returncode}); starting it again", file=sys.stderr)
    elif children.restart_at is not None and time.monotonic() >= children.restart_at:
        children.restart_at = None
        _start_supervisor(config, children)


def _mind_janitor(config: Config, children: Children) -> None:
    """Start the janitor again some time after it has ended; nobody waits for it."""
    assert children.janitor is not None
    if children.janitor_restart_at is None and children.janitor.poll() is not None:
        children.janitor_restart_at = time.monotonic() + _JANITOR_PAUSE_S
        print(f"tonnage: the janitor ended ({children.janitor.returncode}); starting it again", file=sys.stderr)
    elif children.janitor_restart_at is not None and time.monotonic() >= children.janitor_restart_at:
        children.janitor_restart_at = None
        _start_janitor(config, children)


def _start_janitor(config: Config, children: Children) -> None:
    children.janitor = _spawn("registry.janitor", told={"parent": os.getpid(), "config": config.to_json()})


def _start_supervisor(config: Config, children: Children) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        print("tonnage: the runtime extra is not installed: models are stored, not run", file=sys.stderr)
        return
    settings = {
        "parent": os.getpid(),
        "keep_alive_s": config.keep_alive_s,
        "max_loaded": config.max_loaded_models,
        "max_queue": config.max_queue,
        "num_parallel": config.num_parallel,
        "load_timeout_s": config.load_timeout_s,
        "memory_budget_bytes": config.memory_budget_bytes,
        "context_length": config.context_length or _CONTEXT_LENGTH,
        "grace_s": 1.0,  # the streams had theirs while the web processes ended
        "kv_cache_type": config.kv_cache_type,
        "flash_attention": config.flash_attention,
        "runner_env": dict(device.split("=", 1) for device in config.devices),
    }
    children.supervisor = _spawn("runtime.supervisor", "--run-dir", str(config.run_path), told=settings)
    children.supervisor_started = time.monotonic()


def _start_web(config: Config, listener: socket.socket) -> subprocess.Popen[bytes]:
    told = {"parent": os.getpid(), "listener_fd": listener.fileno(), "config": config.to_json()}
    return _spawn("registry.workers", told=told, pass_fds=(listener.fileno(),))


def _spawn(
    module: str, *arguments: str, told: dict[str, object], pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a Python process of ours and tell it its settings over standard input: arguments are for all to read."""
    child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, pass_fds=pass_fds, start_new_session=True
    )
    assert child.stdin is not None
    _tell(child.stdin, told)
    return child


def _tell(stdin: IO[bytes], told: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(json.dumps(told).encode() + b"\n")


def _stop(children: Children) -> None:
    """Web before the supervisor, so that streams can end by their runners; then the supervisor with the runners."""
    for child, patience_s in ((children.janitor, 3.0), (children.web, _KILL_AFTER_S), (children.supervisor, 3.0)):
        if child is None or child.poll() is not None:
            continue
        child.terminate()
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
