"""Everybody who might ask, with what they may do as the access rules say it, not as the server computes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from auth.key_set import key_id
from auth.keys import PrivateKey, sign_token_request, token_request_url
from tests.registry.access.world import NO_NAMESPACE, NO_REPOSITORY, OTHER, PRIVATE, PUBLIC, Wire, World

Headers = dict[str, str]
ROLES = {
    "pull": frozenset({"pull"}),
    "push": frozenset({"pull", "push"}),
    "delete": frozenset({"delete"}),
    "infer": frozenset({"infer"}),
    "admin": frozenset({"pull", "push", "delete"}),
}
EVERYWHERE = ("commons", "vault", "other", "ghost")
WIDEST = " ".join(
    [f"repository:{name}:pull,push,delete" for name in (PUBLIC, PRIVATE, OTHER, NO_REPOSITORY, NO_NAMESPACE)]
    + ["registry:catalog:*"]
)


@dataclass(frozen=True)
class Caller:
    """grants: namespace → actions. speaks_by: how the caller proves who they are, which limits where that counts."""

    name: str
    headers: Callable[[str, str], Headers]
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_known: bool = False
    is_admin: bool = False
    has_token: bool = False  # one from the token endpoint, for nobody in particular perhaps: enough for GET /v2/
    may_infer: bool = True  # a token from the token endpoint never does: it was issued for the registry

    def may(self, action: str, repository: str) -> bool:
        return action in self.grants.get(repository.partition("/")[0], frozenset())

    def may_anywhere(self, *actions: str) -> bool:
        return any(set(actions) & each for each in self.grants.values())


def everybody(world: World) -> list[Caller]:
    wire = Wire(world.host)
    try:
        return [Caller("anonymous", _constant({})), *_keys(world, wire), *_tokens(world, wire), *nobodies(world)]
    finally:
        wire.close()


def nobodies(world: World) -> list[Caller]:
    """Credentials that prove nothing, each wrong in one respect only."""
    named = {
        "revoked token": f"Bearer {world.secrets['revoked']}",
        "expired token": f"Bearer {world.secrets['expired']}",
        "revoked token by Basic": basic(world.secrets["revoked"]),
        "secret of another token": f"Bearer {world.secrets['admin'][:17]}{world.secrets['pull'][17:]}",
        "secret cut short": f"Bearer {world.secrets['admin'][:-1]}",
        "garbage": "Bearer garbage",
        "three empty parts": "Bearer ..",
        "no credentials": "Bearer ",
        "another scheme": "Negotiate YII=",
        "Basic that is not base64": "Basic !!!",
        "Basic with a wrong password": basic("password"),
        "Basic without a colon": "Basic " + base64.b64encode(b"admin").decode(),
        "replayable proof of a key": _foreign_proof(world.keys["admin"]),
        **{f"bearer {name}": f"Bearer {text}" for name, text in forgeries(world).items()},
    }
    callers = [Caller(name, _constant({"Authorization": value})) for name, value in named.items()]
    return [*callers, Caller("X-Api-Key that is none", _constant({"X-Api-Key": "tng_" + "a" * 56}))]


def _keys(world: World, wire: Wire) -> list[Caller]:
    callers = []
    for role in ("pull", "push", "admin"):
        grants = dict.fromkeys(("commons", "vault"), ROLES[role])
        callers.append(_key_caller(world, wire, role, f"{role} key", grants))
    callers.append(_key_caller(world, wire, "other", "key of another namespace", {"other": ROLES["admin"]}))
    return [*callers, _key_caller(world, wire, "unknown", "unknown key", {})]


def _key_caller(world: World, wire: Wire, key: str, name: str, grants: Mapping[str, frozenset[str]]) -> Caller:
    """Signs each request below /api, and brings a bearer token elsewhere."""
    private = world.keys[key]
    bearer = signed_bearer(wire, private, WIDEST if grants else "")

    def headers(method: str, target: str) -> Headers:
        if target.startswith("/api/"):
            return {"Authorization": api_signature(private, method, target)}
        return {"Authorization": f"Bearer {bearer}"}

    return Caller(name, headers, grants, is_known=bool(grants), has_token=True)


def _tokens(world: World, wire: Wire) -> list[Caller]:
    callers = []
    for scope in ("pull", "push", "delete", "infer", "admin"):
        actions = frozenset({"pull", "push", "delete", "infer"}) if scope == "admin" else ROLES[scope]
        callers += _token_callers(world, wire, scope, dict.fromkeys(EVERYWHERE, actions))
    whole = frozenset({"pull", "push", "delete", "infer"})
    callers += _token_callers(world, wire, "bound", {"vault": whole})
    callers += _token_callers(world, wire, "other", {"other": whole})
    return callers


def _token_callers(world: World, wire: Wire, name: str, grants: Mapping[str, frozenset[str]]) -> list[Caller]:
    """The same token, brought in every way there is."""
    secret, is_admin = world.secrets[name], name == "admin"
    answer = wire.send("GET", f"/v2/token?scope={WIDEST.replace(' ', '&scope=')}", {"Authorization": basic(secret)})
    ways: dict[str, Headers] = {"": {"Authorization": f"Bearer {secret}"}}
    if name in ("pull", "admin"):
        ways |= {" by Basic": {"Authorization": basic(secret)}, " as X-Api-Key": {"X-Api-Key": secret}}
    callers = [
        Caller(f"{name} token{way}", _constant(headers), grants, is_known=True, is_admin=is_admin)
        for way, headers in ways.items()
    ]
    bearer = _constant({"Authorization": f"Bearer {answer.json['token']}"})
    within = {space: actions - {"infer"} for space, actions in grants.items()}
    return [*callers, Caller(f"{name} token's bearer", bearer, within, is_known=True, has_token=True, may_infer=False)]


def signed_bearer(wire: Wire, key: PrivateKey, scope: str) -> str:
    url = token_request_url(
        f"http://{wire.host}/v2/token", "tonnage", scope, int(time.time()), secrets.token_urlsafe(16)
    )
    target = url.removeprefix(f"http://{wire.host}")
    answer = wire.send("GET", target, {"Authorization": sign_token_request(key, url)})
    assert answer.status == 200, answer.body
    return str(answer.json["token"])


def signable(target: str) -> str:
    """A target below /api as a client with a key sends it."""
    return f"{target}{'&' if '?' in target else '?'}ts={int(time.time())}"


def api_signature(key: PrivateKey, method: str, target: str) -> str:
    signature = key.sign(f"{method},{target}".encode())
    return f"{key.public.blob_base64}:{base64.b64encode(signature).decode()}"


def basic(secret: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _constant(headers: Headers) -> Callable[[str, str], Headers]:
    return lambda _method, _target: headers


def _foreign_proof(key: PrivateKey) -> str:
    """What another client of the Ollama registry protocol sends to whatever host it is pointed at."""
    url = f"https://ollama.com?ts={int(time.time())}"
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    signature = base64.b64encode(key.sign(f"GET,{url},{empty}".encode())).decode()
    return f"Bearer {base64.b64encode(url.encode()).decode()}:{key.public.blob_base64}:{signature}"


def signing_key(world: World) -> PrivateKey:
    return PrivateKey.load(world.data / "keys" / "token-1.pem")


def own_claims(world: World) -> dict[str, Any]:
    """A bearer token of the administrator for everything, as this server would issue it."""
    now, admin = int(time.time()), world.secrets["admin"].split("_")[1]
    access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in _widest()]
    times = {"iat": now, "nbf": now, "exp": now + 900}
    return {"iss": "tonnage", "sub": f"token:{admin}", "aud": "tonnage", **times, "jti": "x" * 16, "access": access}


def _widest() -> list[tuple[str, ...]]:
    return [tuple(scope.split(":")) for scope in WIDEST.split(" ")]


def own_token(world: World, **changes: Any) -> str:
    """Signed by the server's own key; `changes` to its claims, None takes one away."""
    key = signing_key(world)
    claims = {name: value for name, value in (own_claims(world) | changes).items() if value is not None}
    return jwt.encode(claims, key.signing_key, "EdDSA", headers={"kid": key_id(key.public)})


def forgeries(world: World) -> dict[str, str]:
    key, foreign, now = signing_key(world), PrivateKey.generate(), int(time.time())
    kid, claims = key_id(key.public), own_claims(world)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": _url64(foreign.public.raw)}

    def foreign_token(**header: Any) -> str:
        return jwt.encode(claims, foreign.signing_key, "EdDSA", headers=header)

    head, body, signature = own_token(world).split(".")
    wider = _url64(json.dumps(claims | {"sub": "token:aaaaaaaaaaaa"}).encode())
    return {
        "with alg none": jwt.encode(claims, None, "none", headers={"kid": kid}),
        "with alg none and our signature": f"{_part({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{body}.{signature}",
        "with alg None": f"{_part({'alg': 'None', 'typ': 'JWT', 'kid': kid})}.{body}.",
        "HS256 by the raw public key": _hmac_token(kid, claims, key.public.raw),
        "HS256 by the public key's line": _hmac_token(kid, claims, key.public.line.encode()),
        "HS256 by the public key's blob": _hmac_token(kid, claims, key.public.blob),
        "HS256 by nothing": _hmac_token(kid, claims, b""),
        "with a foreign kid": foreign_token(kid=key_id(foreign.public)),
        "with our kid, another's signature": foreign_token(kid=kid),
        "without kid": foreign_token(),
        "with a path as kid": foreign_token(kid="../keys/token-1.pem"),
        "with its own jwk": foreign_token(kid=kid, jwk=jwk),
        "with its own jwk alone": foreign_token(jwk=jwk),
        "with jku": foreign_token(kid=kid, jku=f"http://{world.host}/keys.json"),
        "altered": f"{head}.{wider}.{signature}",
        "without signature": f"{head}.{body}.",
        "for another audience": own_token(world, aud="registry.example.com"),
        "for a list without us": own_token(world, aud=["a", "b"]),
        "without audience": own_token(world, aud=None),
        "of another issuer": own_token(world, iss="somebody"),
        "expired": own_token(world, iat=now - 1000, nbf=now - 1000, exp=now - 100),
        "without end": own_token(world, exp=None),
        "not valid yet": own_token(world, nbf=now + 200),
        "of nobody we know": own_token(world, sub="token:aaaaaaaaaaaa"),
        "of a revoked token": own_token(world, sub=f"token:{world.secrets['revoked'].split('_')[1]}"),
        "of another kind": own_token(world, sub="user:root"),
        "with claims that are none": own_token(world, access="everything"),
    }


def _hmac_token(kid: str, claims: Mapping[str, Any], secret: bytes) -> str:
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{_part(claims)}"
    return f"{signed}.{_url64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _part(value: Mapping[str, Any]) -> str:
    return _url64(json.dumps(value).encode())


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
