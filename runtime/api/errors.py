"""Every refusal of /api as a status and a message, in one table.

Source: the Ollama API, "Status codes and literal messages". Where the reference names a status, it is that one,
even if another would fit better: clients compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime import errors
from runtime.parsing.errors import CallInvalid
from runtime.templates.errors import RendererBusy, TemplateFailed
from storage import errors as storage


class Refused(errors.RuntimeFailure):
    """The request is refused with a status and a message of the dialect."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


STATUSES: Mapping[type[Exception], int] = {
    errors.OptionInvalid: 500,
    errors.GGUFInvalid: 500,
    errors.ModelUnusable: 400,
    errors.ModelTooLarge: 500,
    errors.LoadFailed: 500,
    errors.RunnerGone: 500,
    errors.QueueFull: 503,
    errors.SupervisorGone: 503,
    errors.PromptTooLong: 400,
    errors.RequestCancelled: 499,
    errors.InputInvalid: 400,
    errors.FormatInvalid: 400,
    errors.ModelfileInvalid: 400,
    CallInvalid: 500,
    TemplateFailed: 500,
    RendererBusy: 503,
    storage.StorageFull: 507,
    storage.StorageUnavailable: 503,
    storage.NameUnknown: 404,
    storage.ManifestUnknown: 404,
    storage.BlobUnknown: 404,
    storage.NameInvalid: 400,
}


def status_of(error: Exception) -> int:
    """The HTTP status of `error`, by its type or the nearest base that stands in the table."""
    if isinstance(error, Refused):
        return error.status
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def not_supported(what: str) -> Refused:
    """For what the dialect knows and this server does not do yet: better an error than an answer without it."""
    return Refused(501, f"{what} is not supported by this server yet")


def retry_after_s(error: Exception) -> int | None:
    """When to ask again, in whole seconds: for what is refused because there is too much to do at the moment."""
    if not isinstance(error, errors.QueueFull | errors.SupervisorGone | RendererBusy | storage.StorageUnavailable):
        return None
    wanted = error.detail.get("retry_after_s")
    return max(wanted, 1) if isinstance(wanted, int) else 1
