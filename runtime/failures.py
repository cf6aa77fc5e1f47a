"""How a refusal crosses from one process to another: by the name of its class, out of a closed list."""

from __future__ import annotations

from typing import Any

from runtime import errors

_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.ModelTooLarge,
        errors.LoadFailed,
        errors.RunnerGone,
        errors.QueueFull,
        errors.SupervisorGone,
        errors.PromptTooLong,
        errors.RequestCancelled,
        errors.InputInvalid,
        errors.FormatInvalid,
    )
}


def failure(event: dict[str, Any]) -> errors.RuntimeFailure:
    """The error that an `error` event tells of; one we do not know is a RuntimeFailure."""
    kind = _KINDS.get(str(event.get("kind")), errors.RuntimeFailure)
    return kind(str(event.get("message", "")))


def error_event(error: errors.RuntimeFailure) -> dict[str, Any]:
    """The event that tells of `error`."""
    return {"event": "error", "kind": type(error).__name__, "message": str(error)}
