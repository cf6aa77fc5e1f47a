"""The names of writers: 32 characters that tell which process of which machine it is.

So a session that a killed process left is free at once where its death can be seen. Nothing is safe because of it: a
writer that only looks dead, from another container for instance, still has the staged bytes open, and who takes over
leaves them to it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

_HERE: Final = 8  # hex digits of each part; the last one is random, and twice as long
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES: Final = Path("/proc/self/ns/pid")


def new_token() -> str:
    return f"{_place()}{os.getpid():0{_HERE}x}{secrets.token_hex(_HERE)}"


def is_dead(token: str) -> bool:
    """Whether that writer is a process of ours that is no more. Not knowing is no death."""
    place, process = token[:_HERE], token[_HERE : 2 * _HERE]
    if place != _place() or len(token) != 4 * _HERE:
        return False
    try:
        os.kill(int(process, 16), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return False


@lru_cache(maxsize=1)
def _place() -> str:
    """What all processes have in common that see each other's ids, and no others; by chance where that is not told."""
    with suppress(OSError):
        seen = f"{_BOOT.read_text()}{os.stat(_PROCESSES).st_ino}"  # noqa: PTH116  # the link itself names it
        return sha256(seen.encode()).hexdigest()[:_HERE]
    return secrets.token_hex(_HERE // 2)
