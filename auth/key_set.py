"""The keys that sign bearer tokens and addresses: files in the keys folder, the highest number signs, all verify.

Every node has keys of its own, and believes what the others sign: see `auth.published_keys`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from auth.errors import KeyInvalid, KeyStoreInvalid
from auth.keys import PrivateKey, PublicKey, stage_file
from storage.durable import sync_folder

_NAME: Final = re.compile(r"token-(?P<number>[1-9][0-9]{0,5})\.pem")
_MAX_KEYS: Final = 16


class KeySet:
    """Signing keys by id. A new file with a higher number takes over when the server starts again."""

    def __init__(self, folder: Path, *, elsewhere: Callable[[str], PublicKey | None] = lambda wanted: None) -> None:
        """Load the keys of `folder`, and make the first one if there is none. Raises KeyStoreInvalid.

        elsewhere: finds the keys that other nodes sign with, by id.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            keys = _load(folder) or _create(folder)
        except OSError as error:
            raise KeyStoreInvalid(f"cannot use the keys in {folder}: {error.strerror}") from error
        self._own = {key_id(key.public): _Own(key.public, path) for path, key in keys}
        self._elsewhere = elsewhere
        self.signing_key = keys[-1][1]
        self.signing_id = key_id(self.signing_key.public)

    @property
    def own(self) -> tuple[PublicKey, ...]:
        """The public halves of this node's keys."""
        return tuple(own.key for own in self._own.values())

    def public(self, wanted: str) -> PublicKey | None:
        """The verifying key with id `wanted`; None if no node has it. Raises what `elsewhere` raises.

        One of ours is believed for as long as its file is here: to withdraw it needs no new start.
        """
        own = self._own.get(wanted)
        if own is None:
            return self._elsewhere(wanted)
        return own.key if own.is_here() else None


class _Own:
    """A key of this node, with the file that had it: another key may come to have the same name."""

    def __init__(self, key: PublicKey, path: Path) -> None:
        self.key = key
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def is_here(self) -> bool:
        try:
            found = self._path.stat()
            seen = found.st_ino, found.st_mtime_ns, found.st_ctime_ns
            if seen != self._seen:  # read again only then: this is asked of every token
                if PrivateKey.load(self._path).public.blob != self.key.blob:
                    return False
                self._seen = seen
        except (OSError, KeyInvalid):
            return False
        return True


def rotate(folder: Path, *, keep: int = 2) -> Path:
    """Make a key that signs from the next start on, and drop all but the `keep` newest; the new file.

    What older keys signed stays good while they are here: bearer tokens for minutes, signed addresses for a day.
    Raises KeyStoreInvalid.
    """
    KeySet(folder)  # there is a first one, and none is unreadable
    numbered = _numbered(folder)
    path = folder / f"token-{numbered[-1][0] + 1}.pem"
    if _NAME.fullmatch(path.name) is None:
        raise KeyStoreInvalid(f"no number is left for another key in {folder}")
    staged = stage_file(path, PrivateKey.generate().pem, mode=0o600)
    try:
        path.hardlink_to(staged)
    except FileExistsError:
        raise KeyStoreInvalid("another process has just made a key") from None
    finally:
        staged.unlink()
    for _, old in _numbered(folder)[:-keep]:
        old.unlink()
    sync_folder(folder)
    return path


def key_id(key: PublicKey) -> str:
    """Derived from the key, so that two processes never give one id to two keys."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.blob).digest()[:12]).decode()


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    return sorted(
        (int(match["number"]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) is not None
    )


def _load(folder: Path) -> list[tuple[Path, PrivateKey]]:
    numbered = _numbered(folder)
    if len(numbered) > _MAX_KEYS:
        raise KeyStoreInvalid(f"more than {_MAX_KEYS} token keys in {folder}; remove the oldest")
    return [(path, _load_one(path)) for _, path in numbered]


def _load_one(path: Path) -> PrivateKey:
    if path.stat().st_mode & 0o077:
        raise KeyStoreInvalid(f"{path} is open to others; run: chmod 600 {path}")
    try:
        return PrivateKey.load(path)
    except KeyInvalid as error:
        raise KeyStoreInvalid(f"{error}; remove it, and new tokens will be signed by a new key") from error


def _create(folder: Path) -> list[tuple[Path, PrivateKey]]:
    """The first key. Of two processes that start at once the first link wins, and both use that file."""
    first = folder / "token-1.pem"
    staged = stage_file(first, PrivateKey.generate().pem, mode=0o600)
    try:
        first.hardlink_to(staged)
    except FileExistsError:
        pass
    finally:
        staged.unlink()
    sync_folder(folder)
    return _load(folder)
