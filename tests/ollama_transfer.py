"""How newer ollama clients move blobs of tensors: no HEAD before a pull, and a whole blob at once to a store.

Source: the Ollama registry protocol, "transfer pull", "transfer push v2".
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin, urlsplit

from tests.ollama_client import ClientError, Reply, Transport

AGENT: Final = "ollama-transfer/1.0"
_RESOLVES: Final = 10
_SIGNED: Final = "x-signed-header-"


class Transfer:
    """One operation's requests to a registry, with a bearer token where one is given."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.transport = url.rstrip("/"), Transport()
        self._headers = {"User-Agent": AGENT} | ({"Authorization": f"Bearer {token}"} if token else {})

    def pull_blob(self, repository: str, digest: str) -> bytes:
        """Asks until there is an answer, reads that away, and asks for the bytes where it led to."""
        url = f"{self.url}/v2/{repository}/blobs/{digest}"
        home, address = urlsplit(url).netloc, url
        for _ in range(_RESOLVES):
            reply = self.transport.send("GET", address, self._headers)
            reply.read()
            if reply.status == 200:
                break
            if reply.status not in (301, 302, 307):
                raise ClientError(f"status {reply.status}")
            address = urljoin(address, reply.headers["Location"])
            if urlsplit(address).netloc != home:
                break
        else:
            raise ClientError("too many redirects")
        is_home = urlsplit(address).netloc == home
        reply = self.transport.send("GET", address, self._headers if is_home else {"User-Agent": AGENT})
        if reply.status not in (200, 206):
            raise ClientError(f"status {reply.status}")
        return reply.read()

    def open_session(self, repository: str, digest: str, size: int) -> Reply:
        headers = self._headers | {"X-Redirect-Uploads": "2", "X-Content-Length": str(size)}
        reply = self.transport.send("POST", f"{self.url}/v2/{repository}/blobs/uploads/?digest={digest}", headers)
        reply.read()
        return reply

    def send_whole(self, opened: Reply, data: bytes) -> Reply:
        """To the store that the answer names, with the headers it tells."""
        told = {
            name.lower().removeprefix(_SIGNED): value
            for name, value in opened.headers.items()
            if name.lower().startswith(_SIGNED)
        }
        headers = {"User-Agent": AGENT, "Content-Type": "application/octet-stream", **told}
        reply = self.transport.send("PUT", opened.headers["X-Direct-Upload-URL"], headers, data)
        reply.read()
        return reply

    def commit(self, opened: Reply, digest: str) -> Reply:
        reply = self.transport.send("PUT", f"{opened.headers['Location']}?digest={digest}", self._headers)
        reply.read()
        return reply
