"""A small S3 server over real HTTP, its objects in memory, that refuses, breaks off and lies when it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from storage.errors import KeyUnknown
from tests.storage.objects.counted import CountingBucket

BUCKET = "weights"


class Fault(Enum):
    """What becomes of a request. After LOST and BROKEN the work is done all the same."""

    NONE = auto()
    SLOW_DOWN = auto()
    ERROR_IN_200 = auto()
    LOST = auto()  # no answer comes


class HostileS3:
    """`faults`: what the next requests of a kind meet, in order; then `always`, then nothing."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.bucket = endpoint, CountingBucket()
        self.faults: dict[str, list[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()

    def forget(self) -> None:
        """As it was at first."""
        self.bucket = CountingBucket()
        for each in (self.faults, self.always, self.asked):
            each.clear()

    def next_fault(self, kind: str) -> Fault:
        self.asked[kind] += 1
        left = self.faults.get(kind)
        return left.pop(0) if left else self.always.get(kind, Fault.NONE)


@contextmanager
def hostile_s3() -> Iterator[HostileS3]:
    """The server while it runs."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Handler.state = HostileS3(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Handler.state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ClassVar[HostileS3]

    def do_PUT(self) -> None:
        query, name, data = self._asked()
        if "uploadId" in query:
            upload, number = query["uploadId"], int(query["partNumber"])
            self._do("part", lambda: ({"ETag": self.state.bucket.put_part(name, upload, number, data, len(data))}, b""))
        else:
            self._do("put", lambda: (self.state.bucket.put(name, data) or {"ETag": "put"}, b""))

    def do_POST(self) -> None:
        query, name, data = self._asked()
        if "uploads" in query:
            self._do(
                "begin", lambda: ({}, _xml("InitiateMultipartUploadResult", UploadId=self.state.bucket.begin(name)))
            )
        else:
            self._do("complete", lambda: ({}, self._complete(name, query["uploadId"], data)))

    def do_GET(self) -> None:
        query, name, _ = self._asked()
        if "list-type" in query:
            self._do("list", lambda: ({}, _xml("ListBucketResult", IsTruncated="false")))
        elif "uploads" in query:
            self._do("list", lambda: ({}, _xml("ListMultipartUploadsResult", IsTruncated="false")))
        else:
            start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            size = int(end) + 1 - int(start) if end else None
            self._do("get", lambda: ({}, _all(self.state.bucket, name, int(start), size)))

    def do_HEAD(self) -> None:
        _, name, _ = self._asked()
        self._do("head", lambda: ({"Content-Length": str(self.state.bucket.stat(name).size)}, b""))

    def do_DELETE(self) -> None:
        _, name, _ = self._asked()
        self._do("delete", lambda: (self.state.bucket.delete(name) or {}, b""))

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[dict[str, str], str, bytes]:
        """Query, name within the bucket, body."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        name = unquote(parts.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        return query, name, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _do(self, kind: str, work: Callable[[], tuple[dict[str, str], bytes]]) -> None:
        fault = self.state.next_fault(kind)
        if fault is Fault.SLOW_DOWN:
            self._answer(503, {}, _xml("Error", Code="SlowDown"))
        elif fault is Fault.ERROR_IN_200:
            self._answer(200, {}, _xml("Error", Code="InternalError"))
        else:
            try:
                headers, body = work()
            except KeyUnknown:
                self._answer(
                    404, {}, _xml("Error", Code="NoSuchUpload" if kind in ("part", "complete") else "NoSuchKey")
                )
                return
            if fault is Fault.LOST:
                self.close_connection = True
            else:
                self._answer(200, headers, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **headers}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _complete(self, name: str, upload: str, data: bytes) -> bytes:
        parts = [(int(_text(part, "PartNumber")), _text(part, "ETag")) for part in ElementTree.fromstring(data)]
        self.state.bucket.complete(name, upload, parts)
        return _xml("CompleteMultipartUploadResult", ETag="whole")


def _all(bucket: CountingBucket, name: str, start: int, size: int | None) -> bytes:
    body = bucket.get(name, start=start, size=size)
    return body.read(body.size)


def _text(part: ElementTree.Element, tag: str) -> str:
    return next((child.text or "" for child in part if child.tag.endswith(tag)), "")


def _xml(root: str, **fields: str) -> bytes:
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    return f'<?xml version="1.0"?><{root}>{inside}</{root}>'.encode()
