"""A registry client that behaves as the stock ones do: challenged, it fetches a token and asks again."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from urllib.parse import quote, urlencode, urlsplit

from tests.client import Answer

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
ALGORITHMS = ("sha256", "sha512")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_PIECE = 64 * 2**10

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Registry:
    """One server as a client with a password sees it; without one it never answers a challenge."""

    def __init__(self, host: str, password: str = "") -> None:
        self.host, self._password = host, password
        self._tokens: dict[str, str] = defaultdict(str)  # by repository; the widest that was needed so far
        self.challenges: list[str] = []

    def with_whole_token(self) -> Registry:
        """The same server for a client that sends its password itself as bearer token: no scope narrows it."""
        whole = Registry(self.host, self._password)
        whole._tokens = defaultdict(lambda: self._password)
        return whole

    def token_of(self, repository: str) -> str:
        """The bearer token for a repository that was asked for before; empty if none was needed."""
        return self._tokens[f"/v2/{repository}"]

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Headers = (), *, chunked: bool = False
    ) -> Answer:
        """One exchange, and a second one with a token if the first was challenged. `headers` may repeat a name."""
        path = path.removeprefix(f"http://{self.host}")
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        repository = re.sub(r"/(blobs|manifests|tags|referrers)/.*", "", urlsplit(path).path)
        answer = self._send(method, path, body, pairs, self._tokens[repository], chunked=chunked)
        if answer.status == 401 and self._password:
            token = self._tokens[repository] = self._token(answer)
            answer = self._send(method, path, body, pairs, token, chunked=chunked)
        return answer

    def get(self, path: str, headers: Headers = ()) -> Answer:
        return self.request("GET", path, headers=headers)

    def head(self, path: str, headers: Headers = ()) -> Answer:
        return self.request("HEAD", path, headers=headers)

    def post(self, repository: str, query: str = "", body: bytes = b"") -> Answer:
        """Open an upload session, or do what the query asks for."""
        return self.request("POST", f"/v2/{repository}/blobs/uploads/{query}", body)

    def open_session(self, repository: str) -> str:
        """The Location of a new upload session."""
        answer = self.post(repository)
        assert (answer.status, answer.body) == (202, b"")
        location = str(answer.headers["Location"])
        assert urlsplit(location).path.startswith(f"/v2/{repository}/blobs/uploads/")
        return location

    def patch(self, location: str, body: bytes, first: int | None = None) -> Answer:
        headers = {} if first is None else {"Content-Range": f"{first}-{first + len(body) - 1}"}
        return self.request("PATCH", location, body, headers)

    def close_session(self, location: str, digest: str, body: bytes = b"", first: int | None = None) -> Answer:
        headers = {} if first is None else {"Content-Range": f"{first}-{first + len(body) - 1}"}
        return self.request("PUT", with_query(location, digest=digest), body, headers)

    def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        done = self.close_session(self.open_session(repository), digest, data)
        assert done.status == 201, done.body
        return digest

    def put_manifest(
        self, repository: str, reference: str, raw: bytes, media_type: str = OCI_MANIFEST, tags: Iterable[str] = ()
    ) -> Answer:
        """Without a length, as the suite sends every manifest."""
        query = "?" + urlencode([("tag", tag) for tag in tags]) if tags else ""
        path = f"/v2/{repository}/manifests/{reference}{query}"
        return self.request("PUT", path, raw, {"Content-Type": media_type}, chunked=True)

    def _send(
        self, method: str, path: str, body: bytes | None, headers: list[tuple[str, str]], token: str, *, chunked: bool
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for key, value in headers:
                connection.putheader(key, value)
            if token:
                connection.putheader("Authorization", f"Bearer {token}")
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            elif body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(_pieces(body) if chunked else body, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _token(self, challenged: Answer) -> str:
        """What the challenge asks for, from where it says."""
        (challenge,) = challenged.headers.get_all("WWW-Authenticate") or []
        assert challenge.startswith("Bearer "), challenge
        self.challenges.append(challenge)
        fields = dict(_PARAMETER.findall(challenge))
        realm = urlsplit(fields["realm"])
        assert realm.netloc == self.host, "a client sends its password to nobody else"
        wanted = urlencode({key: fields[key] for key in ("service", "scope") if key in fields}, quote_via=quote)
        basic = base64.b64encode(f"somebody:{self._password}".encode()).decode()
        answer = self._send(
            "GET", f"{realm.path}?{wanted}", None, [("Authorization", f"Basic {basic}")], "", chunked=False
        )
        assert answer.status == 200, answer.body
        return str(answer.json["token"])


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def with_query(location: str, **query: str) -> str:
    """The Location with more parameters; it may have some already."""
    return f"{location}{'&' if '?' in location else '?'}{urlencode(query)}"


def path_of(answer: Answer) -> str:
    return urlsplit(str(answer.headers["Location"])).path


def dump(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def slices(data: bytes, *cuts: int) -> list[tuple[int, bytes]]:
    """The parts between the cuts, each with where it begins."""
    return [(first, data[first:last]) for first, last in pairwise((0, *cuts, len(data)))]


def _pieces(body: bytes | None) -> Iterator[bytes]:
    data = body or b""
    return (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))
