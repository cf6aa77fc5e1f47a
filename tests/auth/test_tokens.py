from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from auth.errors import GrantInvalid, GrantUnknown, KeyStoreInvalid, TokenInvalid
from auth.identity import TokenScope
from auth.key_set import KeySet, rotate
from auth.keys import PrivateKey
from auth.scopes import parse_scopes
from auth.tokens import LEEWAY_S, LIFE_S, AccessTokens, TokenSigner
from storage.db import Database
from storage.errors import NameInvalid

ROOT = Path(__file__).parent.parent.parent
SCOPES = parse_scopes(["repository:alice/tiny:pull,push"])


def test_a_secret_works_and_is_stored_nowhere(tokens, database_url):
    secret = tokens.create("ci", scopes=["push", "pull"], namespaces=["bob", "alice"])

    holder = tokens.verify(secret)

    assert (holder.name, holder.principal) == ("ci", f"token:{holder.token_id}")
    assert (holder.scopes, holder.namespaces) == ({TokenScope.PULL, TokenScope.PUSH}, {"alice", "bob"})
    assert len(secret) == len("tng_") + 12 + 1 + 43
    stored = b"".join(each.read_bytes() for each in Path(database_url[10:]).parent.glob("auth.db*"))
    assert secret[-43:].encode() not in stored


def test_no_other_secret_works(tokens):
    secret = tokens.create("ci", scopes=["push"])
    last = "A" if secret[-1] != "A" else "B"

    for wrong in (
        "",
        "tng_",
        secret[:-1] + last,
        secret + "A",
        secret + "\n",
        f" {secret}",
        secret.replace("tng_", "tng_a", 1),
    ):
        with pytest.raises(TokenInvalid):
            tokens.verify(wrong)


def test_a_token_ends_when_it_is_revoked(tokens):
    secret = tokens.create("ci", scopes=["push"])

    tokens.revoke("ci")

    with pytest.raises(TokenInvalid, match="revoked"):
        tokens.verify(secret)
    with pytest.raises(GrantUnknown):
        tokens.revoke("ci")
    assert tokens.list()[0].revoked_at is not None


def test_a_token_ends_when_it_expires(tokens, clock):
    secret = tokens.create("ci", scopes=["push"], expires_at=clock.now + 10)
    assert tokens.verify(secret)

    clock.now += 10

    with pytest.raises(TokenInvalid, match="expired"):
        tokens.verify(secret)


def test_a_name_is_free_again_when_its_token_is_over(tokens):
    first = tokens.create("ci", scopes=["push"])
    with pytest.raises(GrantInvalid, match="exists"):
        tokens.create("ci", scopes=["push"])
    tokens.revoke("ci")

    second = tokens.create("ci", scopes=["pull"])

    assert tokens.verify(second).scopes == {TokenScope.PULL}
    with pytest.raises(TokenInvalid):
        tokens.verify(first)
    assert [each.scopes for each in tokens.list()] == [("pull",)]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("", {"scopes": ["pull"]}),
        ("a b", {"scopes": ["pull"]}),
        ("a" * 65, {"scopes": ["pull"]}),
        ("a\n", {"scopes": ["pull"]}),
        ("ci", {"scopes": []}),
        ("ci", {"scopes": ["fly"]}),
        ("ci", {"scopes": ["admin"], "namespaces": ["alice"]}),
        ("ci", {"scopes": ["pull"], "expires_at": 0}),
        ("ci", {"scopes": ["pull"], "namespaces": [f"n{i}" for i in range(201)]}),
    ],
)
def test_a_senseless_token_is_not_created(tokens, name, arguments):
    with pytest.raises(GrantInvalid):
        tokens.create(name, **arguments)
    assert not tokens.list()


def test_a_token_is_for_namespaces_not_for_repositories(tokens):
    with pytest.raises(NameInvalid):
        tokens.create("ci", scopes=["pull"], namespaces=["alice/tiny"])


def test_the_first_admin_is_made_once(tokens, database_url, database):
    secret = tokens.ensure_first_admin()
    again = AccessTokens(Database(database_url)).ensure_first_admin()

    assert again is None
    assert tokens.verify(secret).is_admin
    tokens.revoke("admin")
    assert tokens.ensure_first_admin() is None


def test_a_bearer_token_says_who_and_what(signer):
    token = signer.issue("key:SHA256:x", "registry.example.com", SCOPES)

    claims = signer.verify(token.text, "registry.example.com")

    assert (claims.subject, claims.scopes) == ("key:SHA256:x", SCOPES)
    body = jwt.decode(token.text, options={"verify_signature": False})
    assert body["access"] == [{"type": "repository", "name": "alice/tiny", "actions": ["pull", "push"]}]
    assert body["exp"] - body["iat"] == token.expires_in_s == LIFE_S
    assert set(body) == {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"}


@pytest.mark.parametrize(
    ("passed_s", "is_accepted"),
    [(0, True), (LIFE_S + LEEWAY_S - 1, True), (LIFE_S + LEEWAY_S, False), (-LEEWAY_S, True), (-LEEWAY_S - 1, False)],
)
def test_a_bearer_token_has_its_time(signer, clock, passed_s, is_accepted):
    token = signer.issue("anonymous", "s", ())
    clock.now += passed_s

    if is_accepted:
        assert signer.verify(token.text, "s")
    else:
        with pytest.raises(TokenInvalid, match=r"expired|not valid yet"):
            signer.verify(token.text, "s")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(signer: TokenSigner, folder: Path, attack: str) -> str:
    """A token with the claims of a good one, signed in a way that must not count."""
    good = signer.issue("token:admin", "s", SCOPES).text
    header, claims, signature = (
        jwt.get_unverified_header(good),
        jwt.decode(good, options={"verify_signature": False}),
        good.split(".")[2],
    )
    own = PrivateKey.load(folder / "token-1.pem")
    with_kid = {"kid": header["kid"]}
    other = PrivateKey.generate().signing_key
    match attack:
        case "alg none":
            return jwt.encode(claims, None, algorithm="none", headers=with_kid)
        case "alg none, signature kept":
            return ".".join((b64(json.dumps({**header, "alg": "none"}).encode()), good.split(".")[1], signature))
        case "HS256 with the public key":
            text = f"{b64(json.dumps({**header, 'alg': 'HS256'}).encode())}.{good.split('.')[1]}"
            key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            return f"{text}.{b64(key.sign(text.encode(), own.public.raw))}"
        case "RS256":
            return jwt.encode(claims, generate_private_key(65537, 2048), algorithm="RS256", headers=with_kid)
        case "another key under our id":
            return jwt.encode(claims, other, algorithm="EdDSA", headers=with_kid)
        case "another key under its own id":
            return jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": "AAAAAAAAAAAAAAAA"})
        case "key in the header":
            public = {"kty": "OKP", "crv": "Ed25519", "x": b64(PrivateKey.generate().public.raw)}
            return jwt.encode(claims, other, algorithm="EdDSA", headers={"jwk": public})
        case "id is a path":
            return jwt.encode(claims, own.signing_key, algorithm="EdDSA", headers={"kid": "../token-1.pem"})
        case "claims changed":
            changed = b64(json.dumps({**claims, "sub": "token:other"}).encode())
            return f"{good.split('.')[0]}.{changed}.{signature}"
        case "another issuer":
            return jwt.encode({**claims, "iss": "x"}, own.signing_key, algorithm="EdDSA", headers=with_kid)
        case "no end":
            return jwt.encode({**claims, "exp": None}, own.signing_key, algorithm="EdDSA", headers=with_kid)
        case "critical extension":
            return jwt.encode(claims, own.signing_key, algorithm="EdDSA", headers={**with_kid, "crit": ["x"], "x": 1})
    raise AssertionError(attack)


@pytest.mark.parametrize(
    "attack",
    [
        "alg none", "alg none, signature kept", "HS256 with the public key", "RS256", "another key under our id",
        "another key under its own id", "key in the header", "id is a path", "claims changed", "another issuer",
        "no end", "critical extension",
    ],
)  # fmt: skip
def test_a_forged_bearer_token_is_refused(signer, tmp_path, attack):
    with pytest.raises(TokenInvalid):
        signer.verify(forged(signer, tmp_path / "keys", attack), "s")


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "ollama", "é.é.é", "\0", "A" * 20_000, "e30.e30.e30"])
def test_junk_is_no_bearer_token(signer, text):
    with pytest.raises(TokenInvalid):
        signer.verify(text, "s")


def test_a_token_for_another_service_is_refused(signer):
    with pytest.raises(TokenInvalid):
        signer.verify(signer.issue("anonymous", "other", ()).text, "s")


def test_the_key_is_kept_for_its_owner_alone_and_used_again(tmp_path, clock):
    token = TokenSigner(tmp_path / "keys", now=clock).issue("anonymous", "s", ())

    assert TokenSigner(tmp_path / "keys", now=clock).verify(token.text, "s")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "keys").iterdir()} == {"token-1.pem": 0o600}


def test_a_newer_key_signs_and_the_older_still_verifies(tmp_path, clock):
    folder = tmp_path / "keys"
    old = TokenSigner(folder, now=clock).issue("anonymous", "s", ())
    PrivateKey.generate().save(folder / "token-10.pem")

    signer = TokenSigner(folder, now=clock)

    assert signer.verify(old.text, "s")
    assert jwt.get_unverified_header(signer.issue("anonymous", "s", ()).text) != jwt.get_unverified_header(old.text)


def test_keys_that_others_may_read_stop_the_start(tmp_path):
    KeySet(tmp_path)
    (tmp_path / "token-1.pem").chmod(0o640)

    with pytest.raises(KeyStoreInvalid, match="chmod 600"):
        KeySet(tmp_path)


def test_a_damaged_key_stops_the_start(tmp_path):
    (tmp_path / "token-1.pem").write_bytes(b"")
    (tmp_path / "token-1.pem").chmod(0o600)

    with pytest.raises(KeyStoreInvalid, match=r"token-1\.pem"):
        KeySet(tmp_path)


def test_processes_that_start_at_once_agree_on_one_key(tmp_path):
    program = (
        "import sys; from pathlib import Path; from auth.key_set import KeySet; "
        "print(KeySet(Path(sys.argv[1])).signing_id)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "keys")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        for _ in range(3)
    ]

    said = {each.communicate(timeout=60)[0] for each in started}

    assert len(said) == 1
    assert said != {b""}
    assert [each.name for each in (tmp_path / "keys").iterdir()] == ["token-1.pem"]


def test_a_rotated_key_signs_what_comes_next_and_the_one_before_stays_good(tmp_path, clock):
    before = TokenSigner(tmp_path, now=clock).issue("anonymous", "s", ())

    assert rotate(tmp_path).name == "token-2.pem"

    signer = TokenSigner(tmp_path, now=clock)
    assert signer.verify(before.text, "s")
    after = signer.issue("anonymous", "s", ())
    rotate(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("token-*.pem"))] == ["token-2.pem", "token-3.pem"]
    assert TokenSigner(tmp_path, now=clock).verify(after.text, "s")
    with pytest.raises(TokenInvalid):
        TokenSigner(tmp_path, now=clock).verify(before.text, "s")
