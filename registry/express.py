"""The shortest way to a manifest that anybody may read.

A model that a hundred machines check for updates is asked for by tag far more often than for anything else. Where
neither who asks nor any header can change the answer, it is given here, in front of the framework; all else, every
refusal too, takes the common way. Both ways lead through the same policy, storage and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from auth.policy import IsPrivate
from registry.manifests import is_unreadable, manifest_headers
from registry.mirror.mirrors import Mirrors
from registry.origins import Origins
from registry.paths import Kind, split_path
from registry.request_ids import request_id
from storage.errors import StorageError
from storage.reference import RepositoryName, Tag, parse_reference
from storage.repositories import Repositories

NODE_HEADER: Final = "Tonnage-Node"  # which of several servers answered: clients, and what stands before us, may return

StartResponse = Callable[..., Any]
WSGI = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

# With any of these the answer may be another, or there is more to do than to answer.
_TELLING = (
    "HTTP_AUTHORIZATION",
    "HTTP_X_API_KEY",
    "HTTP_ORIGIN",
    "HTTP_IF_NONE_MATCH",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_EXPECT",
    "HTTP_X_REQUEST_ID",
)
_BODILESS = ("", "0")


class Express:
    """A WSGI app in front of `app`. is_open: whether everybody may read everything. node: who says that it answers."""

    def __init__(  # one of each part that has a say
        self,
        app: WSGI,
        repositories: Repositories,
        mirrors: Mirrors,
        origins: Origins,
        is_private: IsPrivate,
        *,
        is_open: bool,
        node: str,
    ) -> None:
        self._app, self._repositories, self._mirrors, self._origins = app, repositories, mirrors, origins
        self._is_private, self._is_open, self._node = is_private, is_open, node

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        answer = self._answer(environ) if _is_plain_read(environ) else None
        if answer is None:
            return self._app(environ, start_response)
        headers, body = answer
        start_response("200 OK", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: Mapping[str, Any]) -> tuple[dict[str, str], bytes] | None:
        """Headers and body, or None for the common way."""
        path = split_path(environ["PATH_INFO"][len("/v2/") :])
        if path is None or path.kind is not Kind.MANIFEST or not self._origins.knows_host(environ):
            return None
        try:
            name, reference = RepositoryName.parse(path.name), parse_reference(path.reference)
            if not self._is_open and self._is_private(name.namespace):
                return None
            if self._mirrors.find(name) is not None:  # there may be news upstream
                return None
            manifest = self._repositories.get_manifest(name, reference)
        except StorageError:
            return None
        if is_unreadable(manifest, environ.get("HTTP_USER_AGENT", "")):
            return None
        headers = manifest_headers(manifest, is_tag=isinstance(reference, Tag))
        headers["Content-Length"] = str(len(manifest.raw))
        headers["X-Request-Id"] = request_id("")
        headers["X-Content-Type-Options"] = "nosniff"
        headers[NODE_HEADER] = self._node
        headers["Docker-Distribution-API-Version"] = "registry/2.0"
        return headers, manifest.raw


def _is_plain_read(environ: Mapping[str, Any]) -> bool:
    return (
        environ["REQUEST_METHOD"] in ("GET", "HEAD")
        and environ["PATH_INFO"].startswith("/v2/")
        and not environ.get("QUERY_STRING")
        and environ.get("CONTENT_LENGTH", "") in _BODILESS
        and not any(name in environ for name in _TELLING)
    )
