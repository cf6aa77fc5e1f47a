from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from auth.errors import KeyInvalid
from auth.keys import PrivateKey, PublicKey, sign_token_request, token_request_url
from tests.auth.vectors import (
    BLOB,
    FINGERPRINT,
    LINE,
    NONCE,
    ORIGIN,
    RAW_PUBLIC,
    SCOPE,
    SERVICE,
    TARGET,
    TOKEN_HEADER,
    TS,
)


@pytest.mark.parametrize("text", [LINE, f"{LINE}\n", f"{LINE} someone@somewhere with words", BLOB, f"  {BLOB} \n"])
def test_a_public_key_is_read_in_every_form_people_paste(text):
    key = PublicKey.parse(text)

    assert (key.raw, key.fingerprint, key.blob_base64, key.line) == (RAW_PUBLIC, FINGERPRINT, BLOB, LINE)


def blob_of(type_name: bytes, key: bytes) -> str:
    body = len(type_name).to_bytes(4, "big") + type_name + len(key).to_bytes(4, "big") + key
    return base64.b64encode(body).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 not/base64!",
        f"ssh-rsa {BLOB}",
        f"ssh-ed25519 {BLOB[:-4]}",
        f"ssh-ed25519 {BLOB}AAAA",
        f"ssh-ed25519 {BLOB[:8]} {BLOB[8:]}",
        f"{LINE}\n{LINE}",
        f"no-pty {LINE}",
        f"ssh-ed25519 {blob_of(b'ssh-ed25519', RAW_PUBLIC + b'x')}",
        f"ssh-ed25519 {blob_of(b'ssh-ed25518', RAW_PUBLIC)}",
        f"ssh-ed25519 {BLOB}" + " x" * 8192,
        "ssh-ed25519 \N{LATIN SMALL LETTER E WITH ACUTE}" + BLOB,
    ],
)
def test_what_is_no_ed25519_key_on_one_line_is_refused(text):
    with pytest.raises(KeyInvalid):
        PublicKey.parse(text)


def test_an_rsa_key_is_refused():
    rsa = generate_private_key(public_exponent=65537, key_size=2048).public_key()

    with pytest.raises(KeyInvalid, match="other types"):
        PublicKey.parse(rsa.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def test_base64_with_stray_bits_is_refused():
    key = base64.b64encode(b"\0\0").decode()

    assert key == "AAA="
    with pytest.raises(KeyInvalid):
        PublicKey.from_blob("AAB=")


def test_the_published_request_is_built_and_signed_to_the_byte(key):
    url = token_request_url(f"{ORIGIN}/v2/token", SERVICE, SCOPE, TS, NONCE)

    assert url == ORIGIN + TARGET
    assert sign_token_request(key, url) == TOKEN_HEADER
    assert key.public.fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("realm", "service", "scope", "query"),
    [
        ("https://h/t", "", "", "nonce=n&scope=&service=&ts=1"),
        ("https://h/t", "a b", "x:y:pull z:w:push", "nonce=n&scope=x%3Ay%3Apull&scope=z%3Aw%3Apush&service=a+b&ts=1"),
        ("https://h/t?zone=1&a=2", "s", "c", "a=2&nonce=n&scope=c&service=s&ts=1&zone=1"),
    ],
)
def test_the_query_is_form_encoded_with_sorted_keys(realm, service, scope, query):
    assert token_request_url(realm, service, scope, 1, "n") == f"https://h/t?{query}"


def test_a_key_survives_its_files(tmp_path: Path):
    path = tmp_path / "id_ed25519"
    key = PrivateKey.generate()

    key.save(path)

    assert PrivateKey.load(path).public == key.public == PublicKey.parse((tmp_path / "id_ed25519.pub").read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_saving_again_leaves_a_whole_file(tmp_path: Path):
    path = tmp_path / "id_ed25519"
    PrivateKey.generate().save(path)
    second = PrivateKey.generate()

    second.save(path)

    assert PrivateKey.load(path).public == second.public


def ssh_keygen(*arguments: str | Path) -> str:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here")
    return subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True, timeout=30).stdout


def test_ssh_keygen_reads_what_we_write(tmp_path: Path):
    key = PrivateKey.generate()
    key.save(tmp_path / "id_ed25519")

    shown = ssh_keygen("-l", "-f", tmp_path / "id_ed25519")

    assert key.public.fingerprint in shown


def test_we_read_what_ssh_keygen_writes(tmp_path: Path):
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f", tmp_path / "id")

    key = PrivateKey.load(tmp_path / "id")

    assert key.public == PublicKey.parse((tmp_path / "id.pub").read_text())


def test_an_encrypted_key_is_refused_with_a_reason(tmp_path: Path):
    ssh_keygen("-q", "-t", "ed25519", "-N", "a passphrase", "-f", tmp_path / "id")

    with pytest.raises(KeyInvalid, match="encrypted"):
        PrivateKey.load(tmp_path / "id")


def test_private_keys_of_other_kinds_are_refused_with_a_reason(tmp_path: Path):
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "rsa").write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (tmp_path / "junk").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "huge").write_bytes(b"x" * 2**17)

    for name, reason in (("rsa", "not an ed25519"), ("junk", "not an OpenSSH"), ("huge", "long")):
        with pytest.raises(KeyInvalid, match=reason):
            PrivateKey.load(tmp_path / name)


def test_a_private_key_does_not_show_itself(key):
    assert repr(key) == f"PrivateKey({FINGERPRINT})"


@pytest.mark.parametrize("length", [0, 63, 65])
def test_only_64_bytes_can_be_a_signature(key, length):
    assert not key.public.verify(b"\0" * length, b"message")
