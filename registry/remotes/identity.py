"""Who this server is to others: an ed25519 key of its own, made when it is first needed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from auth.keys import PrivateKey, replace_file, stage_file
from storage.durable import sync_folder

FILE_NAME: Final = "id_ed25519"


def server_identity(keys_path: Path) -> PrivateKey:
    """The key in `keys_path`; processes that need it first at the same time all get the one that came first.

    Raises KeyInvalid, OSError.
    """
    path = keys_path / FILE_NAME
    if not path.exists():
        _make(path)
    return PrivateKey.load(path)


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = PrivateKey.generate()
    staged = stage_file(path, key.pem, mode=0o600)
    try:
        with suppress(FileExistsError):
            path.hardlink_to(staged)
            replace_file(path.with_name(f"{path.name}.pub"), f"{key.public.line}\n".encode(), mode=0o644)
    finally:
        staged.unlink()
    sync_folder(path.parent)
