"""Lists of another registry: read to their end if they have one, and no further than a list may lead."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from registry.remotes import listing
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import AnswerInvalid, NotFound, ServerBusy
from registry.remotes.http import Outbound
from registry.remotes.listing import list_repositories, list_tags, next_target
from storage.reference import RepositoryName

Answered = tuple[int, dict[str, str], bytes]


@dataclass
class Scripted:
    """A server that answers as `answer` says, given the number of the request."""

    url: str = ""
    answer: Callable[[int], Answered] = lambda number: (404, {}, b"")
    targets: list[str] = field(default_factory=list)

    def pages(self, *pages: Answered) -> None:
        self.answer = lambda number: pages[number]


@contextmanager
def scripted() -> Iterator[Scripted]:
    state = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.targets.append(self.path)
            status, headers, body = state.answer(len(state.targets) - 1)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(scope="module")
def home() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def remote(home: Scripted) -> Iterator[RemoteRepository]:
    home.targets.clear()
    http = Outbound()
    yield RemoteRepository(Authenticator(http), home.url, RepositoryName("team/model"))
    http.close()


def page(*names: object, link: str = "", key: str = "repositories") -> Answered:
    headers = {"Link": link} if link else {}
    return 200, headers, json.dumps({key: list(names)}).encode()


def names(remote: RemoteRepository) -> list[str]:
    return [str(each) for each in list_repositories(remote, sleep=lambda seconds: None)]


@pytest.mark.parametrize(
    "link",
    [
        '</v2/_catalog?n=2&last=b>; rel="next"',
        "<{home}/v2/_catalog?n=2&last=b>; rel=next",
        '<_catalog?n=2&last=b>; title="x"; REL="next"',
        '</elsewhere>; rel="first", </v2/_catalog?n=2&last=b>; rel="prev next"',
    ],
)
def test_pages_follow_their_links(home, remote, link):
    home.pages(page("a/a", "b", link=link.replace("{home}", home.url)), page("c"))

    assert names(remote) == ["a/a", "b", "c"]
    assert home.targets == ["/v2/_catalog?n=1000", "/v2/_catalog?n=2&last=b"]


def test_tags_are_listed_in_the_order_of_the_registry(home, remote):
    home.pages(
        page("v2", "latest", link='</v2/team/model/tags/list?last=latest>; rel="next"', key="tags"),
        page("V1", key="tags"),
    )

    assert [str(tag) for tag in list_tags(remote)] == ["v2", "latest", "V1"]
    assert home.targets[0] == "/v2/team/model/tags/list?n=1000"


def test_what_names_nothing_is_left_out(home, remote):
    absurd = ("../../etc/passwd", "UPPER", "a//b", "", "a" * 256, "x" * 100_000, 7, None, ["a"], {"name": "a"}, "a\n")
    home.pages(page(*absurd, "team/model", "team/model"))

    assert names(remote) == ["team/model"]


def test_a_list_may_be_null(home, remote):
    home.pages((200, {}, b'{"name": "team/model", "tags": null}'))

    assert list_tags(remote) == []


def test_a_page_that_fails_for_a_moment_is_asked_for_again(home, remote):
    home.pages((503, {}, b""), page("a"))

    assert names(remote) == ["a"]


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (503, ServerBusy)])
def test_a_registry_without_a_list_says_so(home, remote, status, error):
    home.answer = lambda number: (status, {}, b"")

    with pytest.raises(error):
        names(remote)
    assert len(home.targets) <= 3


@pytest.mark.parametrize(
    "link",
    [
        "<http://127.0.0.1:1/v2/_catalog?last=a>; rel=next",
        "<//other.example/v2/_catalog?last=a>; rel=next",
        "<https://127.0.0.1/v2/_catalog>; rel=next",
        "</v2/token?last=a>; rel=next",
        "</v2/team/model/tags/list>; rel=next",
        "</v2/_catalog/../../admin>; rel=next",
        "<file:///etc/passwd>; rel=next",
        "<http://user:secret@{host}/v2/_catalog>; rel=next",
        "<http://[broken/v2/_catalog>; rel=next",
    ],
)
def test_a_link_leads_to_the_same_list_or_nowhere(home, remote, link):
    home.pages(page("a", link=link.replace("{host}", home.url.removeprefix("http://"))))

    with pytest.raises(AnswerInvalid, match="continues at"):
        names(remote)
    assert len(home.targets) == 1


def numbered(number: int, name: str = "") -> Answered:
    return page(name or f"m{number}", link=f"</v2/_catalog?last={number}>; rel=next")


@pytest.mark.parametrize(
    ("answer", "how", "requests"),
    [
        (lambda number: page(f"m{number}", link="</v2/_catalog?n=1000>; rel=next"), "goes in circles", 1),
        (lambda number: page(f"m{number}", link=f"</v2/_catalog?p={number % 3}>; rel=next"), "goes in circles", 4),
        (numbered, "does not end", 20),
        (lambda number: numbered(number, "same"), "without telling anything new", 2),
        (lambda number: numbered(number) if number else page(*map(str, range(200))), "has more than 100 entries", 1),
    ],
)
def test_a_list_that_would_not_end_is_given_up(home, remote, monkeypatch, answer, how, requests):
    monkeypatch.setattr(listing, "MAX_PAGES", 20)
    monkeypatch.setattr(listing, "MAX_ENTRIES", 100)
    home.answer = answer

    with pytest.raises(AnswerInvalid, match=how):
        names(remote)
    assert len(home.targets) == requests


def test_all_pages_together_have_a_bound(home, remote, monkeypatch):
    monkeypatch.setattr(listing, "MAX_BYTES", 2_000)
    home.answer = lambda number: page(f"m{number}" + "x" * 900, link=f"</v2/_catalog?last={number}>; rel=next")

    with pytest.raises(AnswerInvalid, match="more than"):
        names(remote)
    assert len(home.targets) == 3


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"repositories": {}}', b'{"repositories": "a"}', b"[" * 100_000, b"\xff\xfe"]
)
def test_what_is_no_list_is_refused(home, remote, body):
    home.pages((200, {}, body))

    with pytest.raises(AnswerInvalid, match="cannot be read"):
        names(remote)


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ("<a>", None),
        ("<a>; rel=previous", None),
        ('<a>; title="rel=next"', None),
        ("<a,b>; rel=next", "a,b"),
        ('< a >;rel="next"', "a"),
        ("<a; rel=next", None),
        ("<>; rel=next", ""),
        ("<a>; x=y," * 60_000, None),
        ("<" * 60_000, None),
    ],
)
def test_the_next_one_of_a_link_header(header, target):
    assert next_target(header) == target
