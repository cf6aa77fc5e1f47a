"""Where inputs are computed and their tokens' vectors joined to one: whole inputs, or long ones slice by slice.

The contexts are apart from the one that generates: pooling is fixed when a context is made, and every token is an
output here, which would make each step of generation pay for logits that nobody reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import llama_cpp.llama_cpp as ll
import numpy as np

from runtime.errors import RuntimeFailure
from runtime.runner.embed_job import EmbedJob, Vector, normalise, relevance
from runtime.runner.library import (
    ABANDONED,
    MOST_SEQUENCES,
    POOLING_CLS,
    POOLING_LAST,
    POOLING_MEAN,
    POOLING_NONE,
    Batch,
    Context,
    Model,
)
from runtime.runner.settings import RunnerSettings

POOLING_RANK = 4
_STEP_TOKENS = 512
_EXACT_TOKENS = 128  # without the fused kernel, masked attention between inputs costs the square of this
_LEAST_TOKENS = 32
_OUTPUT_BYTES = 256 * 1024 * 1024
_ATTENTION_BYTES = 256 * 1024 * 1024
_RECURRENT_SEQUENCES = 16  # each has a state of its own, as large as the cache of a window
_WATCHED_TOKENS = 64  # a step of fewer is over soon, and to look costs as much as it saves


class Abandoned(Exception):
    """All who asked for the inputs of a step have left while it was computed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens `start` to `end` of the input `number` of a job."""

    job: EmbedJob
    number: int
    start: int
    end: int

    @property
    def tokens(self) -> list[int]:
        return self.job.inputs[self.number][self.start : self.end]

    @property
    def is_last(self) -> bool:
        """Whether the input is complete with it."""
        return self.end == len(self.job.inputs[self.number])


class Lane(Protocol):
    """One way to compute inputs."""

    held: EmbedJob | None

    def pack(self, jobs: Sequence[EmbedJob]) -> list[Part]:
        """The next step of `jobs`, the first of them served where it can be; parts are in the order of a job's inputs.

        Empty where all of `jobs` wait for the one that is held.
        """

    def compute(self, parts: list[Part]) -> list[Vector | None]:
        """What each part came to, None where its input goes on.

        Raises Abandoned, after which nothing of the step is left, and InputInvalid, RuntimeFailure, LoadFailed.
        """

    def forget(self) -> None:
        """Let go of an input that is under way; it would begin anew."""

    def rest(self) -> None:
        """Nothing waits: give back what a usual step does not need."""

    def wipe(self) -> None:
        """Let go of all that may be left of a step that failed: what is not a number hides behind no mask."""


class _Outputs(Context):
    """A context that gives vectors."""

    def __init__(
        self, model: Model, settings: RunnerSettings, *, cells: int, sequences: int, tokens: int, threads: int,
        pooling: int, is_exact: bool,
    ) -> None:  # fmt: skip
        """is_exact: keep all of attention in 32 bits, if there is room for that. Raises LoadFailed.

        llama.cpp's fused kernel rounds to halves, another way for a short step than for a long one: what becomes of
        a text depends on who else is in the step. In the mean over an encoder's tokens hardly anything is left of it.
        """
        attention_bytes = 4 * int(ll.llama_model_n_head(model.pointer)) * tokens * cells
        if is_exact and attention_bytes <= _ATTENTION_BYTES:
            settings = replace(settings, flash_attention=False, kv_cache_type="f16")
        super().__init__(
            model, cells=cells, sequences=sequences, step_tokens=tokens, threads=threads, settings=settings,
            embeds=True, pooling=pooling,
        )  # fmt: skip

    @property
    def has_cache(self) -> bool:
        return bool(self._memory)

    def rows(self, count: int) -> Vector:
        """(count, width): a vector for each token of the last step; valid until the next one."""
        flat = self._array(ll.llama_get_embeddings(self.pointer), count * self._embedding_width)
        return flat.reshape(count, self._embedding_width)

    def score(self, sequence: int) -> float:
        """The first output of the classifier for one sequence of the last step."""
        return float(self._array(ll.llama_get_embeddings_seq(self.pointer, sequence), 1)[0])

    def wipe(self) -> None:
        if self._memory:
            ll.llama_memory_clear(self._memory, True)


class WholeInputs:
    """Inputs of which every token sees every other, so that a step holds them whole; llama.cpp joins the vectors.

    The context grows for an input that is longer than a usual step, and is given back afterwards: what it takes is
    the square of a step, and as many logits as the step has tokens, for models that have none, too.
    """

    def __init__(
        self, model: Model, settings: RunnerSettings, threads: int, limit: int, pooling: int, *, is_encoder: bool
    ) -> None:
        """is_encoder: whether the model has no cache. Raises LoadFailed."""
        self.held: EmbedJob | None = None
        self._model, self._settings, self._threads = model, settings, threads
        self._is_exact = not (is_encoder and pooling == POOLING_MEAN)
        self._pooling = pooling
        self._is_probability = pooling == POOLING_RANK and _gives_probabilities(model)
        self._usual = step_tokens(model, settings)
        self._room = min(self._usual, _EXACT_TOKENS) if self._is_exact else self._usual
        self._most = -(-limit // self._usual) * self._usual
        self._sequences = _sequences(model, self._usual)
        self._batch = Batch(self._usual)
        self._context: _Outputs | None = None
        self._grow(self._usual)

    def pack(self, jobs: Sequence[EmbedJob]) -> list[Part]:
        """Lane.pack"""
        return pack(jobs, max(self._room, len(jobs[0].inputs[jobs[0].done])), self._sequences)

    def compute(self, parts: list[Part]) -> list[Vector | None]:
        """Lane.compute"""
        context = self._grow(sum(part.end for part in parts))
        context.clear()
        self._batch.clear()
        for sequence, part in enumerate(parts):
            self._batch.add_slice(part.tokens, 0, sequence, wants_last=True)
        _decode(context, self._batch, parts)
        return [self._read(context, sequence) for sequence in range(len(parts))]

    def forget(self) -> None:
        """Lane.forget"""

    def rest(self) -> None:
        """Lane.rest"""
        if self._context is not None and self._batch.capacity > self._usual:
            self._context.close()
            self._context = None

    def wipe(self) -> None:
        """Lane.wipe"""
        if self._context is not None:
            self._context.wipe()

    def _read(self, context: _Outputs, sequence: int) -> Vector:
        if self._pooling != POOLING_RANK:
            return normalise(context.sequence_embedding(sequence))
        score = context.score(sequence)
        return np.array([score if self._is_probability and np.isfinite(score) else relevance(score)])

    def _grow(self, tokens: int) -> _Outputs:
        """A context of the size that `tokens` want. Raises LoadFailed."""
        wanted = self._usual
        while wanted < tokens:
            wanted *= 2
        wanted = min(wanted, self._most)  # both are multiples of the sequences, else llama.cpp aborts
        if self._context is not None and self._batch.capacity == wanted:
            return self._context
        if self._context is not None:
            self._context.close()
            self._context = None
        is_shared = wanted == self._usual
        self._batch = Batch(wanted)
        self._context = _Outputs(
            self._model, self._settings, cells=wanted, sequences=self._sequences if is_shared else 1, tokens=wanted,
            threads=self._threads, pooling=self._pooling, is_exact=is_shared and self._is_exact,
        )  # fmt: skip
        return self._context


class SlicedInputs:
    """Inputs of which a token sees only those before it, so that a long one is read over several steps.

    One long input at a time is `held`, in the cache under sequence 0; short ones share every step with it.
    """

    def __init__(self, model: Model, settings: RunnerSettings, threads: int, limit: int, pooling: int) -> None:
        """Raises LoadFailed."""
        self.held: EmbedJob | None = None
        self._pooling = pooling
        self._budget = step_tokens(model, settings)
        sequences = _sequences(model, self._budget)
        self._most = sequences - 1
        self._context = _Outputs(
            model, settings, cells=limit + self._budget, sequences=sequences, tokens=self._budget, threads=threads,
            pooling=POOLING_NONE, is_exact=True,
        )  # fmt: skip
        self._batch = Batch(self._budget)
        self._read = 0
        self._total: Vector | None = None

    def pack(self, jobs: Sequence[EmbedJob]) -> list[Part]:
        """Lane.pack"""
        long = self.held if self.held in jobs else None
        if self.held is None:
            long = next((job for job in jobs if len(job.inputs[job.done]) > self._budget), None)
        if long is None:
            return pack(jobs, self._budget, self._most)
        first = jobs[0]
        share = self._budget // 2
        if first is not long and len(first.inputs[first.done]) <= self._budget:
            share = max(share, len(first.inputs[first.done]))
        parts = pack([job for job in jobs if job is not long], share, self._most)
        room = self._budget - sum(part.end for part in parts)
        if room:
            start = self._read if long is self.held else 0
            parts.append(Part(long, long.done, start, min(start + room, len(long.inputs[long.done]))))
        return parts

    def compute(self, parts: list[Part]) -> list[Vector | None]:
        """Lane.compute"""
        if self.held is None:
            self._context.clear()
        self._batch.clear()
        short = 0
        for part in parts:
            is_long = part.start > 0 or not part.is_last
            short += not is_long
            self._batch.add_slice(part.tokens, part.start, 0 if is_long else short, wants_last=True)
        _decode(self._context, self._batch, parts)
        rows = self._context.rows(self._batch.size)
        found: list[Vector | None] = []
        at = 0
        for part in parts:
            count = part.end - part.start
            found.append(self._joined(part, rows[at : at + count]))
            at += count
        if self.held is not None:
            for sequence in range(1, short + 1):
                self._context.drop(sequence, 0)
        return found

    def forget(self) -> None:
        """Lane.forget"""
        self.held, self._read, self._total = None, 0, None

    def rest(self) -> None:
        """Lane.rest"""

    def wipe(self) -> None:
        """Lane.wipe"""
        self.forget()
        self._context.wipe()

    def _joined(self, part: Part, rows: Vector) -> Vector | None:
        """The vector of an input, or None where more of it comes; then what there is of it is kept."""
        before = self._total if part.start > 0 else None
        if self._pooling == POOLING_MEAN:
            joined = rows.sum(axis=0, dtype=np.float32)
            joined = joined if before is None else before + joined
        elif self._pooling == POOLING_CLS:
            joined = rows[0].copy() if before is None else before
        else:
            joined = rows[-1].copy()
        if not part.is_last:
            self.held, self._read, self._total = part.job, part.end, joined
            return None
        if part.start > 0:
            self.forget()
        return normalise(joined)


def lane_of(model: Model, settings: RunnerSettings, threads: int, limit: int, *, ranks: bool) -> Lane:
    """The way `model` wants its inputs computed. Raises LoadFailed."""
    probe = _Outputs(  # of the smallest size: the header of a model does not always say
        model, settings, cells=32, sequences=1, tokens=32, threads=threads, pooling=POOLING_NONE, is_exact=False
    )
    has_cache, is_causal = probe.has_cache, probe.is_causal
    probe.close()
    if ranks:
        return WholeInputs(model, settings, threads, limit, POOLING_RANK, is_encoder=not has_cache)
    pooling = model.pooling if model.pooling in {POOLING_CLS, POOLING_LAST} else POOLING_MEAN
    if is_causal:
        return SlicedInputs(model, settings, threads, limit, pooling)
    return WholeInputs(model, settings, threads, limit, pooling, is_encoder=not has_cache)


def pack(jobs: Sequence[EmbedJob], room: int, most: int) -> list[Part]:
    """Whole inputs for `room` tokens, one of each job in turn; of a job whose next one does not fit, no more."""
    parts: list[Part] = []
    turns = deque((job, job.done) for job in jobs)
    while turns and len(parts) < most:
        job, number = turns.popleft()
        count = len(job.inputs[number])
        if count > room:
            continue
        room -= count
        parts.append(Part(job, number, 0, count))
        if number + 1 < len(job.inputs):
            turns.append((job, number + 1))
    return parts


def step_tokens(model: Model, settings: RunnerSettings) -> int:
    """The tokens of a usual step, a power of two.

    llama.cpp keeps room for the logits of each of them, whether there are any or not.
    """
    wanted = min(max(settings.num_batch, _STEP_TOKENS), _OUTPUT_BYTES // (4 * max(model.vocabulary.size, 1)))
    return 1 << (max(wanted, _LEAST_TOKENS).bit_length() - 1)


def _sequences(model: Model, step: int) -> int:
    is_recurrent = ll.llama_model_is_recurrent(model.pointer) or ll.llama_model_is_hybrid(model.pointer)
    return min(_RECURRENT_SEQUENCES if is_recurrent else MOST_SEQUENCES, step)


def _decode(context: Context, batch: Batch, parts: list[Part]) -> None:
    """Compute what `parts` were put into `batch` for; a long step ends early once nobody is there to read it."""
    batch.want_all()
    jobs = dict.fromkeys(part.job for part in parts)
    is_watched = batch.size >= _WATCHED_TOKENS
    result = context.decode(batch, (lambda: all(job.sink.is_gone for job in jobs)) if is_watched else None)
    if result == ABANDONED:
        raise Abandoned
    if result != 0:
        raise RuntimeFailure(f"llama.cpp cannot compute the embedding (code {result})")


def _gives_probabilities(model: Model) -> bool:
    """llama.cpp ends these models with a softmax; the others with a bare number."""
    return (model.metadata("general.architecture") or "") in {"qwen3", "qwen3vl"}
