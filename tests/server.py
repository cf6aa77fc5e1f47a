"""A real `tonnage serve`, on a free port and a data folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.backends import environ_of
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent
NODES = int(os.environ.get("TONNAGE_TEST_NODES", "1"))  # each server as so many, where all backends are shared
_LISTENING = re.compile(r"listening on http://(127\.0\.0\.\d+:\d+)")
_START_S = 60.0
_FIRST_TOKEN = re.compile(r"^tng_\S+$", re.MULTILINE)  # printed once, on a line of its own
_SECRET = re.compile(  # access tokens, bearer tokens, signatures of addresses and of keys, private keys
    r"tng_[a-z0-9]{12}_|\beyJ[\w-]{10,}\.|signature=[\w-]{20}|AAAAC3NzaC1lZDI1NTE5[\w+/]{40,}:|PRIVATE KEY"
    r"|X-Amz-Signature"
)


@dataclass
class Server:
    """A running server; `log` holds what it printed up to now."""

    process: subprocess.Popen[bytes]
    data: Path
    log_path: Path
    host: str = ""
    admin_token: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Another `tonnage` command on the same data folder, client commands against this server."""
        finished = subprocess.run(
            [sys.executable, "-m", "registry", *arguments],
            env={**os.environ, **self.environ, "TONNAGE_DATA": str(self.data), "TONNAGE_SERVER": self.url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or finished.returncode == 0, finished.stdout + finished.stderr
        return finished

    def create_token(self, name: str, *scopes: str) -> str:
        """The secret of a new access token."""
        flags = [flag for scope in scopes for flag in ("--scope", scope)]
        return self.run("token", "create", name, *flags).stdout.split()[-1]

    def descendants(self) -> list[int]:
        """Ids of every process below the server's."""
        return _descendants(self.process.pid)

    def processes(self, module: str) -> list[int]:
        """Ids of our processes that run `module`."""
        return [pid for pid in self.descendants() if module in command_line(pid)]

    def kill(self) -> None:
        """kill -9 the parent; the others follow by themselves."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, timeout_s: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def running_server(
    data: Path,
    environ: Mapping[str, str] | None = None,
    *,
    preexec: Callable[[], None] | None = None,
    listen: str = "127.0.0.1:0",
    is_alone: bool = False,
) -> Iterator[Server]:
    """Start a server, wait until it listens, end it and all its processes afterwards.

    TONNAGE_TEST_NODES makes it several nodes behind one address where their backends can be shared, unless `is_alone`:
    for tests that look into one server's processes or files.
    """
    environ = _with_backends(data, environ or {})
    if NODES > 1 and not is_alone and preexec is None and listen == "127.0.0.1:0" and _can_be_shared(environ):
        from tests.nodes import running_sprayed  # noqa: PLC0415  # it starts its nodes by what is here

        with running_sprayed(data, environ, count=NODES) as sprayed:
            yield sprayed
        return
    server = start_server(data, environ, preexec=preexec, listen=listen)
    try:
        yield server
    finally:
        below = server.descendants()
        try:
            server.stop()
        finally:
            server.process.kill()
            wait_for(lambda: not any(is_alive(pid) for pid in below), 10, "the server's processes to end")
    assert not _SECRET.findall(_FIRST_TOKEN.sub("", server.log)), "a secret in the server's log"


def start_server(
    data: Path,
    environ: Mapping[str, str] | None = None,
    *,
    preexec: Callable[[], None] | None = None,
    listen: str = "127.0.0.1:0",
    timeout_s: float = _START_S,
) -> Server:
    data.parent.mkdir(parents=True, exist_ok=True)
    log_path = data.parent / f"{data.name}.log"
    environ = _with_backends(data, environ or {})
    extra = {"TONNAGE_LISTEN": listen, "TONNAGE_DATA": str(data), **environ}
    with log_path.open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve"],
            env={**{k: v for k, v in os.environ.items() if not k.startswith(("TONNAGE_", "OLLAMA_"))}, **extra},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            preexec_fn=preexec,
        )
    server = Server(process, data, log_path, environ=environ)

    def listens() -> bool:
        text = log_path.read_bytes()[start:].decode("utf-8", "replace")
        match = _LISTENING.search(text)
        if match:
            server.host = match[1]
            secret = _FIRST_TOKEN.search(text)
            server.admin_token = secret[0] if secret else ""
        return match is not None or process.poll() is not None

    try:
        wait_for(listens, timeout_s, "the server to listen")
    except AssertionError:
        process.kill()
        raise
    assert server.host, server.log
    return server


def _with_backends(data: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    return environ if "TONNAGE_DATABASE_URL" in environ else {**environ_of(data), **environ}


def _can_be_shared(environ: Mapping[str, str]) -> bool:
    is_postgresql = environ.get("TONNAGE_DATABASE_URL", "").startswith("postgresql")
    return is_postgresql and environ.get("TONNAGE_STORAGE") == "s3"


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
