"""Files that stand where a command wants to write, and that it must leave alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

VICTIM: Final = b"precious"


def _another_users(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path.write_bytes(VICTIM)
    os.chown(path, 12345, -1)


def _open_to(mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(VICTIM)
        path.chmod(mode)

    return make


def _hard_link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(VICTIM)
    path.hardlink_to(victim)


UNFIT: Final = [
    pytest.param(_another_users, "another user", id="another user's"),
    pytest.param(_open_to(0o660), "written to by other users", id="its group may write"),
    pytest.param(_open_to(0o646), "written to by other users", id="everybody may write"),
    pytest.param(_hard_link, "another name", id="a hard link"),
    pytest.param(os.mkfifo, "no regular file", id="a pipe"),
]
