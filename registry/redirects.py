"""Downloads that are sent on to the object store, by an address that it honours for a while and for one blob.

Spec: "Pulling blobs"; the Ollama registry protocol, "HEAD and probe", "Parts", "transfer pull".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from flask import Response, request

from auth.access import current_gate
from registry.services import config, store
from storage.blobs import BlobInfo
from storage.digest import Digest

AUTO: Final = "auto"
NEVER: Final = "never"

_LIFE_S: Final = 3600  # who is cut off asks us again
_LONG_LIFE_S: Final = 24 * 3600  # a client that keeps the address for all of a pull
# conditions are about our ETag, of which the object store knows nothing
_OURS_ALONE: Final = ("If-Range", "If-Match", "If-Modified-Since", "If-Unmodified-Since")
_PROBE: Final = "ollama/"
_TRANSFER: Final = "ollama-transfer/"
_PART: Final = "Go-http-client/"  # what the ollama client calls itself while it fetches parts
_FOLLOWERS: Final = (  # they go where a 307 leads, with the same Range
    "docker/", "containerd/", "buildkit/", "cri-o/", "oras/", "oras-go", "skopeo/", "containers/", "libpod/",
    "Buildah/", "go-containerregistry/", "crane/", "tonnage/",
)  # fmt: skip
_SERVER: Final = "(server)"  # one such as this, which goes to addresses of its own choosing only


def store_address(blob: BlobInfo) -> Callable[[int], str | None]:
    """What tells where the client in hand may fetch so many bytes of the blob; None where they come from here."""

    def address(size: int) -> str | None:
        mode, agent = config().s3_redirect, request.headers.get("User-Agent", "")
        if mode == NEVER or size < config().s3_redirect_bytes or any(name in request.headers for name in _OURS_ALONE):
            return None
        if agent.startswith(_PROBE):  # keeps what it is told for hours; its parts come to us, and are sent on then
            return None
        life_s = _LONG_LIFE_S if agent.startswith(_TRANSFER) else _LIFE_S
        url = store().blobs.download_url(blob, expires_s=life_s)
        here = current_gate().external_scheme_and_host()[1]
        return None if url is None or (mode == AUTO and not can_follow(dict(request.headers), here, url)) else url

    return address


def can_follow(headers: Mapping[str, str], here: str, url: str) -> bool:
    """Whether the client is known to get the bytes when it is sent from `here`, host[:port], to `url`.

    What it sends there besides matters too: an object store refuses a signed address beside other credentials.
    """
    agent, target = headers.get("User-Agent", ""), urlsplit(url)
    if agent.startswith(_TRANSFER):
        return target.netloc != here  # else it asks here again, ten times
    if agent.startswith(_PART):
        return "Range" in headers and "Authorization" not in headers
    if not agent.startswith(_FOLLOWERS) or _SERVER in agent:
        return False
    return "Authorization" not in headers or not _is_within(target.hostname or "", urlsplit(f"//{here}").hostname or "")


def redirected(url: str, digest: Digest) -> Response:
    """The 307, which nobody may keep: the address is a right, and ends."""
    headers = {
        "Location": url,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": "no-store",
        "Content-Length": "0",
    }
    return Response(status=307, headers=headers)


def _is_within(host: str, domain: str) -> bool:
    """Go sends credentials on to the same host, whatever the port, and to hosts below it."""
    return host == domain or host.endswith(f".{domain}")
