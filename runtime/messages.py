"""What web workers, the supervisor and the runners say to each other: JSON objects, never pickle.

Every message is one frame (`runtime/wire.py`). Fields are plain JSON; these classes name them, once, for both sides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from runtime.options import LoadOptions, SampleOptions


class Message:
    """A frozen dataclass that travels as a JSON object. Unknown keys are ignored, so both sides may grow."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in body.items() if key in known})


@dataclass(frozen=True, slots=True)
class MemoryNeed(Message):
    """Bytes a loaded model takes, estimated from its GGUF header before llama.cpp sees it."""

    weights_bytes: int
    kv_bytes_per_token: int
    compute_bytes: int


@dataclass(frozen=True, slots=True)
class ModelSpec(Message):
    """A model as the supervisor loads it. Equal `identity` means one shared runner.

    identity: digests of weights, projectors and adapters, joined; names and templates are no part of it.
    paths: local files that passed `runtime.gguf`, the first one the weights.
    """

    identity: str
    path: str
    options: LoadOptions
    memory: MemoryNeed
    trained_context: int
    name: str  # display name, for /api/ps and the log
    digest: str  # of the manifest, 64 hex digits, for /api/ps
    details: dict[str, Any] = field(default_factory=dict)  # /api/ps shows it as is
    is_embedding: bool = False  # the weights carry a pooling type

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> ModelSpec:
        body = dict(body)
        body["options"] = LoadOptions(**body["options"])
        body["memory"] = MemoryNeed.from_json(body["memory"])
        return super(ModelSpec, cls).from_json(body)


@dataclass(frozen=True, slots=True)
class GenerateRequest(Message):
    """One prompt to be completed.

    prompt: text; special tokens in it are parsed, and the begin token the vocabulary asks for is put in front once.
    context: token ids that go before the prompt (`context` of /api/generate).
    shift: when the window is full, drop the oldest half after `num_keep` and go on; False stops with "length".
    truncate: a prompt longer than the window is cut (num_keep first tokens and the newest stay); False raises.
    top_logprobs: None for no log-probabilities at all, else how many alternatives a token (0 to 20).
    want_tokens: report the ids of prompt and answer in the final message.
    format: a `runtime.structured.schema.Constraint` as JSON; None leaves the answer free.
    thought: how the model marks its reasoning, which `format` leaves free: opening tag, closing tag, and whether the
    prompt ends inside. A NUL in the closing tag stands for some text, as headers have it.
    special: special tokens that come as text; the others come as none.
    """

    prompt: str
    options: SampleOptions
    context: tuple[int, ...] = ()
    shift: bool = True
    truncate: bool = True
    top_logprobs: int | None = None
    want_tokens: bool = False
    format: dict[str, Any] | None = None
    thought: tuple[str, str, bool] | None = None
    special: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> GenerateRequest:
        body = dict(body)
        options = dict(body["options"])
        options["stop"] = tuple(options.get("stop", ()))
        body["options"] = SampleOptions(**options)
        body["context"] = tuple(body.get("context", ()))
        body["special"] = tuple(body.get("special", ()))
        body["thought"] = tuple(body["thought"]) if body.get("thought") else None
        return super(GenerateRequest, cls).from_json(body)


@dataclass(frozen=True, slots=True)
class Piece(Message):
    """Some whole UTF-8 text of the answer, in order. logprobs: entries as /api/generate shows them."""

    text: str
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Done(Message):
    """The end of an answer. Durations in nanoseconds.

    reason: "stop" (end token or stop string) or "length". prompt_tokens counts cached ones too.
    """

    reason: str
    prompt_tokens: int
    prompt_ns: int
    tokens: int
    tokens_ns: int
    truncated: bool = False
    context: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Embeddings(Message):
    """One L2-normalised vector an input, in order; prompt_tokens is the sum over the inputs."""

    vectors: list[list[float]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """A runner as /api/ps shows it. expires_at: Unix seconds; sizes in bytes."""

    name: str
    digest: str
    size: int
    size_vram: int
    context_length: int
    expires_at: float
    details: dict[str, Any]
    pid: int
