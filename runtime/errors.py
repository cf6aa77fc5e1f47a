"""What the runtime refuses, raised where the fact is known and turned into HTTP in one table."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The runtime cannot do what was asked. `str()` is safe to show to a client; `detail` is JSON-ready."""

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail


class OptionInvalid(RuntimeFailure):
    """An option has the wrong JSON type."""


class GGUFInvalid(RuntimeFailure):
    """The file is not a GGUF that llama.cpp may be shown."""


class ModelUnusable(RuntimeFailure):
    """The manifest names nothing that can run."""


class NotAModel(ModelUnusable):
    """The manifest describes something else than a model."""


class ModelTooLarge(RuntimeFailure):
    """The model cannot fit the memory budget, whatever else is unloaded."""


class LoadFailed(RuntimeFailure):
    """llama.cpp refused the model, or took longer than the load time-out."""


class RunnerGone(RuntimeFailure):
    """The runner ended while the request was in it."""


class QueueFull(RuntimeFailure):
    """Too many requests wait for a model to load."""


class SupervisorGone(RuntimeFailure):
    """The supervisor does not answer; it is restarted within seconds."""


class PromptTooLong(RuntimeFailure):
    """The prompt does not fit the context, and cutting it was not allowed."""


class RequestCancelled(RuntimeFailure):
    """The client went away."""


class InputInvalid(RuntimeFailure):
    """What the runner was asked for makes no sense to it (wrong token ids, not-a-number embeddings)."""


class FormatInvalid(RuntimeFailure):
    """The `format` of a request is neither "json" nor a JSON Schema that can be honoured."""


class QuantizeFailed(RuntimeFailure):
    """llama.cpp could not quantise the weights, or its process ended before it had."""


class LevelUnsupported(RuntimeFailure):
    """Weights cannot be quantised to the level that was named, or not from the type that they have."""


class ModelfileInvalid(RuntimeFailure):
    """The text is no Modelfile. `detail["line"]`, where there is one, is the line it went wrong at, from 1."""
