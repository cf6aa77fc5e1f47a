"""Who we say we are, to whom, and where a server may send us."""

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from auth.keys import PrivateKey
from registry.remotes import pace
from registry.remotes.answers import session_offset
from registry.remotes.challenge import Challenge, merged_scope, parse_challenge
from registry.remotes.credentials import Authenticator, check_realm, parse_token
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import (
    AnswerInvalid,
    ConnectionCut,
    Forbidden,
    RealmRefused,
    RedirectRefused,
    RequestRefused,
    Stalled,
    TlsRefused,
    Unauthorized,
    Unreachable,
    UrlInvalid,
)
from registry.remotes.hosts import NamedHost
from registry.remotes.http import Origin, Outbound, admit_hop
from registry.remotes.incoming import Incoming
from registry.remotes.jobs import Job
from registry.remotes.reach import Reach
from registry.remotes.text import one_line
from registry.remotes.uploads import complete_upload, send_part, start_upload
from storage.digest import Digest
from storage.manifest import Descriptor
from storage.reference import RepositoryName
from tests.faulty_registry import Fault, faulty_registry

ABSENT = Digest.of(b"absent")


def repository(registry, *, is_pushing=False, **credentials) -> RemoteRepository:
    auth = Authenticator(Outbound(connect_s=2, read_s=2), **credentials)
    return RemoteRepository(auth, registry.url, RepositoryName("a/m"), is_pushing=is_pushing)


def test_a_key_signs_one_token_request_for_all_the_rights_a_push_needs():
    key = PrivateKey.generate()
    with faulty_registry(keys={key.public.fingerprint}) as registry:
        remote = repository(registry, is_pushing=True, key=key)

        assert remote.blob_size(ABSENT) is None
        assert remote.blob_size(ABSENT) is None

        [asked] = registry.token_requests
        assert "scope=repository%3Aa%2Fm%3Apull%2Cpush&service=test" in asked


@pytest.mark.parametrize("token", ["tng_1_secret", "alice:pass:word"])
@pytest.mark.parametrize("asks_basic", [True, False])
def test_an_access_token_is_the_password_where_one_is_asked_for(token, asks_basic):
    user, _, password = token.rpartition(":") if token.count(":") == 0 else token.partition(":")
    with faulty_registry(users={user or "token": password}, asks_basic=asks_basic) as registry:
        assert repository(registry, token=token).blob_size(ABSENT) is None


def test_an_unknown_key_is_told_how_it_may_be_admitted():
    key = PrivateKey.generate()
    with faulty_registry(keys={"SHA256:other"}) as registry, pytest.raises(Unauthorized) as refusal:
        repository(registry, key=key).blob_size(ABSENT)

    assert key.public.fingerprint in str(refusal.value)
    assert "unknown key" in str(refusal.value)
    assert "tonnage key add" in str(refusal.value)


def test_a_token_that_is_refused_is_replaced_once():
    key = PrivateKey.generate()
    with faulty_registry(keys={key.public.fingerprint}) as registry:
        remote = repository(registry, key=key)
        remote.blob_size(ABSENT)
        registry.tokens.clear()

        remote.blob_size(ABSENT)

        assert len(registry.token_requests) == 2


def test_a_registry_that_never_accepts_its_own_tokens_is_given_up():
    key = PrivateKey.generate()
    challenge = {"WWW-Authenticate": 'Bearer realm="{}/v2/token",service="x"'}
    with faulty_registry(keys={key.public.fingerprint}) as registry:
        challenge["WWW-Authenticate"] = challenge["WWW-Authenticate"].format(registry.url)
        registry.faults.append(Fault("HEAD", "blobs", status=401, headers=challenge, times=99))

        with pytest.raises(Unauthorized):
            repository(registry, key=key).blob_size(ABSENT)

        assert registry.count("HEAD") == 2
        assert len(registry.token_requests) == 1


@pytest.mark.parametrize("is_pushing", [False, True])
def test_where_our_key_means_nothing_what_is_public_is_read_without_it(is_pushing):
    with faulty_registry(keys={"another"}, is_public=True) as registry:
        remote = repository(registry, is_pushing=is_pushing, key=PrivateKey.generate())

        if is_pushing:
            with pytest.raises(Unauthorized):
                remote.blob_size(ABSENT)
        else:
            assert remote.blob_size(ABSENT) is None


def test_where_nobody_may_read_the_first_refusal_is_the_one_that_is_told():
    challenge = {"WWW-Authenticate": 'Bearer realm="{}/v2/token",service="x"'}
    with faulty_registry(keys={"another"}, is_public=True) as registry:
        challenge["WWW-Authenticate"] = challenge["WWW-Authenticate"].format(registry.url)
        registry.faults.append(Fault("HEAD", "blobs", status=401, headers=challenge, times=99))

        with pytest.raises(Unauthorized, match="unknown key"):
            repository(registry, key=PrivateKey.generate()).blob_size(ABSENT)

        assert len(registry.token_requests) == 2


def test_a_403_with_a_token_ends_it():
    key = PrivateKey.generate()
    with faulty_registry(keys={key.public.fingerprint}) as registry:
        registry.faults.append(Fault("HEAD", "blobs", status=403, times=99))

        with pytest.raises(Forbidden):
            repository(registry, key=key).blob_size(ABSENT)

        assert registry.count("HEAD") == 1


def test_a_token_about_to_expire_is_replaced_before_it_is_refused():
    key, clock = PrivateKey.generate(), SimpleNamespace(now=1_700_000_000.0)
    with faulty_registry(keys={key.public.fingerprint}) as registry:
        remote = repository(registry, key=key, clock=lambda: clock.now)
        remote.blob_size(ABSENT)
        clock.now += 895

        remote.blob_size(ABSENT)

        assert len(registry.token_requests) == 2
        assert registry.count("HEAD") == 3  # one challenge, not two


def test_a_token_server_elsewhere_gets_nothing():
    key = PrivateKey.generate()
    with faulty_registry(keys={key.public.fingerprint}) as thief, faulty_registry(keys={"x"}) as registry:
        registry.realm = f"{thief.url}/v2/token"

        with pytest.raises(RealmRefused):
            repository(registry, key=key).blob_size(ABSENT)

        assert thief.requests == []


@pytest.mark.parametrize("is_pushing", [False, True])
@pytest.mark.parametrize("status", [302, 303, 307, 308])
def test_a_token_server_that_points_elsewhere_is_not_followed(status, is_pushing):
    key = PrivateKey.generate()
    with faulty_registry(keys={key.public.fingerprint}) as thief, faulty_registry(keys={"x"}) as registry:
        moved = {"Location": f"{thief.url}/v2/token"}
        registry.faults.append(Fault("GET", "/v2/token", status=status, headers=moved, times=99))

        with pytest.raises(RequestRefused):
            repository(registry, is_pushing=is_pushing, key=key).blob_size(ABSENT)

        assert thief.requests == []


def test_an_upload_that_lies_elsewhere_gets_our_bytes_and_no_credentials():
    key = PrivateKey.generate()
    with faulty_registry(sessions={"s9": bytearray()}) as other, faulty_registry(keys={key.public.fingerprint}) as home:
        remote = repository(home, is_pushing=True, key=key)
        remote.blob_size(ABSENT)  # a token is at hand
        away = {"Location": f"{other.url}/v2/a/m/blobs/uploads/s9"}
        home.faults.append(Fault("POST", "uploads", status=202, headers=away))

        session = start_upload(remote, ABSENT)
        send_part(remote, session, 6, lambda start, length: iter([b"absent"]))
        complete_upload(remote, session, ABSENT)

        assert [request.method for request in other.requests] == ["PATCH", "PUT"]
        assert not any("Authorization" in request.headers for request in other.requests)
        assert "Authorization" in home.requests[-1].headers


@pytest.mark.parametrize(
    "home, realm, is_fine",
    [
        ("https://r.example", "https://r.example/v2/token", True),
        ("https://r.example", "https://r.example:443/v2/token", True),
        ("http://r.example", "https://r.example:80/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://r.example", "http://r.example:443/v2/token", False),
        ("https://r.example", "https://r.example:444/v2/token", False),
        ("https://r.example", "https://r.example.evil/v2/token", False),
        ("https://r.example", "https://auth.docker.io/token", False),
        ("http://127.0.0.1:5000", "http://localhost:5000/v2/token", False),
        ("https://registry-1.docker.io", "http://auth.docker.io/token", False),
    ],
)
def test_realms(home, realm, is_fine):
    if is_fine:
        check_realm(Origin.of(home), realm)
    else:
        with pytest.raises(RealmRefused):
            check_realm(Origin.of(home), realm)


@pytest.mark.parametrize(
    "headers, challenge",
    [
        (['Bearer realm="https://h/t",service="s",scope="a:b:c"'], Challenge("bearer", "https://h/t", "s", "a:b:c")),
        (['bearer realm="https://h/t", service=s , error="x"'], Challenge("bearer", "https://h/t", "s")),
        (['Basic realm="x"', 'Bearer realm="https://h/t"'], Challenge("bearer", "https://h/t")),
        (['Basic realm="a \\"b\\""'], Challenge("basic", 'a "b"')),
        (["Basic"], Challenge("basic")),
        (["Negotiate"], None),
        ([""], None),
        ([], None),
    ],
)
def test_challenges(headers, challenge):
    assert parse_challenge(headers) == challenge


@pytest.mark.parametrize(
    "wanted, challenged, merged",
    [
        ("repository:a:pull,push", "repository:a:pull", "repository:a:pull,push"),
        ("repository:a:pull", "repository:a:pull,push", "repository:a:pull,push"),
        ("repository:a:pull", "repository:b:pull", "repository:a:pull repository:b:pull"),
        ("repository:a:pull", "", "repository:a:pull"),
        ("repository:a:pull", "-", "repository:a:pull -"),
    ],
)
def test_scopes_are_joined(wanted, challenged, merged):
    assert merged_scope(wanted, challenged) == merged


@pytest.mark.parametrize(
    "body, answer",
    [
        (b'{"token":"t","expires_in":300}', ("t", 300.0)),
        (b'{"access_token":"t"}', ("t", 60.0)),
        (b'{"token":"t","expires_in":"soon"}', ("t", 60.0)),
        (b'{"token":"a\\r\\nX-Evil: 1"}', None),
        (b'{"token":5}', None),
        (b"[]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_token_answers(body, answer):
    home = Origin.of("http://h")
    if answer:
        assert parse_token(body, home) == answer
    else:
        with pytest.raises(AnswerInvalid):
            parse_token(body, home)


@pytest.mark.parametrize(
    "current, location, target",
    [
        ("http://h/a", "/b?c=d", "http://h/b?c=d"),
        ("https://h/a", "https://cdn/x", "https://cdn/x"),
        ("http://h/a", "https://cdn/x", "https://cdn/x"),
        ("https://h/a", "http://h/b", "https://h/b"),
        ("https://h:5000/a", "http://h:5000/b", "https://h:5000/b"),
        ("https://h:5000/a", "http://h/b", "https://h:5000/b"),
        ("https://h/a", "http://other/b", None),
        ("https://h/a", "http://h:8080/b", None),
        ("http://h/a", "file:///etc/passwd", None),
        ("http://h/a", "http://user:password@h/", None),
        ("http://h/a", "http://h:99999/", None),
        ("http://h/a", "http://[::1/", None),
        ("http://h/a", "http://h/a b\r\n", None),
        ("http://h/a", "/" + "x" * 9000, None),
    ],
)
def test_where_a_server_may_send_us(current, location, target):
    if target:
        assert admit_hop(current, location) == target
    else:
        with pytest.raises(RedirectRefused):
            admit_hop(current, location)


@pytest.mark.parametrize(
    "url", ["", "h:5000", "ftp://h", "http://", "http://u:p@h", "http://h:x", "http://h\n", "http://é"]
)
def test_what_is_no_server(url):
    with pytest.raises(UrlInvalid):
        Origin.of(url)


@pytest.mark.parametrize(
    "headers, offset",
    [
        ({"Range": "0-99"}, 100),
        ({"Range": "bytes=0-99"}, 100),
        ({"Range": "0-0"}, 0),
        ({"Range": "0-0", "X-Upload-Offset": "1"}, 1),
        ({"Range": "5-9"}, None),
        ({"Range": "0--1"}, None),
        ({"Range": "0-" + "9" * 30}, None),
        ({}, None),
    ],
)
def test_session_offsets(headers, offset):
    reply = SimpleNamespace(header=lambda name: headers.get(name, ""))

    assert session_offset(reply) == offset


def test_words_of_a_server_are_one_printable_line():
    assert one_line("a\x1b[2J\r\nb\u202e" + "c" * 500, 20) == "a[2J b" + "c" * 13 + "…"


def test_nobody_there_is_one_clear_line():
    with pytest.raises(Unreachable, match=r"cannot connect to http://127.0.0.1:1;"):
        Outbound(connect_s=1).request("GET", "http://127.0.0.1:1/")


@contextmanager
def answering(*pieces: bytes):
    """A server that says `pieces` to whoever connects, whatever is asked, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    thread.join(5)


@contextmanager
def dripping(start: bytes, drop: bytes, pause_s: float = 0.02):
    """A server that begins to answer, and then never ends but says a little now and then."""
    listener, is_over = socket.create_server(("127.0.0.1", 0)), threading.Event()
    listener.settimeout(0.1)

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while not is_over.wait(pause_s):
                connection.sendall(drop)

    def accept() -> None:
        with listener:
            while not is_over.is_set():
                with suppress(TimeoutError):
                    threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    is_over.set()
    thread.join(5)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_the_head_of_an_answer_cannot_come_in_drips(start):
    with dripping(start, b"x") as url, pytest.raises(Stalled):
        Outbound(connect_s=2, read_s=0.5).request("GET", url)


@pytest.mark.parametrize("drop", [b"X: y\r\n", b"X" * 4096])
def test_a_body_ends_though_its_trailers_do_not(drop):
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    with dripping(start, drop) as url, pytest.raises(ConnectionCut):
        Outbound(connect_s=2, read_s=5).request("GET", url).read(100)


def test_a_blob_cannot_come_in_drips(monkeypatch):
    monkeypatch.setattr(pace, "WINDOW_S", 0.3)
    blob = Descriptor("a/b", ABSENT, 1_000_000)
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x") as url:
        remote = RemoteRepository(Authenticator(Outbound(connect_s=2, read_s=2)), url, RepositoryName("a/m"))
        session, job = SimpleNamespace(offset=0), Job(lambda job: None)
        came = 0
        with Incoming(remote, blob, session, job, first_pause_s=0.001) as incoming, pytest.raises(Stalled):
            while block := incoming.read(1_000_000):
                came += len(block)

        assert 0 < came < 6 * 400  # what came in any of its tries


def test_all_connections_of_a_client_can_be_cut_at_once():
    http = Outbound(connect_s=2, read_s=30)
    with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x") as url:
        with http.request("GET", url) as reply:
            pieces = reply.stream()
            next(pieces)

            http.abort()

            with pytest.raises(ConnectionCut):
                list(pieces)
        with pytest.raises(ConnectionCut):
            http.request("GET", url)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_body_is_read_whole():
    with (
        answering(CHUNKED, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n") as url,
        Outbound(read_s=2).request("GET", url) as reply,
    ):
        assert reply.read(100) == b"abcde"


@pytest.mark.parametrize(
    "pieces",
    [
        (CHUNKED, b"3\r\nabc\r\n"),
        (CHUNKED, b"ff\r\nabc"),
        (CHUNKED, b"zz\r\nabc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,),
        (b"SSH-2.0-OpenSSH_9.9\r\n",),
        (),
    ],
    ids=["no-last-chunk", "cut-chunk", "no-chunk", "cut-body", "many-headers", "long-header", "no-http", "nothing"],
)
def test_a_broken_answer_is_a_cut_connection(pieces):
    with answering(*pieces) as url, pytest.raises(ConnectionCut), Outbound(read_s=2).request("GET", url) as reply:
        reply.read(1000)


@pytest.fixture
def tls_server(tmp_path):
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    made = [
        "-newkey",
        "ed25519",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    try:
        subprocess.run(["openssl", "req", "-x509", *made, *files], check=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("no openssl command")
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield SimpleNamespace(url=f"https://localhost:{server.server_port}/", ca=tmp_path / "cert")
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_certificate_of_nobody_is_refused(tls_server):
    with pytest.raises(TlsRefused, match="--ca-file"):
        Outbound(connect_s=2).request("GET", tls_server.url)


def test_a_certificate_of_a_named_authority_is_accepted(tls_server):
    with Outbound(connect_s=2, ca_file=tls_server.ca).request("GET", tls_server.url) as reply:
        assert reply.status == 501


@pytest.mark.parametrize(("host", "is_fine"), [("localhost", True), ("other.test", False)])
def test_a_certificate_is_for_the_name_that_was_asked_for_wherever_that_lies(tls_server, host, is_fine):
    port = Origin.of(tls_server.url).port
    reach = Reach((NamedHost(host, port),), lambda host, port: ["127.0.0.1"])
    http, url = Outbound(connect_s=2, ca_file=tls_server.ca, reach=reach), f"https://{host}:{port}/"

    if is_fine:
        with http.request("GET", url) as reply:
            assert reply.status == 501
    else:
        with pytest.raises(TlsRefused):
            http.request("GET", url)


def test_https_to_a_plain_server_says_so():
    with faulty_registry() as registry, pytest.raises(TlsRefused, match="http://"):
        Outbound(connect_s=2).request("GET", registry.url.replace("http:", "https:"))
