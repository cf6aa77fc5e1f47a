"""The reverse proxies of `deploy/` with the configuration there: addresses and paths are exchanged, nothing else is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server import ROOT
from tests.waiting import wait_for

DEPLOY = ROOT / "deploy"
KINDS = ("nginx", "haproxy")
_NODES = ("10.89.94.11:11434", "10.89.94.12:11434", "10.89.94.13:11434")
_NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
_NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # below /var/lib they are root's
_STOP_S = 10


@dataclass(frozen=True)
class Proxy:
    """A running proxy. host: where it listens."""

    kind: str
    host: str
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    @property
    def turns(self) -> int:
        """How often a node was found dead, or alive again. nginx says nothing of that."""
        return self.log.count(" is DOWN") + self.log.count(" is UP")

    def wait_until_dead(self, node: str) -> None:
        """HAProxy sends what a dead node should get to any other, until two checks of it have failed."""
        if self.kind == "haproxy":
            wait_for(lambda: f"Server {node} is DOWN" in self.log, 60, f"the proxy to learn that {node} is dead")


@contextmanager
def running_proxy(kind: str, folder: Path, nodes: Sequence[str]) -> Iterator[Proxy]:
    """nodes: host:port of three. Skips the test where the proxy is not installed; in CI it fails."""
    need(kind)
    folder.mkdir(parents=True)
    host, log_path = f"127.0.0.1:{free_port()}", folder / "log"
    command = configured(kind, folder, dict(zip(_NODES, nodes, strict=True)), host)
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    proxy = Proxy(kind, host, log_path, process)
    try:
        wait_for(lambda: process.poll() is not None or _listens(host), 20, f"{kind} to listen")
        assert process.poll() is None, proxy.log
        yield proxy
    finally:
        process.terminate()
        process.wait(_STOP_S)


def configured(kind: str, folder: Path, nodes: Mapping[str, str], host: str) -> list[str]:
    """The command that runs the proxy in the foreground, with its configuration in `folder`."""
    if kind == "nginx":
        exchanged = {
            **nodes,
            "listen 11434;": f"listen {host};",
            "/run/nginx.pid": str(folder / "pid"),
            "/var/log/nginx/access.log": str(folder / "log"),
            "/var/log/nginx/error.log": str(folder / "errors"),
            "/etc/nginx/affinity.js": str(DEPLOY / "affinity.js"),
        }
        if os.geteuid() != 0:
            temporary = "".join(f"    {name}_temp_path {folder / name};\n" for name in _NGINX_TEMPORARY)
            exchanged |= {"user www-data;": "", "http {\n": f"http {{\n{temporary}"}
        path = _written(DEPLOY / "nginx.conf", folder, exchanged)
        return [_found(kind) or kind, "-c", str(path), "-g", "daemon off;"]
    exchanged = {**nodes, "bind :11434": f"bind {host}"}
    if os.geteuid() != 0:
        exchanged |= {"    user haproxy\n": "", "    group haproxy\n": ""}  # only root becomes somebody else
    return [_found(kind) or kind, "-db", "-f", str(_written(DEPLOY / "haproxy.cfg", folder, exchanged))]


def need(kind: str) -> None:
    """Skip the test where the proxy is not installed; in CI it fails."""
    if not _found(kind) or (kind == "nginx" and not _NGINX_MODULE.exists()):
        packages = "nginx-light and libnginx-mod-http-js" if kind == "nginx" else kind
        assert "CI" not in os.environ, f"CI must install {packages}"
        pytest.skip(f"no {kind}: {packages} not installed")


def _found(kind: str) -> str | None:
    return shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _written(source: Path, folder: Path, exchanged: Mapping[str, str]) -> Path:
    text = source.read_text()
    for old, new in exchanged.items():
        assert old in text, f"{source.name} says nothing of {old!r}"
        text = text.replace(old, new)
    path = folder / source.name
    path.write_text(text)
    return path


def _listens(host: str) -> bool:
    name, _, port = host.rpartition(":")
    with suppress(OSError), socket.create_connection((name, int(port)), timeout=1):
        return True
    return False
