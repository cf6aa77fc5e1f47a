"""What goes wrong with another server: one clear line each, saying where possible what to do about it."""

from __future__ import annotations

from storage.errors import StorageError


class RemoteError(Exception):
    """The remote side cannot give what was asked. `str()` is one printable line for a person."""

    is_transient = False  # would the same request, a little later, have a fair chance?
    patience = 6  # attempts without progress before giving up, for a transient error
    status: int | None = None  # of the answer that says so, if one does
    words = ""  # the server's own, one printable line
    is_elsewhere = False  # said by a server that the registry had sent us to


class UrlInvalid(RemoteError):
    """Not an http or https URL that we may call."""


class Unreachable(RemoteError):
    """No connection: name, route, port or TLS handshake."""

    is_transient = True
    patience = 3  # a wrong address is the likelier cause, and nobody waits long for that; once it has answered, 6


class TlsRefused(RemoteError):
    """The certificate, or what answers at that port, is not what https promises."""


class ConnectionCut(RemoteError):
    """The connection ended in the middle of a request or a body."""

    is_transient = True


class Stalled(ConnectionCut):
    """No byte came for the whole read time-out."""


class AddressLapsed(ConnectionCut):
    """The address that the registry gave us for a blob is good no more. It will give another one."""

    patience = 4


class ServerBusy(RemoteError):
    """429 or a 5xx that time may cure. `retry_after_s`: what the server asked for, if it did."""

    is_transient = True

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RedirectRefused(RemoteError):
    """The server points to where we will not go."""


class RealmRefused(RemoteError):
    """The challenge names a token server that is not the registry's own: it gets no credentials."""


class Unauthorized(RemoteError):
    """401, also after a token was fetched."""


class Forbidden(RemoteError):
    """403: known, and not allowed."""


class NotFound(RemoteError):
    """404: no such repository, manifest, blob or upload session."""


class RangeRefused(RemoteError):
    """416. `offset`: where the server's upload session ends, when it says so."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class RequestRefused(RemoteError):
    """Any other 4xx, with the server's own words. `code`: the OCI error code, when there is one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class AnswerInvalid(RemoteError):
    """The answer breaks the protocol."""


class AddressExpired(RemoteError):
    """The store that a registry sent us to does not take a part; the registry may give another address."""

    is_transient = True
    patience = 3


class DigestMismatch(RemoteError):
    """The bytes are not those that the digest names."""


class PartDamaged(DigestMismatch):
    """A part of an upload arrives as other bytes, however often it is sent."""


class LocalFileUnfit(RemoteError):
    """The file here cannot be pushed, or cannot be written."""


class UpstreamFailed(StorageError):
    """The upstream of a mirror did not give what is not here yet."""


class UpstreamBusy(UpstreamFailed):
    """As many fetches as may be are under way, or the upstream asked for time."""
