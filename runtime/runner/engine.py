"""The loop of a runner: every step computes one token of each answer and a slice of each prompt, in one batch."""

from __future__ import annotations

from collections import deque
from typing import Any

from runtime.errors import RuntimeFailure
from runtime.failures import error_event
from runtime.messages import GenerateRequest
from runtime.runner.embedding import Embedder, EmbedJob
from runtime.runner.grammar import Grammars
from runtime.runner.library import Batch, Context, Model
from runtime.runner.scheduler import plan_step
from runtime.runner.sequence import Sequence, Sink
from runtime.runner.settings import RunnerSettings
from runtime.runner.slots import Slots
from runtime.runner.threads import physical_cores

_DEFAULT_BATCH = 512


class Engine:
    """One model and everything that is asked of it. Single-threaded: `step` until `has_work` is false."""

    def __init__(self, model: Model, settings: RunnerSettings) -> None:
        """Raises LoadFailed."""
        self._model = model
        self._settings = settings
        self._threads = settings.num_thread if settings.num_thread > 0 else physical_cores()
        self.context_length = settings.context_length
        self.parallel = settings.parallel
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._jobs: deque[EmbedJob] = deque()
        self._slots = Slots(self.parallel)
        self._grammars = Grammars(model.vocabulary)
        self._embedder: Embedder | None = None
        self._context: Context | None = None
        if settings.is_embedding:
            self._embedder = self._make_embedder()
        else:
            capacity = max(settings.num_batch if settings.num_batch > 0 else _DEFAULT_BATCH, 2 * self.parallel)
            self._batch = Batch(capacity)
            self._context = Context(
                model,
                cells=self.context_length * self.parallel,
                sequences=self.parallel,
                step_tokens=capacity,
                threads=self._threads,
                settings=settings,
            )

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting or self._jobs)

    def generate(self, request: GenerateRequest, sink: Sink) -> Sequence:
        """Queue a request. Raises InputInvalid, PromptTooLong."""
        if self._context is None:
            raise RuntimeFailure("the model only embeds: it does not generate text")
        sequence = Sequence(request, sink, self._model.vocabulary, self.context_length, self._grammars)
        self._waiting.append(sequence)
        return sequence

    def embed(self, inputs: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Queue texts to be embedded. Raises PromptTooLong, LoadFailed."""
        if self._embedder is None:
            self._embedder = self._make_embedder()
        job = self._embedder.job(inputs, sink, truncate=truncate)
        self._jobs.append(job)
        return job

    def cancel(self, task: Sequence | EmbedJob) -> None:
        """Forget a request wherever it is; its slot is free at once."""
        if isinstance(task, EmbedJob):
            if task in self._jobs:
                self._jobs.remove(task)
        elif task in self._waiting:
            self._waiting.remove(task)
        elif task in self._running:
            self._retire(task)

    def step(self) -> bool:
        """Compute one batch of every kind that is wanted. False where all of it had to rest."""
        embedded = bool(self._jobs) and self._embed_step()
        return (self._context is not None and self._generate_step(self._context)) or embedded

    def _embed_step(self) -> bool:
        assert self._embedder is not None
        job = self._jobs[0]
        try:
            is_done = self._embedder.step(job)
        except RuntimeFailure as error:
            job.sink.send(error_event(error))
            is_done = True
        if is_done:
            self._jobs.popleft()
        elif job.is_between_inputs:
            self._jobs.rotate(-1)  # the next job's turn: a long one does not make a short one wait
        return True

    def _generate_step(self, context: Context) -> bool:
        """One token of every answer, then a slice of every prompt, as far as the step goes.

        Each slice is computed by itself. In one batch with the others, llama.cpp would cut all of them into parts of
        equal length, and how a prompt is cut decides how its numbers are rounded.
        """
        self._admit(context)
        reading = [sequence for sequence in self._running if sequence.unread]
        decoding = self._decode(context)
        shares = plan_step(decoding, [sequence.unread for sequence in reading], self._batch.capacity)
        for sequence, share in zip(reading, shares, strict=True):
            if share:
                self._read(context, sequence, share)
        return bool(decoding) or any(shares)

    def _admit(self, context: Context) -> None:
        """Give free slots to those who wait, in order of arrival."""
        while self._waiting:
            taken = self._slots.take(self._waiting[0].prompt)
            if taken is None:
                return
            slot, shared = taken
            if not context.drop(slot.number, shared):  # states that cannot be cut back are computed anew
                context.drop(slot.number, 0)
                shared = 0
            slot.keep(shared)
            sequence = self._waiting.popleft()
            self._running.append(sequence)
            try:
                sequence.begin(slot, shared)
            except RuntimeFailure as error:
                self._fail(sequence, error)

    def _decode(self, context: Context) -> int:
        """Compute one token of each answer. Returns how many there were.

        In order of their slots: llama.cpp computes neighbouring lanes of the cache together, and each gap or step back
        in their numbers costs a pass over the weights.
        """
        self._batch.clear()
        outputs: list[tuple[Sequence, int]] = []
        for sequence in sorted(self._running, key=_slot_number):
            if sequence.unread or sequence.sink.is_congested or not self._has_room(context, sequence):
                continue
            slot = sequence.slot
            assert slot is not None
            outputs.append((sequence, self._batch.add(sequence.next_token, len(slot.tokens), slot.number)))
            slot.append((sequence.next_token,))
        if outputs and self._compute(context, [sequence for sequence, _ in outputs]):
            for sequence, index in outputs:
                self._advance(context, sequence, index)
        return len(outputs)

    def _read(self, context: Context, sequence: Sequence, share: int) -> None:
        """Compute the next `share` tokens of a prompt, and the answer's first one where that was all of it."""
        slot = sequence.slot
        assert slot is not None
        tokens = sequence.prompt[sequence.read : sequence.read + share]
        is_last = share == sequence.unread
        self._batch.clear()
        index = self._batch.add_slice(tokens, sequence.read, slot.number, wants_last=is_last)
        slot.append(tokens)
        sequence.read += share
        if self._compute(context, [sequence]) and is_last:
            self._advance(context, sequence, index)

    def _advance(self, context: Context, sequence: Sequence, index: int) -> None:
        try:
            reason = sequence.advance(context, index)
        except RuntimeFailure as error:
            self._fail(sequence, error)
            return
        if reason is not None:
            self._end(sequence, reason)

    def _compute(self, context: Context, sequences: list[Sequence]) -> bool:
        """Compute the batch. False where llama.cpp cannot; its sequences have ended with an error then."""
        result = context.decode(self._batch)
        if result == 0:
            return True
        for sequence in sequences:
            slot = sequence.slot
            assert slot is not None
            self._fail(sequence, RuntimeFailure(f"llama.cpp cannot compute the step (code {result})"))
            context.drop(slot.number, 0)  # nobody knows what the cache holds of it
            slot.keep(0)
        return False

    def _has_room(self, context: Context, sequence: Sequence) -> bool:
        """Whether one more token fits the window, after a shift where need be; else the answer ends here."""
        slot = sequence.slot
        assert slot is not None
        length = len(slot.tokens)
        if length < self.context_length:
            return True
        if not (sequence.shifts and context.can_shift):
            self._end(sequence, "length")
            return False
        keep = sequence.keep
        dropped = max((length - keep) // 2, 1)
        if not context.drop(slot.number, keep, keep + dropped):
            self._end(sequence, "length")
            return False
        context.move(slot.number, keep + dropped, -dropped)
        slot.shift(keep, dropped)
        sequence.forget()
        return True

    def _fail(self, sequence: Sequence, error: RuntimeFailure) -> None:
        sequence.sink.send(error_event(error))
        self._retire(sequence)

    def _end(self, sequence: Sequence, reason: str) -> None:
        sequence.finish(reason)
        self._retire(sequence)

    def _retire(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        sequence.close()
        if sequence.slot is not None:
            self._slots.give_back(sequence.slot)
            sequence.slot = None

    def _make_embedder(self) -> Embedder:
        return Embedder(self._model, self._settings, self._threads)

    def facts(self) -> dict[str, Any]:
        """What the supervisor wants to know of a runner that is ready."""
        return {
            "context_length": self.context_length,
            "parallel": self.parallel,
            "weights_bytes": self._model.size,
            "is_on_gpu": self._settings.num_gpu != 0 and self._model.offloads,
        }


def _slot_number(sequence: Sequence) -> int:
    return -1 if sequence.slot is None else sequence.slot.number
