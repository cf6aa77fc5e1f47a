"""The files of a loaded model, kept open and locked: a cache of files sees by that which ones are in use."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from runtime.runner.settings import RunnerSettings
from storage.errors import StorageUnavailable
from storage.local_copies.locks import SOON_S, share, within


def keep_files(settings: RunnerSettings) -> None:
    """Open and lock them for as long as this process lives.

    Whoever had the model loaded holds them until then, unless that request was given up: then somebody may have one
    alone for a moment. One that is not there is for llama.cpp to tell.
    """
    for path in filter(None, (settings.path, *settings.more_paths, *settings.adapters, settings.projector)):
        with suppress(OSError, StorageUnavailable):  # a store's own files may be where there are no locks
            within(SOON_S, partial(share, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
