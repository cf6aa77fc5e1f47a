"""When to ask again: on refusals that say nothing but that there is too much to do."""

from __future__ import annotations

import pytest

from runtime.api.replies import refusal
from runtime.errors import LoadFailed, QueueFull, SupervisorGone
from runtime.failures import failure
from runtime.templates.errors import RendererBusy
from storage.errors import StorageFull, StorageUnavailable


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (QueueFull("busy", retry_after_s=7), "7"),
        (QueueFull("busy"), "1"),
        (QueueFull("busy", retry_after_s=0), "1"),
        (SupervisorGone("gone", retry_after_s=6), "6"),
        (RendererBusy("busy"), "1"),
        (failure({"kind": "QueueFull", "message": "busy"}), "1"),
        (StorageUnavailable("locked"), "1"),
        (LoadFailed("no"), None),
        (StorageFull("never fits"), None),
    ],
)
def test_who_is_refused_for_now_is_told_when_to_return(error: Exception, header: str | None) -> None:
    assert refusal(error).headers.get("Retry-After") == header
