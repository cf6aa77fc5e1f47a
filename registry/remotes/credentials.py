"""Who we are to another server: the answer to its challenge, and tokens that stay with their origin.

Spec: "Token Authentication"; the Ollama registry protocol, "Token request".
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

from auth.keys import PrivateKey, sign_token_request, token_request_url
from registry.remotes.answers import failure, server_words
from registry.remotes.challenge import Challenge, merged_scope, parse_challenge
from registry.remotes.errors import AnswerInvalid, RealmRefused, RemoteError, RequestRefused, Unauthorized
from registry.remotes.http import Body, Origin, Outbound, Reply

MAX_TOKEN_ANSWER: Final = 256 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")  # it goes into a header: no spaces, no line ends
_DEFAULT_LIFE_S: Final = 60.0  # the specification's, when the answer has no expires_in
_MARGIN_S: Final = 10.0
_MAX_CACHED: Final = 1000
CATALOG_SCOPE: Final = "registry:catalog:*"

# Registries whose token server has another name, by agreement of their owners.
KNOWN_REALMS: Final[Mapping[str, str]] = {"registry-1.docker.io": "auth.docker.io", "hf.co": "huggingface.co"}


@dataclass(frozen=True, slots=True)
class _Cached:
    authorization: str
    expires_at: float
    challenge: Challenge
    unproven: RemoteError | None = None  # why it is anybody's token, if we have a key


class Authenticator:
    """Sends requests with the credentials their origin asks for, and asks again at most once a request.

    key: the ed25519 identity that signs token requests. token: an access token, or `user:password`; it wins over the
    key. With neither, tokens are asked for anonymously.
    """

    def __init__(
        self,
        http: Outbound,
        *,
        key: PrivateKey | None = None,
        token: str | None = None,
        clock: Callable[[], float] = time.time,
        trusts: Callable[[str, int], bool] = lambda host, port: False,
    ) -> None:
        """trusts: whether a token server (host, port) apart from the registry may see what we prove us by."""
        self._http = http
        self._trusts = trusts
        self._key = key
        self._basic = _basic(token) if token else None
        self._clock = clock
        self._tokens: dict[tuple[Origin, str], _Cached] = {}
        self._lock = threading.Lock()

    def over(self, http: Outbound) -> Self:
        """The same, with the same tokens, through another client."""
        twin = copy(self)
        twin._http = http
        return twin

    def branch(self) -> tuple[Self, Outbound]:
        """The same through connections of its own, and the client that has them."""
        http = self._http.branch()
        return self.over(http), http

    def request(
        self,
        method: str,
        url: str,
        *,
        home: Origin,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int | None = None,
        read_s: float | None = None,
        follow: bool = True,
    ) -> Reply:
        """A request for `scope` of the registry at `home`, to which alone credentials go.

        Raises Unauthorized when a 401 stays one, RealmRefused, Forbidden, and what `Outbound.request` raises.
        """
        is_home = Origin.of(url) == home
        held = self._held(home, scope) if is_home else None
        for may_answer in (True, False):
            sent = {**(headers or {}), **({"Authorization": held} if held else {})}
            reply = self._http.request(
                method, url, headers=sent, body=body, length=length, read_s=read_s, follow=follow
            )
            if reply.status != 401:
                return reply
            with reply:
                challenge = parse_challenge(reply.headers.getlist("WWW-Authenticate"))
                is_elsewhere = Origin.of(reply.url) != home
                if challenge is None or not may_answer or not is_home or is_elsewhere:
                    refused = self._refused(reply, home)
                    refused.is_elsewhere = is_elsewhere
                    raise refused if is_elsewhere else self._unproven(home, scope) or refused
                held = self._answer(home, scope, challenge)
        raise AssertionError("the second round returns or raises")

    def _unproven(self, home: Origin, scope: str) -> RemoteError | None:
        """Why our own key did not count, where we went on without it: it says more than the refusal it led to."""
        with self._lock:
            cached = self._tokens.get((home, scope))
        return cached.unproven if cached is not None else None

    def _held(self, home: Origin, scope: str) -> str | None:
        """The Authorization value at hand; a token about to expire is replaced before it can fail in mid-upload."""
        with self._lock:
            cached = self._tokens.get((home, scope))
        if cached is None or cached.expires_at > self._clock():
            return cached.authorization if cached else None
        return self._answer(home, scope, cached.challenge)

    def _answer(self, home: Origin, scope: str, challenge: Challenge) -> str:
        """The Authorization value that the challenge asks for, remembered for `home` and `scope`."""
        if challenge.scheme == "basic":
            if self._basic is None:
                raise Unauthorized(f"{home} wants a user name and a password; put USER:PASSWORD in a token file")
            cached = _Cached(self._basic, float("inf"), challenge)
        else:
            cached = self._fetch(home, scope, challenge)
        with self._lock:
            if len(self._tokens) >= _MAX_CACHED:
                self._tokens.clear()
            self._tokens[(home, scope)] = cached
        return cached.authorization

    def _fetch(self, home: Origin, scope: str, challenge: Challenge) -> _Cached:
        check_realm(home, challenge.realm, self._trusts)
        scope, unproven = merged_scope(scope, challenge.scope), None
        try:
            raw = self._ask(home, *self._token_request(challenge, scope))
        except (Unauthorized, RequestRefused) as first:
            # Registries that know no such keys take ours for a wrong password; what is public needs none.
            if self._key is None or self._basic is not None or not is_reading(scope):
                raise
            try:
                raw, unproven = self._ask(home, _plain_request(challenge, scope), {}), first
            except RemoteError:
                raise first from None
        token, life_s = parse_token(raw, home)
        until = self._clock() + max(life_s - _MARGIN_S, _MARGIN_S)
        return _Cached(f"Bearer {token}", until, challenge, unproven)

    def _ask(self, home: Origin, url: str, headers: dict[str, str]) -> bytes:
        """The answer of the token server. Raises Unauthorized, RemoteError."""
        # Never redirected: a signature covers this very URL, and a password is for this host only.
        with self._http.request("GET", url, headers=headers, follow=False) as reply:
            if reply.status in {401, 403}:
                raise self._refused(reply, home)
            if reply.status != 200:
                raise failure(reply, "a token")
            return reply.read(MAX_TOKEN_ANSWER)

    def _token_request(self, challenge: Challenge, scope: str) -> tuple[str, dict[str, str]]:
        if self._key is not None and self._basic is None:
            nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
            url = token_request_url(challenge.realm, challenge.service, scope, int(self._clock()), nonce)
            return url, {"Authorization": sign_token_request(self._key, url)}
        return _plain_request(challenge, scope), {"Authorization": self._basic} if self._basic else {}

    def _refused(self, reply: Reply, home: Origin) -> Unauthorized:
        words = server_words(reply)
        line = f"{home} refuses access" + (f": {words}" if words else "")
        if self._basic is not None:
            return Unauthorized(f"{line}; check the token, its scopes and its namespaces")
        if self._key is None:
            return Unauthorized(f"{line}; give a key with --key or a token with --token-file")
        if self._key.public.fingerprint in line:
            return Unauthorized(line)  # a server that names the key says itself how it is admitted
        return Unauthorized(
            f"{line}; this key is {self._key.public.fingerprint}, its owner's server admits it by "
            "`tonnage key add NAMESPACE PUBKEY_FILE`"
        )


def is_reading(scope: str) -> bool:
    """Whether the scopes cover no more than pulling and listing."""
    return all(each == CATALOG_SCOPE or each.rpartition(":")[2] == "pull" for each in scope.split())


def _plain_request(challenge: Challenge, scope: str) -> str:
    """The URL that asks for a token without proving anything."""
    asked = [("scope", each) for each in scope.split()]
    if challenge.service:
        asked.insert(0, ("service", challenge.service))
    joint = "&" if urlsplit(challenge.realm).query else "?"
    return f"{challenge.realm}{joint}{urlencode(asked)}" if asked else challenge.realm


def check_realm(home: Origin, realm: str, trusts: Callable[[str, int], bool] = lambda host, port: False) -> None:
    """Raises RealmRefused unless the token server is the registry itself, same host and port, and not less secure.

    trusts: other token servers (host, port) that the operator named; those are spoken to by https only.
    """
    origin = Origin.of(realm) if realm else None
    if origin is None:
        raise AnswerInvalid(f"{home} asks for a token but does not say where to get one")
    is_same = (origin.host, origin.port) == (home.host, home.port)
    is_known = KNOWN_REALMS.get(home.host) == origin.host and origin.scheme == "https" and origin.port == 443
    is_trusted = origin.scheme == "https" and trusts(origin.host, origin.port)
    if not (is_same or is_known or is_trusted):
        raise RealmRefused(
            f"{home} sends us to {origin} for a token; credentials go to the registry's own address only"
        )
    if home.scheme == "https" and origin.scheme != "https":
        raise RealmRefused(f"{home} sends us to {origin} for a token, without TLS; its external URL is set wrongly")


def parse_token(raw: bytes, home: Origin) -> tuple[str, float]:
    """The token and its life in seconds. Raises AnswerInvalid."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    token = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise AnswerInvalid(f"{home} answered the token request without a usable token")
    life = body.get("expires_in")
    if isinstance(life, int | float) and not isinstance(life, bool) and 0 < life < 10**9:
        return token, float(life)
    return token, _DEFAULT_LIFE_S


def _basic(token: str) -> str:
    """Registries take an access token as the password of any user."""
    pair = token if ":" in token else f"token:{token}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
