"""The gate of every request: who sends it, and whether it may pass. The one place in auth that knows Flask.

Spec: "Token Authentication Specification"; Ollama API, "Signed requests".
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

from flask import current_app, g, request

from auth.errors import AccessDenied, AuthError, CredentialsInvalid, TokenExpired, TokenInvalid, Unauthorized
from auth.grants import KeyGrants
from auth.identity import ANONYMOUS, Anonymous, Identity
from auth.peers import (
    AccessConfig,
    client_address,
    external_scheme_and_host,
    is_addressed_to_us,
    is_loopback_peer,
    request_target,
    signed_origins,
)
from auth.policy import Decision, IsPrivate, Mode, Right, Situation, Wanted, decide, may
from auth.readable import among_models, in_catalog
from auth.refusals import explain, wanted_scopes
from auth.rights import RIGHTS, right_of
from auth.scopes import Scope, format_scopes
from auth.signatures import is_signature_header, verify_api_request
from auth.signed_urls import UrlSigner, is_signed
from auth.throttle import Throttle
from auth.token_requests import TokenRequest, TokenRequests, access_secret, unknown_key
from auth.tokens import MAX_BEARER, SECRET_PREFIX, AccessTokens, BearerToken, TokenSigner
from storage.db import Database
from storage.digest import Digest
from storage.listing import Readable
from storage.reference import RepositoryName

__all__ = ["RIGHTS", "AccessConfig", "Gate", "Right", "current_gate", "is_loopback_peer"]

EXTENSION: Final = "tonnage.gate"
BEARER: Final = "bearer_id"
LAPSED: Final = "lapsed_bearer"  # the claims of a token that is good for its own upload sessions alone
SIGNED: Final = "signed_url"  # set on flask.g where the address itself carries the right

_ACTION_OF_RIGHT: Final = {Right.PULL: "pull", Right.PUSH: "push", Right.DELETE: "delete"}
_CHALLENGED: Final = frozenset({*_ACTION_OF_RIGHT, Right.CATALOG, Right.PING})  # what a bearer token may cover
_MAX_AUTHORIZATION: Final = MAX_BEARER + len("Bearer ")


class Gate:
    """Decides on the request in hand. One for the app; it holds no state of any request."""

    def __init__(  # noqa: PLR0917  # one of each part of auth, in the order they build on each other
        self,
        config: AccessConfig,
        database: Database,
        signer: TokenSigner,
        tokens: AccessTokens,
        grants: KeyGrants,
        is_private: IsPrivate,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """is_private: whether a namespace is; True for one that does not exist."""
        self._config, self._mode, self._is_private = config, Mode(config.mode), is_private
        self._signer, self._tokens, self._grants, self._now = signer, tokens, grants, now
        self.service = config.service
        self._urls, self._throttle = UrlSigner(signer.keys, now=now), Throttle()
        self.token_requests = TokenRequests(
            database, signer, tokens, grants, is_private, mode=self._mode, service=self.service, now=now
        )

    def authorize(
        self, method: str, route: str, name: RepositoryName | None = None, *, also: Sequence[Wanted] = ()
    ) -> Identity:
        """Check what the table asks for `method` on `route`: a noun below /v2/<name>/, or a URL rule.

        Raises Unauthorized, AccessDenied; the latter too for a route that nobody put into the table.
        """
        right = right_of(method, route)
        if right is None:
            raise AccessDenied("no such route")
        action = _ACTION_OF_RIGHT.get(right)
        return self.check(right, *([(name, action)] if name is not None and action is not None else []), also=also)

    def authorize_session(
        self, method: str, route: str, name: RepositoryName, opened_with: Callable[[], str | None]
    ) -> Identity:
        """`authorize`, for a session: the bearer token that opened it may go on with it for a day after it expired.

        A push of hundreds of gigabytes outlives its token, and some clients never fetch another. Whoever it was issued
        to must still be allowed. opened_with: the token's id. Raises Unauthorized, AccessDenied.
        """
        try:
            return self.authorize(method, route, name)
        except Unauthorized:
            claims = g.get(LAPSED)
            if claims is None or not hmac.compare_digest(claims.token_id, opened_with() or ""):
                raise
            try:
                g.identity = self._holder(claims.subject).under(claims.scopes)
            except CredentialsInvalid:
                raise Unauthorized("the token expired, and who it was issued to is not known any more") from None
            return self.authorize(method, route, name)

    def bearer_id(self) -> str | None:
        """The id of the bearer token that came with the request; None for other credentials."""
        self.identify()
        bearer_id: str | None = g.get(BEARER)
        return bearer_id

    def check(self, right: Right, *wanted: Wanted, also: Sequence[Wanted] = ()) -> Identity:
        """Who asks, if they have `right` and may do all of `wanted`. Raises Unauthorized, AccessDenied.

        also: what the request could use but does not need; a challenge names it, so that one new token covers both.
        """
        identity = self.identify()
        decision = decide(right, wanted, identity, self._situation(), self._is_private)
        if decision is Decision.ALLOW:
            return identity
        raise self._refusal(decision, right, wanted, also, identity)

    def ask_for_more(self, right: Right, wanted: Wanted, also: Wanted) -> None:
        """Challenge a caller who may do both, but whose bearer token does not say so. Raises Unauthorized.

        Nobody else: for them no token would help.
        """
        identity = self.identify()
        decision = decide(right, (wanted, also), identity, self._situation(), self._is_private)
        if decision is Decision.WIDEN:
            raise self._refusal(decision, right, (wanted,), (also,), identity)

    def may(self, name: RepositoryName, action: str) -> bool:
        """Whether the caller may do one thing on one repository, as /v2 sees it; for lists of what is allowed."""
        return may((name, action), self.identify(), self._situation(), self._is_private)

    def may_list(self) -> Readable | None:
        """What the catalog names to the caller beside what is public; None is everything."""
        return in_catalog(self.identify(), self._situation())

    def may_see(self, name: RepositoryName) -> bool:
        """Whether a list of models may show `name` to the caller."""
        return self._decides(Right.READ_MODELS, (name, "pull"))

    def may_see_all(self) -> Readable | None:
        """All that `may_see` allows, beside what is public; None is everything."""
        return among_models(self.identify(), self._situation())

    def may_manage(self, name: RepositoryName, action: str) -> bool:
        """Whether the caller may do one thing on one repository while they manage models."""
        return self._decides(Right.MANAGE, (name, action))

    def blob_location(self, name: RepositoryName, digest: Digest) -> str:
        """Where the caller goes on reading this blob without credentials: signed, where it is private."""
        if SIGNED in g:
            return self._urls.again(request.path, g.get(SIGNED))  # no address gets a longer life than it was given
        path, identity = f"/v2/{name}/blobs/{digest}", self.identify()
        if self._mode is Mode.OPEN or not identity.is_known or not self._is_private(name.namespace):
            return path
        return self._urls.sign(path, identity.principal)

    def address(self) -> str:
        """Whose request it is, past the proxies we trust."""
        return client_address(request.environ, self._config.proxies)

    def answer_token_request(self, answer: Callable[[], BearerToken]) -> BearerToken:
        """`answer`; once an address has failed too often, its failures are answered with TooManyRequests.

        Whoever has good credentials is let in whatever others behind the same address do, and this machine's own
        programs never wait. Raises what `answer` raises besides.
        """
        try:
            return answer()
        except (Unauthorized, AccessDenied, CredentialsInvalid):
            if not is_loopback_peer(request.environ, self._config.proxies):
                self._throttle.check(self.address())
                self._throttle.count(self.address())
            raise

    def identify(self) -> Identity:
        """Who sends the request. Credentials that prove nothing make nobody of them: what is open to all stays open."""
        if "identity" not in g:
            g.identity = self._identify()
        identity = g.identity
        assert isinstance(identity, Identity)
        return identity

    def challenge(self, scopes: Sequence[Scope], error: str = "") -> str:
        """The WWW-Authenticate value: realm on the host the client addressed, no space after commas, all quoted."""
        scheme, host = self.external_scheme_and_host()
        fields = {"realm": f"{scheme}://{host}/v2/token", "service": self.service}
        if scopes:
            fields["scope"] = format_scopes(scopes)
        if error:
            fields["error"] = error
        return "Bearer " + ",".join(f'{key}="{value}"' for key, value in fields.items())

    def external_scheme_and_host(self) -> tuple[str, str]:
        """How the client addressed us, as far as we may believe it."""
        return external_scheme_and_host(request.environ, self._config)

    def token_request(self, service: str, scopes: tuple[Scope, ...]) -> TokenRequest:
        """The request in hand, as the token endpoint's logic takes it."""
        environ = request.environ
        return TokenRequest(
            authorization=request.headers.get("Authorization"),
            service=service,
            scopes=scopes,
            target=request_target(environ),
            origins=signed_origins(environ, self._config),
            is_own_host=is_addressed_to_us(environ, self._config),
        )

    def _decides(self, right: Right, *wanted: Wanted) -> bool:
        return decide(right, wanted, self.identify(), self._situation(), self._is_private) is Decision.ALLOW

    def _situation(self) -> Situation:
        is_loopback = self._config.is_loopback_listener and is_loopback_peer(request.environ, self._config.proxies)
        return Situation(self._mode, is_loopback)

    def _identify(self) -> Identity:
        try:
            return self._from_headers()
        except CredentialsInvalid as error:
            return Anonymous(rejected=str(error))

    def _from_headers(self) -> Identity:
        authorization = request.headers.get("Authorization")
        if authorization is None and is_signed(request.args) and _is_blob(request.path):
            return self._from_url()
        if authorization is None:
            secret = request.headers.get("X-Api-Key", "")  # where clients of Anthropic's dialect put it
            return self._tokens.verify(secret) if secret.startswith(SECRET_PREFIX) else Anonymous()
        if len(authorization) > _MAX_AUTHORIZATION:
            raise TokenInvalid("credentials too long")
        if is_signature_header(authorization):
            return self._signed(authorization)
        secret = access_secret(authorization)
        if secret.startswith(SECRET_PREFIX):
            return self._tokens.verify(secret)
        if authorization[:6].lower() != "bearer":
            raise TokenInvalid("the password must be an access token of this server")
        if ":" in secret:
            return Anonymous()  # a proof of key possession that is not bound to us: whoever got it could replay it
        return self._bearer(secret)

    def _signed(self, authorization: str) -> Identity:
        if not _is_native(request.path):
            raise TokenInvalid("a signature is accepted by the token endpoint and below /api/ only")
        key = verify_api_request(authorization, request.method, request_target(request.environ), self._now())
        holder = self._grants.holder(key.fingerprint)
        return holder if holder.is_known else Anonymous(rejected=unknown_key(key.fingerprint))

    def _bearer(self, text: str) -> Identity:
        """Whoever the token was issued to, with the rights they have now: what was revoked is gone at once."""
        try:
            claims = self._signer.verify(text, self.service)
        except TokenExpired as error:
            setattr(g, LAPSED, error.claims)
            raise
        setattr(g, BEARER, claims.token_id)
        return self._holder(claims.subject).under(claims.scopes)

    def _from_url(self) -> Identity:
        """Whoever the address was made for, allowed no more than to pull what it names."""
        signed = self._urls.verify(request.method, request.path, request.args)
        g.setdefault(SIGNED, signed)
        name = request.path.removeprefix("/v2/").rpartition("/blobs/")[0]
        return self._holder(signed.principal).under((Scope.of("repository", name, ("pull",)),))

    def _holder(self, principal: str) -> Identity:
        """Who that is now. Raises TokenInvalid."""
        kind, _, name = principal.partition(":")
        if kind == "key":
            return self._grants.holder(name)
        if kind == "token":
            return self._tokens.holder(name)
        if principal != ANONYMOUS:
            raise TokenInvalid("not a token of this server")
        return Anonymous()

    def _refusal(
        self,
        decision: Decision,
        right: Right,
        wanted: Sequence[Wanted],
        also: Sequence[Wanted],
        identity: Identity,
    ) -> AuthError:
        message = explain(right, wanted, identity)
        # 401 makes the ollama client print its own sign-in text in place of our message.
        if _is_native(request.path) or (decision is Decision.REFUSE and not _may_ask_again(right, identity)):
            return AccessDenied(message)
        scopes = wanted_scopes(right, wanted, also)
        too_narrow = "insufficient_scope" if identity.ceiling is not None else ""
        error = "invalid_token" if identity.rejected is not None else too_narrow
        return Unauthorized(
            message, challenge=self.challenge(scopes, error), scopes=[each.to_json() for each in scopes]
        )


def _is_blob(path: str) -> bool:
    return path.startswith("/v2/") and path.rpartition("/")[0].endswith("/blobs")


def _may_ask_again(right: Right, identity: Identity) -> bool:
    """Whether a caller who is known, and may not, is challenged all the same: clients widen their token on 401 alone.

    The ollama client does so with each new token, for ever in one of its parts, and hides what a 401 says.
    """
    agent = request.headers.get("User-Agent", "")
    is_tireless = agent.startswith("ollama-transfer/") or (agent.startswith("ollama/") and identity.ceiling is not None)
    return right in _CHALLENGED and not is_tireless


def current_gate() -> Gate:
    """The gate of the app that handles this request."""
    gate = current_app.extensions[EXTENSION]
    assert isinstance(gate, Gate)
    return gate


def _is_native(path: str) -> bool:
    return path.startswith("/api/")
