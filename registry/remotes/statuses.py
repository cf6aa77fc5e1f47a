"""The lines that tell how a pull or a push goes. Source: the Ollama API, "POST /api/pull", "POST /api/push"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from registry.remotes.errors import RemoteError
from registry.remotes.jobs import Job
from runtime.errors import RequestCancelled, RuntimeFailure
from runtime.layers import MAX_LAYERS
from storage.errors import ManifestInvalid
from storage.manifest import Descriptor, Manifest

JSON = dict[str, Any]
LINE_S: Final = 0.06
log: Final = logging.getLogger("tonnage.remotes")


class TransferFailed(RuntimeFailure):
    """The transfer ended without success; the message is for the client."""


def failed(line: str, what: object) -> TransferFailed:
    """The end of a transfer of `what` that failed, noted for the operator too."""
    log.info("transfer failed: %s: %s", what, line)
    return TransferFailed(line)


def status(text: str) -> JSON:
    return {"status": text}


def blob_line(verb: str, blob: Descriptor, completed: int) -> JSON:
    """How far one blob is. Counts of zero are left out."""
    line: JSON = {"status": f"{verb} {blob.digest.encoded[:12]}", "digest": str(blob.digest)}
    counts = {"total": blob.size, "completed": completed}
    return line | {key: count for key, count in counts.items() if count}


def in_order(manifest: Manifest) -> list[Descriptor]:
    """Each blob to transfer once: layers as they stand, the config last. Raises ManifestInvalid for too many."""
    if len(manifest.layers) > MAX_LAYERS:
        raise ManifestInvalid(f"a model has at most {MAX_LAYERS} layers")
    config = [manifest.config] if manifest.config is not None else []
    needed = (blob for blob in (*manifest.layers, *config) if not blob.may_be_absent)
    return list({str(blob.digest): blob for blob in needed}.values())


def watched(job: Job[Any], line: Callable[[], JSON], is_gone: Callable[[], bool]) -> Iterator[JSON]:
    """A line now and then until the job has ended. Raises RequestCancelled when the client is gone."""
    while not job.wait(LINE_S):
        if is_gone():
            raise RequestCancelled("request canceled")
        yield line()


def told(error: RemoteError) -> str:
    """The error as the dialect words it: status and body of an answer, else our own line."""
    return f"{error.status}: {error.words or 'no further word'}" if error.status is not None else str(error)
