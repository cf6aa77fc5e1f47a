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
    """What decides how much memory a model takes, told from its GGUF header; `runtime.memory` makes bytes of it.

    weights_bytes: all tensors. kv_bytes_per_token: f16 keys and values in the layers that see everything.
    compute_bytes: buffers that no setting changes. window_bytes_per_token: f16 keys and values in the layers that see
    only the last `window` tokens. state_bytes: what recurrent layers remember of one sequence.
    repacked_bytes: weights that this machine's kernels want a second time, in another order.
    vocabulary, embedding, heads: of the model. feed_width, attention_width: floats a token takes in the feed-forward
    and in the attention of a layer, at most.
    layers: (weights, repacked, kv a token, window kv a token, state) of each, in bytes. output_bytes: of what follows
    the last one. projector_bytes: of the file that reads images, and of its buffers.
    """

    weights_bytes: int
    kv_bytes_per_token: int
    compute_bytes: int
    window: int = 0
    window_bytes_per_token: int = 0
    state_bytes: int = 0
    repacked_bytes: int = 0
    vocabulary: int = 0
    embedding: int = 0
    heads: int = 0
    feed_width: int = 0
    attention_width: int = 0
    layers: tuple[tuple[int, int, int, int, int], ...] = ()
    output_bytes: int = 0
    projector_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelSpec(Message):
    """A model as the supervisor loads it. Equal `identity` means one shared runner.

    identity: digests of weights, projectors and adapters, joined; names and templates are no part of it.
    path: the weights, a local file that passed `runtime.gguf`; offset: where in it they begin. more_paths: the files
    that go on where it ends, in order. adapters: files of LoRA adapters that are added to the weights.
    vocabulary_of: the identity of the model whose vocabulary alone is wanted; empty where the weights are, too.
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
    projector: str = ""  # local file of the projector, checked like the weights; empty without one
    more_paths: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    offset: int = 0
    vocabulary_of: str = ""

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> ModelSpec:
        body = body | {key: tuple(body.get(key, ())) for key in ("more_paths", "adapters")}
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
    images: base64 of image files, in the order of the markers `[img-0]`, `[img-1]` … in the prompt.
    caller: whose request it is, in the words of `auth`; what one caller's prompts left in the cache helps no other.
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
    images: tuple[str, ...] = ()
    caller: str = ""

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> GenerateRequest:
        body = dict(body)
        options = dict(body["options"])
        options["stop"] = tuple(options.get("stop", ()))
        body["options"] = SampleOptions(**options)
        body["context"] = tuple(body.get("context", ()))
        body["special"] = tuple(body.get("special", ()))
        body["images"] = tuple(body.get("images", ()))
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

    reason: "stop" (end token or stop string) or "length"; stopped_at: the stop string, if it was one.
    prompt_tokens counts cached ones too.
    """

    reason: str
    prompt_tokens: int
    prompt_ns: int
    tokens: int
    tokens_ns: int
    truncated: bool = False
    context: list[int] | None = None
    stopped_at: str = ""


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """A runner as /api/ps shows it. expires_at: Unix seconds; sizes in bytes.

    names: what it was asked by, `name` first; a caller may see one of them and not the others. digests: of their
    manifests, and named_details: what is shown beside each, in the same order.
    """

    name: str
    digest: str
    size: int
    size_vram: int
    context_length: int
    expires_at: float
    details: dict[str, Any]
    pid: int
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    named_details: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Loaded:
        lists = {key: tuple(body.get(key, ())) for key in ("names", "digests", "named_details")}
        return super(Loaded, cls).from_json(body | lists)
