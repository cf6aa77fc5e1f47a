"""What one create may make the server read, keep and write."""

from __future__ import annotations

import struct

from tests.made_models import SUCCESS, create, refused, upload


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header_of(pairs: int) -> bytes:
    """A GGUF file of no tensors that says so many things of itself."""
    said = [text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")]
    said += [text(b"k%d" % number) + struct.pack("<IB", 0, 1) for number in range(pairs - 1)]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, pairs) + b"".join(said) + b"\0" * 64


def test_headers_of_all_files_together_are_no_more_than_one_model_can_have(client):
    digest = upload(client, header_of(60_000))

    lines = create(client, model="x", files={f"m{number}.gguf": digest for number in range(1000)})

    assert lines == [
        *[{"status": "parsing GGUF"}] * 3,
        {"error": "the headers of the files are more than one model can have"},
    ]


def test_a_request_adds_so_many_licences_and_no_more(client, tiny):
    said = [f"licence {number}" for number in range(101)]

    assert create(client, model="x", **{"from": "tiny"}, license=said[:100])[-1] == SUCCESS
    answer = refused(client, model="y", **{"from": "tiny"}, license=said)
    assert answer == (400, "a request adds at most 100 licenses")
