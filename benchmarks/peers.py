"""The two servers of a comparison: started one beside the other in folders of one disk, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from load import Connection, LoadError

ROOT: Final = Path(__file__).parent.parent
_START_S: Final = 60.0
_STOP_S: Final = 20.0
_LARGE: Final = 2**20
_PEER_CONFIG: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{{driver}, delete: {{enabled: true}}}}
http: {{addr: "{host}:{port}", secret: a-secret-of-one-run}}
"""
_PEER_PROXY: Final = """\
proxy: {{remoteurl: "{upstream}"}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and the folders where its blobs lie."""

    name: str
    address: tuple[str, int]
    pid: int
    blob_folders: tuple[Path, ...]

    def connect(self) -> Connection:
        return Connection(self.address)

    def large_files(self) -> set[Path]:
        """Every file of a blob that is not small."""
        found = (path for folder in self.blob_folders for path in folder.rglob("*") if path.is_file())
        return {path for path in found if path.stat().st_size >= _LARGE}

    def cpu_s(self) -> float:
        """What all its processes have used of the processors until now."""
        return sum(_cpu(pid) for pid in _tree(self.pid))

    def peak_bytes(self, module: str = "") -> list[int]:
        """Peak resident memory of each process of the server, or of those that run `module`."""
        return [_memory(pid, "VmHWM:") for pid in _tree(self.pid) if module in _command(pid)]

    def resident_bytes(self, module: str) -> list[int]:
        """What they hold now."""
        return [_memory(pid, "VmRSS:") for pid in _tree(self.pid) if module in _command(pid)]


@contextmanager
def ours(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`tonnage serve`, by the interpreter that runs this."""
    address = free_address()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("TONNAGE_", "OLLAMA_"))}
    environ |= {"TONNAGE_ACCESS": "open", "TONNAGE_DATA": str(folder), "TONNAGE_LOG_LEVEL": "error"}
    environ["TONNAGE_LISTEN"] = f"{address[0]}:{address[1]}"
    environ |= settings or {}
    command = [sys.executable, "-m", "registry", "serve"]
    with running(command, folder, environ, address) as pid:
        yield Server("tonnage", address, pid, (folder / "objects", folder / "uploads"))


@contextmanager
def peer(binary: Path, folder: Path, *, upstream: str = "", storage: str = "") -> Iterator[Server]:
    """A `registry` of the CNCF distribution project, 2.8 or 3; a cache of `upstream`.

    storage: its driver, as its configuration spells it; a folder of files where nothing is said.
    """
    address = free_address()
    config = folder.with_suffix(".yml")
    proxy = _PEER_PROXY.format(upstream=upstream) if upstream else ""
    driver = storage or f"filesystem: {{rootdirectory: {folder}}}"
    config.write_text(_PEER_CONFIG.format(driver=driver, host=address[0], port=address[1]) + proxy)
    # its S3 driver starts with no authorities but the system's own (AWS_CA_BUNDLE)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "AWS_"))}
    environ["OTEL_TRACES_EXPORTER"] = "none"  # release 3 looks for a collector of traces otherwise
    with running([str(binary), "serve", str(config)], folder, environ, address) as pid:
        yield Server(version(binary), address, pid, (folder / "docker/registry/v2",))


def version(binary: Path) -> str:
    """How the binary calls itself, in one line."""
    text = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return f"{binary.name} {text.split()[-1].split('+')[0]}"


@contextmanager
def running(
    command: list[str], folder: Path, environ: dict[str, str], address: tuple[str, int], *, ready: str = "/v2/"
) -> Iterator[int]:
    """A server's process id, once it answers a GET of `ready` with 200; it is ended with all that it started."""
    folder.mkdir(exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
    try:
        _wait(lambda: process.poll() is not None or _answers(address, ready), _START_S)
        if process.poll() is not None or not _answers(address, ready):
            raise LoadError(f"{command[0]} does not serve: {log.read_text('utf-8', 'replace')[-600:]}")
        yield process.pid
    finally:
        below = _tree(process.pid)
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _wait(lambda: not any(_command(pid) for pid in below), _STOP_S)


def _answers(address: tuple[str, int], target: str) -> bool:
    try:
        with Connection(address) as connection:
            return connection.request("GET", target).status == 200
    except (OSError, LoadError):
        return False


def _wait(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def free_address() -> tuple[str, int]:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(listener.getsockname()[1])


def _tree(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:  # grows while it is read
        found += children.get(pid, [])
    return found


def _command(pid: int) -> str:
    """The command line; empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)
