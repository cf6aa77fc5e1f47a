"""Texts to vectors: many short ones in one step, long ones over several where the model allows it."""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputInvalid, PromptTooLong, RuntimeFailure
from runtime.runner.library import (
    MOST_SEQUENCES,
    POOLING_CLS,
    POOLING_LAST,
    POOLING_MEAN,
    Batch,
    Context,
    Model,
    Vocabulary,
)
from runtime.runner.sequence import Sink
from runtime.runner.settings import RunnerSettings

_STEP_TOKENS = 512
_SMALLEST_NORM = 1e-12
Vector = NDArray[np.float32]


@dataclass(slots=True)
class Partial:
    """An input of which some tokens are computed: their sum, and the last vector seen."""

    read: int = 0
    total: Vector | None = None


@dataclass(slots=True, eq=False)
class EmbedJob:
    """The inputs of one call. `waiting` are token ids; vectors are sent in the order of inputs."""

    sink: Sink
    waiting: deque[list[int]]
    prompt_tokens: int
    partial: Partial = field(default_factory=Partial)

    @property
    def is_between_inputs(self) -> bool:
        """Whether the context holds nothing that the next step needs."""
        return not self.partial.read


class Embedder:
    """A context of its own, apart from the one that generates: pooling is fixed when a context is made, and every
    token is an output here, which would make each step of generation pay for logits that nobody reads.
    """

    def __init__(self, model: Model, settings: RunnerSettings, threads: int) -> None:
        """Raises LoadFailed."""
        self._vocabulary = model.vocabulary
        self.limit = max(min(settings.context_length, model.trained_context or settings.context_length), 1)
        self._pooling = model.pooling if model.pooling in {POOLING_CLS, POOLING_LAST} else POOLING_MEAN
        self._in_slices = _is_causal(model, settings, threads)
        step = max(settings.num_batch, _STEP_TOKENS) if self._in_slices else max(self.limit, _STEP_TOKENS)
        self._context = Context(
            model,
            cells=max(self.limit, step),
            sequences=min(MOST_SEQUENCES, step),
            step_tokens=step,
            threads=threads,
            settings=settings,
            embeds=True,
            pooling=0 if self._in_slices else self._pooling,
        )
        self._batch = Batch(step)
        self._sequences = min(MOST_SEQUENCES, step)

    def job(self, inputs: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Read `inputs` into tokens. Raises PromptTooLong."""
        prompts = deque(input_tokens(text, self._vocabulary, self.limit, truncate=truncate) for text in inputs)
        return EmbedJob(sink, prompts, sum(map(len, prompts)))

    def step(self, job: EmbedJob) -> bool:
        """Compute one batch of `job` and send the vectors it completes. True once all are sent.

        Raises InputInvalid where a vector is no vector, RuntimeFailure where llama.cpp cannot compute.
        """
        if not job.partial.read:
            self._context.clear()
        if job.waiting:
            vectors = self._sliced_step(job) if self._in_slices else self._whole_step(job)
            if vectors:
                data = base64.b64encode(np.stack(vectors).astype("<f4").tobytes()).decode("ascii")
                job.sink.send({"event": "vectors", "width": len(vectors[0]), "data": data})
        if job.waiting:
            return False
        job.sink.send({"event": "done", "prompt_tokens": job.prompt_tokens})
        return True

    def _whole_step(self, job: EmbedJob) -> list[Vector]:
        """As many whole inputs as fit; llama.cpp joins the vectors of their tokens."""
        self._batch.clear()
        count = 0
        while job.waiting and count < self._sequences and self._fits(len(job.waiting[0])):
            self._batch.add_slice(job.waiting.popleft(), 0, count, wants_last=True)
            count += 1
        self._decode()
        return [normalise(self._context.sequence_embedding(sequence)) for sequence in range(count)]

    def _sliced_step(self, job: EmbedJob) -> list[Vector]:
        """As many tokens as fit, of inputs one after the other; the last input may go on in the next step."""
        self._batch.clear()
        spans: list[tuple[int, int, int]] = []  # (first index, tokens, of an input this long)
        while job.waiting and len(spans) < self._sequences and self._batch.size < self._batch.capacity:
            tokens = job.waiting[0]
            room = self._batch.capacity - self._batch.size
            part = tokens[job.partial.read : job.partial.read + room]
            if not self._may_begin(job, len(part), bool(spans)):
                break
            start = self._batch.size
            self._batch.add_slice(part, job.partial.read, 0 if job.partial.read else len(spans), wants_last=True)
            spans.append((start, len(part), len(tokens)))
            if job.partial.read + len(part) < len(tokens):
                break
            job.waiting.popleft()
            if job.partial.read:
                break
        self._decode()
        return self._collect(job, spans)

    def _may_begin(self, job: EmbedJob, part: int, has_others: bool) -> bool:
        """An input that needs several steps gets them alone: its cells stay in the cache, under sequence 0."""
        return not has_others or part == len(job.waiting[0])

    def _collect(self, job: EmbedJob, spans: list[tuple[int, int, int]]) -> list[Vector]:
        vectors = []
        partial = job.partial
        for start, count, whole in spans:
            rows = [self._context.token_embedding(start + offset) for offset in self._wanted(count)]
            part: Vector = np.asarray(np.sum(rows, axis=0, dtype=np.float32))
            if self._pooling == POOLING_MEAN and partial.total is not None:
                part = part + partial.total
            elif self._pooling == POOLING_CLS and partial.total is not None:
                part = partial.total
            partial.read, partial.total = partial.read + count, part
            if partial.read == whole:
                vectors.append(normalise(part))
                partial.read, partial.total = 0, None
        return vectors

    def _wanted(self, count: int) -> range:
        """Which tokens of a slice count."""
        if self._pooling == POOLING_MEAN:
            return range(count)
        return range(1) if self._pooling == POOLING_CLS else range(count - 1, count)

    def _fits(self, count: int) -> bool:
        return self._batch.size + count <= self._batch.capacity

    def _decode(self) -> None:
        self._batch.want_all()
        result = self._context.decode(self._batch)
        if result != 0:
            raise RuntimeFailure(f"llama.cpp cannot compute the embedding (code {result})")


def input_tokens(text: str, vocabulary: Vocabulary, limit: int, *, truncate: bool) -> list[int]:
    """The tokens of one input with the special ones around it, the text's tail cut to `limit`. Raises PromptTooLong."""
    tokens = vocabulary.tokenize(text, add_special=True)
    if not tokens:
        fallback = vocabulary.begin if vocabulary.begin is not None else vocabulary.end
        return [fallback or 0]  # an empty text has a vector, too
    if len(tokens) <= limit:
        return tokens
    if not truncate:
        raise PromptTooLong("the input length exceeds the context length")
    closing = tokens[-1:] if tokens[-1] in {vocabulary.end, vocabulary.separator} else []
    return tokens[: limit - len(closing)] + closing


def normalise(vector: Vector) -> Vector:
    """(width,) of unit length. Raises InputInvalid where a number is none."""
    wide = vector.astype(np.float64)
    if not np.isfinite(wide).all():
        raise InputInvalid("embedding contains NaN or Inf values")
    unit: Vector = (wide / max(float(np.linalg.norm(wide)), _SMALLEST_NORM)).astype(np.float32)
    return unit


def _is_causal(model: Model, settings: RunnerSettings, threads: int) -> bool:
    """Asked of a context of the smallest size: the header of a model does not always say."""
    probe = Context(model, cells=32, sequences=1, step_tokens=32, threads=threads, settings=settings, embeds=True)
    try:
        return probe.is_causal
    finally:
        probe.close()
