"""A blob's file as one of ours without a byte copied: a hard link, where that is safe.

One file then has two names and goes when the last of them does, so neither side can take it from the other. It also
means that whoever can write to the file changes the blob. Ollama does not write to a file that is complete; nobody else
may be able to. So only a regular file is shared that belongs to our own user and that no other may write to: a file of
another user, the `ollama` service's for one, is copied, though we be root. The link is made of the very file that was
opened, what is hashed are the bytes behind the link, and a file that is written to meanwhile is refused. Whatever
happens to it later, a scrub finds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from registry.ollama_store.errors import LinkRefused
from registry.ollama_store.folder import BlobFile
from storage import layout
from storage.digest import Digest
from storage.errors import DigestInvalid
from storage.produce import produce_blob
from storage.reference import RepositoryName
from storage.store import Store


def share(
    store: Store, name: RepositoryName, digest: Digest, file: BlobFile, *, principal: str, hashed: Callable[[int], None]
) -> None:
    """Make the file the blob `digest` of the repository. Raises LinkRefused; DigestInvalid if it has other bytes."""

    def check(found: Digest) -> None:
        if found != digest or not file.is_unchanged:
            raise DigestInvalid("the file has other bytes than its name says", digest=str(digest))

    produce_blob(
        store, name, lambda path, _: link(file, path), principal=principal, hashed=hashed, check=check
    )  # without a marker: nobody finds the session, and appends to a file that is not ours alone


def link(file: BlobFile, target: Path) -> None:
    """Give the open file a second name. Raises LinkRefused; then there is nothing at `target`."""
    found = os.fstat(file.handle)
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid != os.geteuid() or others_write or not found.st_mode & stat.S_IWUSR:
        raise LinkRefused("the file is not ours alone to write to")
    try:
        os.link(file.name, target, src_dir_fd=file.folder, follow_symlinks=False)
    except OSError as error:
        raise LinkRefused("the filesystem refuses", is_elsewhere=error.errno == errno.EXDEV) from error
    if not os.path.samestat(target.lstat(), found):  # the name was given to another file meanwhile
        target.unlink()
        raise LinkRefused("the file was replaced")


def keeps_files(store: Store) -> bool:
    """Whether the store's bytes lie in files, which may be links."""
    return store.driver.staged_path(store.driver.stage(layout.new_blob_key())) is not None
