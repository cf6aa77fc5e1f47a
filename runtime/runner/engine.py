"""The loop of a runner: every step computes one token of each answer, and as much of waiting prompts as fits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from runtime.errors import RuntimeFailure
from runtime.failures import error_event
from runtime.messages import GenerateRequest
from runtime.runner.embedding import Embedder, EmbedJob
from runtime.runner.grammar import Grammars
from runtime.runner.library import ABANDONED, Batch, Context, Model
from runtime.runner.prompt import Span, read_prompt
from runtime.runner.scheduler import TILE, plan_step
from runtime.runner.sequence import Sequence, Sink
from runtime.runner.settings import RunnerSettings
from runtime.runner.slots import Slot, Slots, Taken
from runtime.runner.threads import compute_threads
from runtime.runner.turns import Turns

if TYPE_CHECKING:
    from runtime.runner.vision import Projector

_DEFAULT_BATCH = 512
_SLOW_S = 0.2


class Engine:
    """One model and everything that is asked of it. Single-threaded: `step` until `has_work` is false.

    What is not about computing, reading a prompt of megabytes or seeing an image, may be done by other threads:
    `prepare`, `embed_job` and `rank_job`. What they return is put in line by `submit`.
    """

    def __init__(self, model: Model, settings: RunnerSettings) -> None:
        """Raises LoadFailed."""
        self._model = model
        self._settings = settings
        self._threads = settings.num_thread if settings.num_thread > 0 else compute_threads()
        self.context_length = settings.context_length
        self.parallel = settings.parallel
        self._waiting: Turns[Sequence] = Turns()
        self._running: list[Sequence] = []
        self._grammars = Grammars(model.vocabulary)
        self._embedder: Embedder | None = None
        self._making_embedder = threading.Lock()
        self._is_slow = False  # a step takes so long that a client may leave in the middle of it
        self._context: Context | None = None
        self._projector: Projector | None = None
        if settings.is_embedding:
            self._embedder = Embedder(model, settings, self._threads)
            return
        self._projector = _projector(model, settings, self._threads)
        wanted = settings.num_batch if settings.num_batch > 0 else _DEFAULT_BATCH
        capacity = max(wanted, 2 * self.parallel, self._projector.cells_at_once if self._projector else 0)
        self._batch = Batch(capacity)
        self._context = Context(
            model,
            cells=self.context_length * self.parallel,
            sequences=self.parallel,
            step_tokens=capacity,
            threads=self._threads,
            settings=settings,
        )
        self._slots = Slots(
            self.parallel,
            lane_tokens=self.context_length,
            copies=self._context.can_copy,
            reaches=self._context.reaches,
        )

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting) or (self._embedder is not None and self._embedder.has_work)

    def prepare(self, request: GenerateRequest, sink: Sink) -> Sequence:
        """Read a request. Raises InputInvalid, PromptTooLong."""
        if self._context is None:
            raise RuntimeFailure("the model only embeds: it does not generate text")
        vocabulary = self._model.vocabulary
        prompt = read_prompt(request, vocabulary, self.context_length, self._projector, lambda: sink.is_gone)
        if request.format is not None:
            self._grammars.prepare()
        return Sequence(request, prompt, sink, vocabulary, context_length=self.context_length, grammars=self._grammars)

    def needs_preparing(self, op: object) -> bool:
        """Whether the first request of this kind takes long."""
        return op in ("embed", "rerank") and self._embedder is None

    def embed_job(self, inputs: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Read texts to be embedded. Raises PromptTooLong, LoadFailed."""
        return self._embeds().job(inputs, sink, truncate=truncate)

    def rank_job(self, query: str, documents: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Read texts to be ranked. Raises PromptTooLong, LoadFailed, InputInvalid."""
        return self._embeds().rank_job(query, documents, sink, truncate=truncate)

    def submit(self, task: Sequence | EmbedJob) -> None:
        """Put in line what was prepared."""
        if isinstance(task, EmbedJob):
            self._embeds().submit(task)
        else:
            self._waiting.add(task.caller, task)

    def cancel(self, task: Sequence | EmbedJob) -> None:
        """Forget a request wherever it is; its slot is free at once."""
        if isinstance(task, EmbedJob):
            self._embeds().cancel(task)
        elif task in self._running:
            self._retire(task)
        elif task in self._waiting:
            self._waiting.remove(task)

    def step(self) -> bool:
        """Compute one batch of every kind that is wanted. False where all of it had to rest."""
        embedder = self._embedder
        embedded = embedder is not None and embedder.has_work and embedder.step()
        return (self._context is not None and self._generate_step(self._context)) or embedded

    def _generate_step(self, context: Context) -> bool:
        """One token of every answer, then a slice of every prompt, as far as the step goes.

        Each slice is computed by itself. In one batch with the others, llama.cpp would cut all of them into parts of
        equal length, and how a prompt is cut decides how its numbers are rounded.
        """
        began = time.monotonic()
        self._admit(context)
        for copy in self._slots.compact():
            context.copy(copy.source, copy.target)
        reading = [sequence for sequence in self._running if sequence.unread]
        decoding = self._decode(context)
        shares = plan_step(decoding, [sequence.unread for sequence in reading], self._batch.capacity)
        may_look = True
        for sequence, share in zip(reading, shares, strict=True):
            part = sequence.prompt.part(sequence.read, share) if share else []
            if isinstance(part, Span):
                if may_look:
                    self._look(context, sequence, part)
                may_look = False  # an image is read whole: one a step
            elif part:
                self._read(context, sequence, part)
        self._is_slow = time.monotonic() - began > _SLOW_S
        return bool(decoding) or any(shares)

    def _admit(self, context: Context) -> None:
        """Give free slots to those who wait, each caller in turn."""
        while self._waiting and self._slots.has_free:
            sequence = self._waiting.pop()
            taken = self._slots.take(sequence.prompt.tokens, sequence.caller)
            assert taken is not None
            shared = self._make_lane(context, sequence, taken)
            self._running.append(sequence)
            try:
                sequence.begin(taken.slot, shared)
            except RuntimeFailure as error:
                self._fail(sequence, error)

    def _make_lane(self, context: Context, sequence: Sequence, taken: Taken) -> int:
        """Let the cache hold what `taken` says. Returns how many tokens of the prompt it has then: all, or none."""
        slot, shared = taken.slot, sequence.prompt.whole(taken.shared)
        for copy in taken.copies:
            context.copy(copy.source, copy.target)
        if not context.cut(slot.number, shared):
            shared = 0
        if shared < taken.shared:
            slot.keep(shared)
            self._slots.note(slot)
        return shared

    def _decode(self, context: Context) -> int:
        """Compute one token of each answer. Returns how many there were.

        In order of their slots: llama.cpp computes neighbouring lanes of the cache together, and each gap or step back
        in their numbers costs a pass over the weights.
        """
        self._batch.clear()
        outputs: list[tuple[Sequence, Slot, int]] = []
        for sequence in sorted(self._running, key=_slot_number):
            if sequence.unread or sequence.sink.is_congested or not self._has_room(context, sequence):
                continue
            slot = sequence.slot
            assert slot is not None
            index = self._batch.add(sequence.next_token, len(slot.tokens), slot.number)
            outputs.append((sequence, slot, index))
        if outputs and self._compute(context, [sequence for sequence, _, _ in outputs], watch=self._is_slow):
            for sequence, slot, index in outputs:
                slot.append((sequence.next_token,))
                self._advance(context, sequence, index)
        return len(outputs)

    def _read(self, context: Context, sequence: Sequence, part: list[int]) -> None:
        """Compute `part` of a prompt, and the answer's first token where that is the last."""
        slot = sequence.slot
        assert slot is not None
        is_last = len(part) == sequence.unread
        self._batch.clear()
        index = self._batch.add_slice(part, sequence.read, slot.number, wants_last=is_last)
        if not self._compute(context, [sequence], watch=self._is_slow or len(part) >= TILE):
            return
        slot.append(part)
        sequence.read += len(part)
        self._slots.note(slot)
        if is_last:
            self._advance(context, sequence, index)

    def _look(self, context: Context, sequence: Sequence, span: Span) -> None:
        """Put an image into the cache."""
        slot = sequence.slot
        assert slot is not None and self._projector is not None
        try:
            with context.watched(lambda: sequence.sink.is_gone):
                code, _ = self._projector.decode(
                    context,
                    span.image,
                    span.embeddings,
                    position=sequence.read,
                    sequence=slot.number,
                    step_tokens=self._batch.capacity,
                )
        except RuntimeFailure as error:
            self._fail(sequence, error)
            return
        if code == 0:
            slot.append(sequence.prompt.tokens[span.start : span.end])
            sequence.read = span.end
        elif code == ABANDONED:
            context.drop(slot.number, sequence.read)  # what was done of it
            self._retire(sequence)
        else:
            self._break(context, [sequence], code)

    def _advance(self, context: Context, sequence: Sequence, index: int) -> None:
        try:
            reason = sequence.advance(context, index)
        except RuntimeFailure as error:
            self._fail(sequence, error)
            return
        if reason is not None:
            self._end(sequence, reason)

    def _compute(self, context: Context, sequences: list[Sequence], *, watch: bool) -> bool:
        """Compute the batch. False where it was given up; its sequences have ended then.

        watch: look meanwhile whether anybody is still there to read it.
        """
        is_abandoned = (lambda: all(sequence.sink.is_gone for sequence in sequences)) if watch else None
        code = context.decode(self._batch, is_abandoned)
        if code == 0:
            return True
        if code == ABANDONED:
            for sequence in sequences:
                self._retire(sequence)
        else:
            self._break(context, sequences, code)
        return False

    def _break(self, context: Context, sequences: list[Sequence], code: int) -> None:
        """llama.cpp could not compute: nobody knows what the cache holds of these."""
        for sequence in sequences:
            slot = sequence.slot
            assert slot is not None
            context.cut(slot.number, 0)
            self._slots.forget(slot)
            self._fail(sequence, RuntimeFailure(f"llama.cpp cannot compute the step (code {code})"))

    def _has_room(self, context: Context, sequence: Sequence) -> bool:
        """Whether one more token fits the window, after a shift where need be; else the answer ends here."""
        slot = sequence.slot
        assert slot is not None
        length = len(slot.tokens) + sequence.prompt.surplus
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
        self._slots.note(slot)
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

    def _embeds(self) -> Embedder:
        """What embeds; models that generate get it with the first text. Raises LoadFailed."""
        with self._making_embedder:
            if self._embedder is None:
                self._embedder = Embedder(self._model, self._settings, self._threads)
            return self._embedder

    def facts(self) -> dict[str, Any]:
        """What the supervisor wants to know of a runner that is ready."""
        return {
            "context_length": self.context_length,
            "parallel": self.parallel,
            "weights_bytes": self._model.size,
            "is_on_gpu": self._settings.num_gpu != 0 and self._model.offloads,
        }


def _projector(model: Model, settings: RunnerSettings, threads: int) -> Projector | None:
    """What sees images; None for a model without. Raises LoadFailed."""
    if not settings.projector:
        return None
    from runtime.runner.vision import Projector  # noqa: PLC0415  # its libraries are for those who have one

    return Projector(
        settings.projector,
        model,
        threads=threads,
        use_gpu=settings.num_gpu != 0 and model.offloads,
        most_cells=settings.context_length // 2,  # one photo should not be all that is talked about
    )


def _slot_number(sequence: Sequence) -> int:
    return -1 if sequence.slot is None else sequence.slot.number
