"""What auth refuses, raised where the fact is known and turned into HTTP in one table."""

from __future__ import annotations


class AuthError(Exception):
    """The caller may not, or is not who they say. `detail` is JSON-ready and safe to show to a client."""

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail


class Unauthorized(AuthError):
    """Other credentials would help. `challenge` is the value of the WWW-Authenticate header."""

    def __init__(self, message: str, *, challenge: str = "", **detail: object) -> None:
        super().__init__(message, **detail)
        self.challenge = challenge


class AccessDenied(AuthError):
    """Known, and still not allowed: asking again with the same credentials is useless."""


class TooManyRequests(AuthError):
    """The caller's address has failed too often."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CredentialsInvalid(AuthError):
    """What the request presented as proof of identity proves nothing."""


class KeyInvalid(CredentialsInvalid):
    """Not an ed25519 key that we can use."""


class SignatureInvalid(CredentialsInvalid):
    """The signature is not by that key over this request, or too old, or was used before."""


class TokenInvalid(CredentialsInvalid):
    """Not a token of ours, or one that expired or was revoked."""


class TokenExpired(TokenInvalid):
    """A token of ours whose time is up. `claims`: what it said, for the one thing it is still good for."""

    def __init__(self, message: str, claims: object) -> None:
        super().__init__(message)
        self.claims = claims


class RequestRefused(AuthError):
    """A token request that makes no sense whoever sends it: too long, or for another service."""


class GrantInvalid(AuthError):
    """A grant or token that cannot be created: a wrong role, scope or name."""


class GrantUnknown(AuthError):
    """No such namespace, key or token to change."""


class SigningKeyUnknown(AuthError):
    """No node has said that it signs with such a key."""


class KeyStoreInvalid(AuthError):
    """The token signing keys of this server cannot be read or are open to others; the message says what to do."""


class SettingInvalid(AuthError):
    """A setting of this server's access makes no sense; the message names it."""
