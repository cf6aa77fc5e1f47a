"""Another client of the registry than our own: plain http.client, signing as the `ollama` client does."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from auth.keys import PrivateKey, sign_token_request, token_request_url

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MODEL_LAYER = "application/vnd.ollama.image.model"


@dataclass(frozen=True)
class Layer:
    digest: str
    size: int


class SecondClient:
    """Pulls from one server with one key, a connection a request."""

    def __init__(self, url: str, key: PrivateKey) -> None:
        self._host, self._key, self._token = urlsplit(url).netloc, key, ""

    def model_layer(self, repository: str, tag: str) -> Layer:
        """The layer that holds the weights."""
        connection, response = self._get(f"/v2/{repository}/manifests/{tag}", {"Accept": MANIFEST})
        manifest = json.loads(response.read())
        connection.close()
        return next(
            Layer(each["digest"], each["size"]) for each in manifest["layers"] if each["mediaType"] == MODEL_LAYER
        )

    def read_blob(self, repository: str, digest: str, *, start: int, stop_after: int | None) -> bytes:
        """Bytes from `start` on; with `stop_after` the connection is closed in the middle of the body."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        connection, response = self._get(f"/v2/{repository}/blobs/{digest}", headers)
        expected = 206 if start else 200
        if response.status != expected:
            raise http.client.HTTPException(f"GET of the blob answered {response.status}, not {expected}")
        body = response.read(stop_after) if stop_after is not None else response.read()
        connection.close()
        return body

    def _get(self, path: str, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        for _ in range(2):
            connection = http.client.HTTPConnection(self._host, timeout=60)
            bearer = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            connection.request("GET", path, headers={**headers, **bearer})
            response = connection.getresponse()
            if response.status != 401:
                break
            challenge = dict(re.findall(r'(\w+)="([^"]*)"', response.headers["WWW-Authenticate"]))
            connection.close()
            self._token = self._fetch_token(challenge)
        if response.status >= 400:
            raise http.client.HTTPException(f"GET {path} answered {response.status}: {response.read(500)!r}")
        return connection, response

    def _fetch_token(self, challenge: dict[str, str]) -> str:
        nonce = secrets.token_urlsafe(16)
        url = token_request_url(challenge["realm"], challenge["service"], challenge["scope"], int(time.time()), nonce)
        connection = http.client.HTTPConnection(self._host, timeout=60)
        target = url.split(self._host, 1)[1]
        connection.request("GET", target, headers={"Authorization": sign_token_request(self._key, url)})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"the token request answered {response.status}: {body[:500]!r}")
        return str(json.loads(body)["token"])
