"""The token endpoint without its HTTP: credentials and scopes in, a bearer token out.

Spec: "Token Authentication Specification"; the Ollama registry protocol, "Token request".
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from auth.errors import AccessDenied, CredentialsInvalid, RequestRefused, SignatureInvalid, TokenInvalid, Unauthorized
from auth.grants import KeyGrants
from auth.identity import Anonymous, Identity
from auth.keys import PublicKey
from auth.nonces import Nonces
from auth.policy import IsPrivate, Mode, Situation, grantable
from auth.scopes import Scope
from auth.signatures import is_signature_header, verify_token_request
from auth.tokens import AccessTokens, BearerToken, TokenSigner
from storage.db import Database

_MAX_AUTHORIZATION: Final = 4096  # characters


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What came. target: path and query as received. origins: `scheme://host[:port]` the client may have addressed.

    is_own_host: whether that host is us. One who runs another server could otherwise hand us what was signed for it.
    """

    authorization: str | None
    service: str
    scopes: tuple[Scope, ...]
    target: str
    origins: tuple[str, ...]
    is_own_host: bool


class TokenRequests:
    """Answers token requests: who asks, what of it they may have, a token for that."""

    def __init__(
        self,
        database: Database,
        signer: TokenSigner,
        tokens: AccessTokens,
        grants: KeyGrants,
        is_private: IsPrivate,
        *,
        mode: Mode,
        service: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """service: our name as an audience of tokens."""
        self._nonces = Nonces(database)
        self._signer, self._tokens, self._grants = signer, tokens, grants
        self._is_private, self._situation, self._now = is_private, Situation(mode), now
        self.service = service

    def answer(self, request: TokenRequest) -> BearerToken:
        """A token for what was asked, as far as the caller is entitled to it; possibly for nothing.

        Raises RequestRefused, Unauthorized for wrong credentials, AccessDenied for a key that nobody let in.
        """
        if request.service not in ("", self.service):
            raise RequestRefused(f"no tokens for another service; ours is {self.service}", service=request.service)
        try:
            identity = self._identify(request)
        except CredentialsInvalid as error:
            raise Unauthorized(str(error)) from error
        granted = grantable(request.scopes, identity, self._situation, self._is_private)
        return self._signer.issue(identity.principal, self.service, granted)

    def with_secret(self, secret: str, service: str, scopes: tuple[Scope, ...]) -> BearerToken:
        """The same for an access token that came in a form. Raises RequestRefused, Unauthorized."""
        return self.answer(TokenRequest(f"Bearer {secret}", service, scopes, "", (), is_own_host=True))

    def _identify(self, request: TokenRequest) -> Identity:
        authorization = request.authorization
        if authorization is None:
            return Anonymous()
        if len(authorization) > _MAX_AUTHORIZATION:
            raise TokenInvalid("credentials too long")
        if is_signature_header(authorization):
            return self._key_holder(authorization, request)
        return self._tokens.verify(access_secret(authorization))

    def _key_holder(self, authorization: str, request: TokenRequest) -> Identity:
        signed = verify_token_request(authorization, request.target, request.origins, self._now())
        holder = self._grants.holder(signed.key.fingerprint)
        if not holder.is_known:
            return self._stranger(signed.key, request.scopes)
        if not request.is_own_host:
            host = request.origins[0].partition("://")[2]
            raise SignatureInvalid(f"signed for {host}, which is no name of this server: set TONNAGE_EXTERNAL_URL")
        self._nonces.use(signed.key.fingerprint, signed.nonce, self._now())
        return holder

    def _stranger(self, key: PublicKey, scopes: tuple[Scope, ...]) -> Identity:
        """A key that nobody let in gets what everybody may have; told why, if it asks for more.

        Its nonces are not kept: a replay yields what needs no key at all.
        """
        nobody = Anonymous()
        if grantable(scopes, nobody, self._situation, self._is_private) == scopes:
            return nobody
        wanted = next((scope for scope in scopes if scope.type == "repository"), None)
        # Not 401: the ollama client shows its own words in place of an answer that says "unauthorized".
        raise AccessDenied(unknown_key(key.fingerprint, wanted), fingerprint=key.fingerprint)


def unknown_key(fingerprint: str, wanted: Scope | None = None) -> str:
    """What to tell the holder of a key that was granted nothing, or not this: how an administrator lets it in."""
    namespace = wanted.name.partition("/")[0] if wanted is not None else "NAMESPACE"
    role = "pull" if wanted is not None and wanted.actions == ("pull",) else "push"
    command = f"tonnage key add {namespace} {fingerprint} --role {role}"
    return f"key {fingerprint} is not known here; an administrator lets it in with: {command}"


def access_secret(authorization: str) -> str:
    """The access token within a Bearer or Basic Authorization value; Basic has it as password, the user is ignored.

    Raises TokenInvalid.
    """
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                pair = base64.b64decode(value.strip(), validate=True).decode("utf-8")
            except (binascii.Error, ValueError):
                raise TokenInvalid("malformed Basic credentials") from None
            return pair.partition(":")[2]
    raise TokenInvalid("expected Bearer or Basic credentials")
