"""Which web pages may call us: the Origin and Host rules. Source: the Ollama API, "HTTP surface".

A page from anywhere can make a browser send requests to this machine; without these rules an open tab could push,
delete and ask as the user.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request

from auth.hosts import host_of
from registry.errors import is_oci_path, oci_response

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")  # noqa: S104  # names of ours, nothing is bound
_APP_SCHEMES = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_ORIGIN_SCHEMES = (
    "http://", "https://", "chrome-extension://", "safari-extension://", "moz-extension://", "ms-browser-extension://",
)  # fmt: skip
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version", "Poll-Helper",
    "Retry-Count", "Runtime", "Runtime-Version", "Timeout",
)  # fmt: skip
_HEADERS = ",".join(
    ["Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"]
    + ["X-Api-Key", "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access"]
    + [f"X-Stainless-{name}" for name in _STAINLESS]
)


class OriginsInvalid(ValueError):
    """An entry of OLLAMA_ORIGINS that can never match; the message says what it takes."""


class Origins:
    """The allowed origins, and what a request from each is answered."""

    def __init__(self, extra: Sequence[str], *, checks_host: bool, own_host: str = "") -> None:
        """extra: entries of OLLAMA_ORIGINS. checks_host: whether the listener is loopback. own_host: a name of ours,
        under which a proxy may pass requests on. Raises OriginsInvalid.
        """
        self._own_host = host_of(own_host) if own_host else None
        self._allows_all = "*" in extra
        self._patterns = [_pattern(entry) for entry in extra if entry != "*"]
        self._checks_host = checks_host

    def refusal(self) -> Response | None:
        """What to answer in place of a handler: 403 to a strange page, 204 to a preflight, None to go on."""
        if not self.knows_host(request.environ):
            return _forbidden("this server answers to local names only")
        origin = request.headers.get("Origin")
        if origin is None or _is_same(origin):
            return None
        if not self.is_allowed(origin):
            return _forbidden("pages of this origin may not call this server")
        if request.method == "OPTIONS":
            preflight = Response(status=204)
            preflight.headers["Access-Control-Allow-Methods"] = _METHODS
            preflight.headers["Access-Control-Allow-Headers"] = _HEADERS
            preflight.headers["Access-Control-Max-Age"] = "43200"
            return preflight
        return None

    def knows_host(self, environ: Mapping[str, Any]) -> bool:
        """Whether a server that only this machine reaches was addressed by a name that cannot be anybody else's."""
        # raw: Werkzeug empties what it cannot read
        host = str(environ.get("HTTP_HOST", ""))
        if not self._checks_host or _is_local_host(host):
            return True
        return self._own_host is not None and host_of(host) == self._own_host

    def is_allowed(self, origin: str) -> bool:
        if self._allows_all or origin.startswith(_APP_SCHEMES):
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme in ("http", "https") and (parts.netloc.rpartition(":")[0] or parts.netloc) in _LOCAL_HOSTS:
            return True
        if parts.netloc in _LOCAL_HOSTS:
            return parts.scheme in ("http", "https")
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    def mark(self, response: Response) -> Response:
        """Tell an allowed page that it may read the answer."""
        origin = request.headers.get("Origin")
        if origin is None or _is_same(origin):
            return response
        if self.is_allowed(origin):
            response.headers["Access-Control-Allow-Origin"] = "*" if self._allows_all else origin
            response.headers.add("Vary", "Origin")
        return response


def _forbidden(message: str) -> Response:
    """403 in the words of the face that was called; where the ollama server's own is empty, so is ours."""
    if not is_oci_path():
        return Response(status=403)
    return oci_response(403, [{"code": "DENIED", "message": message, "detail": {}}])


def _is_same(origin: str) -> bool:
    host = request.environ.get("HTTP_HOST", "")
    return bool(host) and origin in (f"http://{host}", f"https://{host}")


def _pattern(entry: str) -> re.Pattern[str]:
    if "*" not in entry and not entry.startswith(_ORIGIN_SCHEMES):
        raise OriginsInvalid(f"OLLAMA_ORIGINS: {entry!r} must begin with one of {', '.join(_ORIGIN_SCHEMES)}")
    if entry.count("*") > 1:
        raise OriginsInvalid(f"OLLAMA_ORIGINS: {entry!r} may hold one * only")
    return re.compile(".*".join(re.escape(part) for part in entry.split("*")))


@lru_cache(maxsize=1024)
def _is_local_host(authority: str) -> bool:
    """Whether the raw `Host` can only have meant this machine: a name from a stranger's DNS is refused."""
    if not authority:
        return True
    name = host_of(authority)
    if name is None:
        return False
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name in ("localhost", socket.gethostname().lower()) or name.endswith(
            (".localhost", ".local", ".internal")
        )
    return address.is_loopback or address.is_private or address.is_unspecified
