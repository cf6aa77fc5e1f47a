"""The id by which a request is found in the log."""

from __future__ import annotations

import re
from itertools import count
from os import getpid
from secrets import token_hex
from typing import Final

_GIVEN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_START: Final = token_hex(4)
_numbers: Final = count()


def request_id(given: str) -> str:
    """The caller's own if it can be one, else one that no other request of this server has; not a secret."""
    if _GIVEN.fullmatch(given):
        return given
    return f"{_START}-{getpid():x}-{next(_numbers):x}"  # the process: all web workers are forks of one
