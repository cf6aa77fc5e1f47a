"""Digests and hashing that can be put down and taken up."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.digest import Digest, Hasher
from storage.errors import DigestInvalid

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"])
def test_a_registered_digest_is_read_and_written_unchanged(text):
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        "sha256:",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}",
        f"blake3:{HEX}",
        f"md5:{HEX[:32]}",
        "sha256:baddigeststring",
        f"sha256:sha256:{HEX}",
        f"sha256:{'٣' * 64}",
    ],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_of_bytes(algorithm):
    assert Digest.of(b"abc", algorithm).encoded == hashlib.new(algorithm, b"abc").hexdigest()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_a_hasher_saved_after_each_piece_agrees_with_one_pass(pieces):
    states = Hasher(("sha256", "sha512")).states()
    for piece in pieces:
        hasher = Hasher.resume(states)
        hasher.update(piece)
        states = hasher.states()

    digests = Hasher.resume(states).digests()

    whole = b"".join(pieces)
    assert digests == {each: Digest.of(whole, each) for each in ("sha256", "sha512")}


def test_hashing_goes_on_after_a_look_at_the_digest():
    hasher = Hasher(("sha256",))
    hasher.update(b"a")
    hasher.digests()
    hasher.update(b"b")

    assert hasher.digests()["sha256"] == Digest.of(b"ab")
