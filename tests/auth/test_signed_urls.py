"""Addresses that let one read one blob for a while."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from auth.errors import SignatureInvalid
from auth.key_set import KeySet
from auth.keys import PrivateKey
from auth.signed_urls import LIFE_S, UrlSigner
from tests.auth.conftest import Clock

PATH = f"/v2/acme/model/blobs/sha256:{'0' * 64}"
OTHERS = [
    f"/v2/acme/model/blobs/sha256:{'1' * 64}",
    f"/v2/acme/other/blobs/sha256:{'0' * 64}",
    f"/v2/acme/model/manifests/sha256:{'0' * 64}",
    PATH + "/",
]


@pytest.fixture
def signer(tmp_path: Path, clock: Clock) -> UrlSigner:
    return UrlSigner(KeySet(tmp_path), now=clock)


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_address_says_for_whom_it_was_made(signer: UrlSigner, method: str) -> None:
    url = signer.sign(PATH, "key:SHA256:abc+/")

    assert urlsplit(url).path == PATH
    assert signer.verify(method, PATH, query(url)).principal == "key:SHA256:abc+/"


@pytest.mark.parametrize("path", OTHERS)
def test_it_is_good_for_nothing_else(signer: UrlSigner, path: str) -> None:
    with pytest.raises(SignatureInvalid):
        signer.verify("GET", path, query(signer.sign(PATH, "token:a")))


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "get", ""])
def test_it_is_for_reading_only(signer: UrlSigner, method: str) -> None:
    with pytest.raises(SignatureInvalid):
        signer.verify(method, PATH, query(signer.sign(PATH, "token:a")))


@pytest.mark.parametrize("field", ["by", "expires", "key", "signature"])
@pytest.mark.parametrize("value", ["", "0", "token:b", "9" * 11, "x" * 200, "\xe9", None])
def test_an_altered_one_is_refused(signer: UrlSigner, field: str, value: str | None) -> None:
    fields = query(signer.sign(PATH, "token:a"))
    if value is None:
        del fields[field]
    else:
        fields[field] = value

    with pytest.raises(SignatureInvalid):
        signer.verify("GET", PATH, fields)


def test_it_expires_after_a_day_or_a_little_more(signer: UrlSigner, clock: Clock) -> None:
    fields = query(signer.sign(PATH, "token:a"))
    clock.now += LIFE_S
    assert signer.verify("GET", PATH, fields)

    clock.now += 601

    with pytest.raises(SignatureInvalid, match="expired"):
        signer.verify("GET", PATH, fields)


def test_every_process_agrees_and_a_new_key_ends_no_address(tmp_path: Path, clock: Clock, signer: UrlSigner) -> None:
    fields = query(signer.sign(PATH, "token:a"))
    PrivateKey.generate().save(tmp_path / "token-2.pem")

    later = UrlSigner(KeySet(tmp_path), now=clock)

    assert later.verify("GET", PATH, fields)
    assert query(later.sign(PATH, "token:a"))["key"] != fields["key"]


def test_another_server_does_not_know_it(tmp_path: Path, clock: Clock, signer: UrlSigner) -> None:
    with pytest.raises(SignatureInvalid):
        UrlSigner(KeySet(tmp_path / "other"), now=clock).verify("GET", PATH, query(signer.sign(PATH, "token:a")))
