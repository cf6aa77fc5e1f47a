"""Texts to vectors and scores: inputs of all calls share every step, and no call waits for another's end."""

from __future__ import annotations

from collections import deque
from functools import cached_property

import llama_cpp.llama_cpp as ll

from runtime.errors import InputInvalid, RuntimeFailure
from runtime.failures import error_event
from runtime.runner.embed_job import EmbedJob, PairTokens, Vector, input_tokens
from runtime.runner.library import Model, Vocabulary
from runtime.runner.pooling import POOLING_RANK, Abandoned, Lane, Part, lane_of
from runtime.runner.sequence import Sink
from runtime.runner.settings import RunnerSettings

__all__ = ["EmbedJob", "Embedder"]


class Embedder:
    """The jobs of one model. Not for several threads, apart from `job` and `rank_job`."""

    def __init__(self, model: Model, settings: RunnerSettings, threads: int) -> None:
        """Raises LoadFailed."""
        self._model, self._settings, self._threads = model, settings, threads
        self.limit = max(min(settings.context_length, model.trained_context or settings.context_length), 1)
        self.ranks = model.pooling == POOLING_RANK
        self._jobs: deque[EmbedJob] = deque()
        self._suspects: set[EmbedJob] = set()  # a step that they shared has failed: each is computed alone once
        self._lanes = {self.ranks: self._make_lane(self.ranks)}

    def job(self, inputs: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Read `inputs` into tokens, in any thread. Raises PromptTooLong."""
        vocabulary = self._model.vocabulary
        return EmbedJob(sink, [input_tokens(text, vocabulary, self.limit, truncate=truncate) for text in inputs])

    def rank_job(self, query: str, documents: list[str], sink: Sink, *, truncate: bool) -> EmbedJob:
        """Read a query and each of `documents` into tokens, in any thread. Raises PromptTooLong, InputInvalid."""
        if not self.ranks:
            raise InputInvalid("the model does not rank documents")
        vocabulary, pair = self._model.vocabulary, self._pair
        inputs = [pair.of(query, text, vocabulary, self.limit, truncate=truncate) for text in documents]
        return EmbedJob(sink, inputs, ranks=True)

    def submit(self, job: EmbedJob) -> None:
        """Queue what `job` or `rank_job` made."""
        self._jobs.append(job)

    def cancel(self, job: EmbedJob) -> None:
        """Forget a job, wherever it is."""
        if job in self._jobs:
            self._jobs.remove(job)
        self._suspects.discard(job)
        for lane in self._lanes.values():
            if lane.held is job:
                lane.forget()

    @property
    def has_work(self) -> bool:
        return bool(self._jobs)

    def step(self) -> bool:
        """Compute one batch, of as many jobs as fit, and send what it completes. False where all of them rest."""
        empty = [job for job in self._jobs if job.is_done]
        for job in empty:
            self._end(job)
        held = {lane.held for lane in self._lanes.values()}
        ready = [job for job in self._jobs if not job.sink.is_congested or job in held]
        if not ready:
            return bool(empty)
        first = ready[0]
        self._jobs.remove(first)
        self._jobs.append(first)  # another is the first one next time
        is_alone = first in self._suspects
        sharing = [job for job in ready if job.ranks == first.ranks and job not in self._suspects]
        try:
            lane = self._lanes.get(first.ranks) or self._make_lane(first.ranks)
        except RuntimeFailure as error:
            self._fail(first, error)
            return True
        self._lanes[first.ranks] = lane
        parts = lane.pack([first] if is_alone else sharing)
        if not parts and lane.held is not None:
            parts = lane.pack([lane.held])
        self._compute(lane, parts)
        if not self._jobs:
            lane.rest()
        return True

    def _compute(self, lane: Lane, parts: list[Part]) -> None:
        jobs = list(dict.fromkeys(part.job for part in parts))
        try:
            found = lane.compute(parts)
        except Abandoned:
            for job in jobs:
                self.cancel(job)  # without a word: there is nobody to hear it
            return
        except RuntimeFailure as error:
            lane.wipe()
            if len(jobs) == 1:
                self._fail(jobs[0], error)
            else:
                self._suspects.update(jobs)
            return
        complete: dict[EmbedJob, list[Vector]] = {job: [] for job in jobs}
        for part, vector in zip(parts, found, strict=True):
            if vector is not None:
                complete[part.job].append(vector)
        for job, vectors in complete.items():
            if vectors:
                self._suspects.discard(job)
                job.deliver(vectors)
            if job.is_done:
                self._end(job)

    def _end(self, job: EmbedJob) -> None:
        job.finish()
        self._jobs.remove(job)

    def _fail(self, job: EmbedJob, error: RuntimeFailure) -> None:
        job.sink.send(error_event(error))
        self.cancel(job)

    def _make_lane(self, ranks: bool) -> Lane:
        return lane_of(self._model, self._settings, self._threads, self.limit, ranks=ranks)

    @cached_property
    def _pair(self) -> PairTokens:
        template = ll.llama_model_chat_template(self._model.pointer, b"rerank")
        vocabulary = self._model.vocabulary
        return _pair_tokens(self._model, vocabulary, template.decode("utf-8", "replace") if template else None)


def _pair_tokens(model: Model, vocabulary: Vocabulary, template: str | None) -> PairTokens:
    vocab = ll.llama_model_get_vocab(model.pointer)
    separator = vocabulary.separator if ll.llama_vocab_get_add_sep(vocab) else None
    end = vocabulary.end if vocabulary.end is not None else vocabulary.separator
    end = end if ll.llama_vocab_get_add_eos(vocab) else None
    return PairTokens(
        template,
        opening=_there(vocabulary.begin if vocabulary.adds_begin else None),
        between=_there(end, separator),
        closing=_there(end if end is not None else separator),
    )


def _there(*tokens: int | None) -> tuple[int, ...]:
    return tuple(token for token in tokens if token is not None)
