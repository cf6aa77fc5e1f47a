"""Which bucket, apart from boto3: settings are judged where it need not be installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*")
_ENDPOINT: Final = re.compile(r"https?://[^/\s\"@?#]+")


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """Where the objects are. `prefix` is empty or ends with a slash; `endpoint` is empty for AWS itself.

    public_endpoint: where clients reach it, if that is elsewhere. gives_addresses: whether downloads may be sent there.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    public_endpoint: str = ""
    gives_addresses: bool = False

    @property
    def has_bucket(self) -> bool:
        return _BUCKET.fullmatch(self.bucket) is not None

    @property
    def has_prefix(self) -> bool:
        return len(self.prefix) <= 512 and _PREFIX.fullmatch(self.prefix) is not None

    @property
    def has_endpoint(self) -> bool:
        return not self.endpoint or _ENDPOINT.fullmatch(self.endpoint) is not None

    @property
    def has_public_endpoint(self) -> bool:
        return not self.public_endpoint or _ENDPOINT.fullmatch(self.public_endpoint) is not None
