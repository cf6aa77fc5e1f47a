"""What another registry lists: its repositories, and the tags of one, page after page. Spec: "Listing Tags".

Lists of strangers end: by their pages, their bytes, their entries and their time, whatever their Links say.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar
from urllib.parse import urlsplit

from registry.heavy import room_to_parse
from registry.remotes.answers import failure
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AnswerInvalid, RedirectRefused, RemoteError
from registry.remotes.http import Origin, Reply, admit_hop
from registry.remotes.retry import Retry
from storage.errors import NameInvalid, TagInvalid
from storage.reference import RepositoryName, Tag

T = TypeVar("T")

MAX_PAGES: Final = 1_000
MAX_ENTRIES: Final = 100_000
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_BYTES: Final = 64 * 1024 * 1024
LIST_S: Final = 600.0
_PAGE: Final = 1_000  # entries that we ask for
_MAX_NAME: Final = 1_024  # characters; what is longer names nothing
_TRIES: Final = 3
_MAX_LINKS: Final = 100
_LINK: Final = re.compile(r"<([^<>]*)>([^<]*)")


def list_tags(remote: RemoteRepository, *, sleep: Callable[[float], None] = time.sleep) -> list[Tag]:
    """The repository's tags, as it orders them; what cannot be a tag is left out. Raises RemoteError."""
    listing = _Listing(remote, remote.url("tags/list"), "tags", sleep)
    return list(_parsed(listing.entries(), Tag.parse, TagInvalid))


def list_repositories(remote: RemoteRepository, *, sleep: Callable[[float], None] = time.sleep) -> list[RepositoryName]:
    """All of the registry's repositories that it shows us; what cannot be one is left out. Raises RemoteError."""
    listing = _Listing(remote.catalog(), f"{remote.home}/v2/_catalog", "repositories", sleep)
    return list(_parsed(listing.entries(), RepositoryName.parse, NameInvalid))


def _parsed(texts: Iterator[str], parse: Callable[[str], T], invalid: type[Exception]) -> Iterator[T]:
    for text in texts:
        try:
            yield parse(text)
        except invalid:
            continue


class _Listing:
    """The pages of one list, from `url` on; `key` is where a page has its entries."""

    def __init__(self, remote: RemoteRepository, url: str, key: str, sleep: Callable[[float], None]) -> None:
        self._remote, self._url, self._key, self._sleep = remote, url, key, sleep
        self._bytes = 0

    def entries(self) -> Iterator[str]:
        """Each once. Raises AnswerInvalid for a list that leads astray or does not end."""
        asked, found = set[str](), set[str]()
        deadline = time.monotonic() + LIST_S
        url: str | None = f"{self._url}?n={_PAGE}"
        while url is not None:
            if url in asked:
                raise self._astray("goes in circles")
            if len(asked) >= MAX_PAGES or time.monotonic() > deadline:
                raise self._astray("does not end")
            asked.add(url)
            page, url = self._page(url)
            new = [text for text in dict.fromkeys(page) if text not in found]
            if url is not None and not new:
                raise self._astray("goes on without telling anything new")
            found.update(new)
            if len(found) > MAX_ENTRIES:
                raise self._astray(f"has more than {MAX_ENTRIES} entries")
            yield from new

    def _page(self, url: str) -> tuple[list[str], str | None]:
        """The entries of one page, and where the next one is."""
        retry = Retry(sleep=self._sleep, patience=_TRIES)
        while True:
            try:
                with self._remote.call("GET", url) as reply:
                    if reply.status != 200:
                        raise failure(reply, self._key)
                    raw = reply.read(min(MAX_PAGE_BYTES, MAX_BYTES - self._bytes))
                    self._bytes += len(raw)
                    return self._entries(raw), self._next(reply)
            except RemoteError as error:
                retry.pause(error)

    def _entries(self, raw: bytes) -> list[str]:
        try:
            with room_to_parse(raw):
                body = json.loads(raw)
                listed = body.get(self._key) if isinstance(body, dict) else False
        except (ValueError, RecursionError):
            listed = False
        if listed is None:  # Go servers write null for an empty list
            return []
        if not isinstance(listed, list):
            raise self._astray("cannot be read")
        return [text for text in listed if isinstance(text, str) and len(text) <= _MAX_NAME]

    def _next(self, reply: Reply) -> str | None:
        """The next page's address: of this list at this registry, and nowhere else."""
        target = next_target(", ".join(reply.headers.getlist("Link")))
        if target is None:
            return None
        try:
            url = admit_hop(reply.url, target)
        except RedirectRefused:
            raise self._astray("continues at something that is no address") from None
        if Origin.of(url) != self._remote.home or urlsplit(url).path != urlsplit(self._url).path:
            raise self._astray("continues at another place")
        return url

    def _astray(self, how: str) -> AnswerInvalid:
        return AnswerInvalid(f"the list of {self._key} of {self._remote.home} {how}")


def next_target(header: str) -> str | None:
    """What a Link header names as the next one; None where it names none. Spec: "Listing Tags"; RFC 8288."""
    for _, link in zip(range(_MAX_LINKS), _LINK.finditer(header), strict=False):
        for parameter in link[2].split(";"):
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "rel" and "next" in value.strip(' \t,"').lower().split():
                return link[1].strip()
    return None
