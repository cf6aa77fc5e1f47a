"""The one policy for every outbound request: time-outs, bounds, and which hop may see credentials.

Redirects are followed by hand, because each hop is a decision: `admit_hop` takes it, for every Location of any kind.
Bodies are bounded by who reads them, heads by http.client: 100 lines of 64 KiB.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from registry.remotes.connections import Live, pools_within
from registry.remotes.errors import (
    AnswerInvalid,
    ConnectionCut,
    RedirectRefused,
    RemoteError,
    Stalled,
    TlsRefused,
    Unreachable,
    UrlInvalid,
)
from registry.remotes.hosts import DEFAULT_PORTS, parse_authority
from registry.remotes.rate import Limits, RateLimit, paced
from registry.remotes.reach import Reach

logging.getLogger("urllib3").setLevel(logging.INFO)  # below, it tells whole addresses, and some are rights

USER_AGENT = "tonnage/0.1"
MAX_REDIRECTS = 8
MAX_URL = 8192
SMALL_BODY_S = 120.0  # a whole manifest or token takes no longer, however slowly the bytes drip
READ_BYTES = 256 * 1024

_MAX_REMEMBERED = 64  # origins
_REDIRECTS = {301, 302, 303, 307, 308}
_KEEP_BODY = {307, 308}

Body = bytes | Callable[[], Iterable[bytes]]  # a callable, because a redirect or a new token sends the body again


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what credentials are bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises UrlInvalid for anything but a plain http or https URL."""
        if len(url) > MAX_URL or not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
            raise UrlInvalid("not a URL: too long, or with characters that a URL cannot have")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise UrlInvalid(f"not a URL: {url[:200]}") from None
        if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
            raise UrlInvalid(f"{url[:200]} is no URL; write http://HOST:PORT or https://HOST:PORT")
        if "@" in parts.netloc:
            raise UrlInvalid("a URL must not carry a user name or password; use --token-file")
        host, port = parse_authority(parts.netloc)
        return cls(parts.scheme, host, port if port is not None else DEFAULT_PORTS[parts.scheme])

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def admit_hop(current: str, location: str) -> str:
    """The absolute URL that `location`, given by the server at `current`, may take us to.

    Raises RedirectRefused. https never falls back to http; a server behind a proxy that ends TLS writes http:// for
    its own address in good faith, so for the same host the scheme is kept instead.
    """
    try:
        target = urljoin(current, location)
        here, there = Origin.of(current), Origin.of(target)
    except (UrlInvalid, ValueError):
        raise RedirectRefused("the server points to something that is not an http or https URL") from None
    if here.scheme == "https" and there.scheme == "http":
        if here.host == there.host and there.port in {80, here.port}:
            return urlsplit(target)._replace(scheme="https", netloc=here.authority).geturl()
        raise RedirectRefused(f"{here} points to {there}: an https server may not send us to plain http")
    return target


class Reply:
    """An answer whose body is still on the wire. Use as a context manager: leaving it frees the connection."""

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        *,
        limit: RateLimit | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """limit: of the body. wait: how to wait for it."""
        self._response = response
        self._limit, self._wait = limit, wait
        self.waited_s = 0.0  # for the limit's sake: no fault of the server's
        self.url = url  # after redirects
        self.status = response.status
        self.headers = response.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def header(self, name: str) -> str:
        return self.headers.get(name) or ""

    @property
    def length(self) -> int | None:
        """Content-Length, None if absent. Raises AnswerInvalid."""
        text = self.header("Content-Length")
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise AnswerInvalid(f"{Origin.of(self.url)} answered with a Content-Length that is no number")
        return int(text)

    def stream(self) -> Iterator[bytes]:
        """The body as it arrives. Raises ConnectionCut when it ends before its declared length."""
        size = READ_BYTES if self._limit is None else min(READ_BYTES, self._limit.piece_bytes)
        while True:
            try:
                piece = self._response.read1(size, decode_content=False)
            except (HTTPError, OSError) as error:
                raise translated(error, self.url) from error
            if not piece:
                return
            if self._limit is not None:
                self._pause(self._limit.take(len(piece)))
            yield piece

    def read(self, limit: int) -> bytes:
        """The whole body. Raises AnswerInvalid past `limit` bytes, Stalled when it takes too long."""
        deadline = time.monotonic() + SMALL_BODY_S
        pieces, total = [], 0
        for piece in self.stream():
            total += len(piece)
            if total > limit:
                raise AnswerInvalid(f"{Origin.of(self.url)} answered with more than {limit} bytes")
            if time.monotonic() > deadline + self.waited_s:
                raise Stalled(f"{Origin.of(self.url)} is too slow: {total} bytes in {SMALL_BODY_S:.0f} s")
            pieces.append(piece)
        return b"".join(pieces)

    def _pause(self, seconds: float) -> None:
        """Here, not in a read: the server's time-outs do not run meanwhile, only its send buffer fills."""
        self._wait(seconds)
        self.waited_s += seconds

    def close(self) -> None:
        """A body read to its end gives the connection back to the pool; any other is cut, however long it may be."""
        if self._response.length_remaining == 0:  # HEAD and empty answers: nothing has been read, nothing is left
            self._response.release_conn()
        self._response.close()


class Outbound:
    """Sends requests under the policy. One for a command or a process: it holds the connection pool."""

    def __init__(
        self,
        *,
        user_agent: str = USER_AGENT,
        connect_s: float = 30.0,
        read_s: float = 60.0,
        ca_file: Path | None = None,
        verify_tls: bool = True,
        reach: Reach | None = None,
        limits: Limits = Limits(),  # noqa: B008  # a frozen value
    ) -> None:
        """reach: where connections may go to; None is anywhere, for whoever runs a command by themselves.

        limits: of the bodies that come and go; clients may share them.
        """
        # connect_s is also the time a 64 KiB piece of a body may take to leave: urllib3 sets one time-out for both.
        self._times = (connect_s, read_s)
        self._user_agent, self._limits, self._reach = user_agent, limits, reach
        self._answered: set[Origin] = set()
        self._tls: dict[str, Any] = {
            "cert_reqs": "CERT_REQUIRED" if verify_tls else "CERT_NONE",
            "ca_certs": str(ca_file) if ca_file else None,
        }
        self._connect(Live())
        if not verify_tls:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the command has said it in its words

    def branch(self) -> Self:
        """A client under the same policy whose connections are its own: `abort` of either ends them."""
        twin = copy(self)
        twin._connect(Live(within=self._live))
        return twin

    def _connect(self, live: Live) -> None:
        self._live, self._aborted = live, threading.Event()
        self._pool = urllib3.PoolManager(num_pools=8, maxsize=4, retries=False, **self._tls)
        self._pool.pool_classes_by_scheme = pools_within(self._reach, live)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int | None = None,
        read_s: float | None = None,
        follow: bool = True,
    ) -> Reply:
        """One request, redirects included unless `follow` is off. Any status is an answer, not an error.

        length: bytes that a callable `body` yields. Raises RemoteError. `Authorization` leaves with the first hop to
        another origin and does not come back.
        """
        sent = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            sent["Content-Length"] = str(len(body) if isinstance(body, bytes) else length or 0)
        start = Origin.of(url)
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._send(method, url, sent, body, read_s)
            if not follow or reply.status not in _REDIRECTS:
                return reply
            with reply:
                if method not in {"GET", "HEAD"} and reply.status not in _KEEP_BODY:
                    raise RedirectRefused(
                        f"{Origin.of(url)} redirects a {method} by {reply.status}, which drops its body"
                    )
                if not reply.header("Location"):
                    raise AnswerInvalid(f"{Origin.of(url)} answered {reply.status} without a Location")
                url = admit_hop(url, reply.header("Location"))
            if Origin.of(url) != start:
                sent.pop("Authorization", None)
        raise RedirectRefused(f"{start} redirects more than {MAX_REDIRECTS} times")

    def abort(self) -> None:
        """Cut every connection, from any thread; whoever waits for one gets ConnectionCut. For good."""
        self._aborted.set()
        self._live.cut()

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.clear()

    def _send(self, method: str, url: str, headers: dict[str, str], body: Body | None, read_s: float | None) -> Reply:
        connect, read = self._times
        origin, parts = Origin.of(url), urlsplit(url)
        try:
            # By parts that are read already: a second parser might see another host in the same text.
            pool = self._pool.connection_from_host(origin.host, origin.port, origin.scheme)
            response = pool.urlopen(
                method,
                f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
                redirect=False,
                assert_same_host=False,
                headers=headers,
                body=self._outgoing(body),
                timeout=urllib3.Timeout(connect=connect, read=read_s or read),
                preload_content=False,
                decode_content=False,
            )
        except Unreachable as error:  # as the reach of our connections words it
            raise self._judged(error, origin) from error
        except (HTTPError, OSError) as error:
            raise self._judged(translated(error, url), origin) from error
        if len(self._answered) < _MAX_REMEMBERED:
            self._answered.add(origin)
        return Reply(response, url, limit=self._limits.down, wait=self._wait)

    def _judged(self, error: RemoteError, origin: Origin) -> RemoteError:
        """Who has answered before is more likely to be starting again than to be nowhere."""
        if isinstance(error, Unreachable) and origin in self._answered:
            error.patience = RemoteError.patience
        return error

    def _outgoing(self, body: Body | None) -> bytes | Iterable[bytes] | None:
        """The body as it is sent: under a limit, a piece reaches the socket, and its time-out, when its turn comes."""
        up = self._limits.up
        if not body or up is None:
            return body if not callable(body) else body()
        return paced((body,) if isinstance(body, bytes) else body(), up, self._wait)

    def _wait(self, seconds: float) -> None:
        if self._aborted.wait(seconds):
            raise ConnectionCut("the transfer was given up")


def translated(error: Exception, url: str) -> RemoteError:
    """urllib3's error as one of ours."""
    where = str(Origin.of(url))
    if isinstance(error, LocationParseError | LocationValueError):
        return UrlInvalid(f"not a URL: {url[:200]}")
    if isinstance(error, SSLError):
        return _tls_error(error.args[0] if error.args else None, where)
    if isinstance(error, NewConnectionError | ConnectTimeoutError):  # first: these too are time-outs to urllib3
        return Unreachable(f"cannot connect to {where}; is the server running, and is the address right?")
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return Stalled(f"{where} sent nothing for too long")
    return ConnectionCut(f"{where} closed the connection in the middle of a request")


def _tls_error(cause: object, where: str) -> RemoteError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message or "it is not trusted"
        return TlsRefused(f"the certificate of {where} is refused ({why}); name its CA with --ca-file")
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ConnectionCut(f"{where} closed the connection")
    return TlsRefused(f"{where} does not speak TLS as https needs; is the URL meant to be http://?")
