"""One prompt being completed: what it was asked for, how far it is, and when it ends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

from runtime.messages import Done, GenerateRequest
from runtime.runner import logprobs
from runtime.runner.constrained import Constrained
from runtime.runner.grammar import Grammars
from runtime.runner.library import Context, Vocabulary
from runtime.runner.prompt import Prompt, kept_tokens
from runtime.runner.sampler import Sampler
from runtime.runner.slots import Slot
from runtime.runner.text import AnswerText
from runtime.structured.schema import Constraint

_MOST_CONTEXTS = 10  # an answer without a bound ends after so many windows
_MOST_REPEATS = 30  # more identical tokens than this in a row, and nothing else will follow


class Sink(Protocol):
    """Where the events of one request go."""

    def send(self, event: dict[str, Any]) -> None:
        """Pass on one event; never waits."""

    @property
    def is_congested(self) -> bool:
        """Whether the reader has fallen so far behind that its sequence should rest."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody reads any more. Quick, and asked from the engine's thread alone."""


class Sequence:
    """A request in a runner. The engine moves it; `slot` is set while it computes."""

    def __init__(
        self,
        request: GenerateRequest,
        prompt: Prompt,
        sink: Sink,
        vocabulary: Vocabulary,
        *,
        context_length: int,
        grammars: Grammars,
    ) -> None:
        self.sink = sink
        self.shifts, self.caller = request.shift, request.caller
        self.prompt, self._truncated = prompt, prompt.is_cut
        self.keep = kept_tokens(
            request.options.num_keep, len(prompt.tokens), context_length, adds_begin=vocabulary.adds_begin
        )
        self.slot: Slot | None = None
        self.read = 0  # tokens of the prompt that are in the cache
        self.next_token = -1  # sampled, and not in the cache yet
        self._request = replace(request, prompt="", context=(), images=())  # which have become the prompt
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._text = AnswerText(request.options.stop)
        self._special = vocabulary.special((*request.special, *request.options.stop))
        self._entries = logprobs.PendingEntries() if request.top_logprobs is not None else None
        self._answer: list[int] | None = [] if request.want_tokens else None
        bound = _MOST_CONTEXTS * context_length
        self._limit = min(request.options.num_predict, bound) if request.options.num_predict > 0 else bound
        self._count = self._repeats = 0
        self._began_ns = self._answering_ns = 0
        self._sampler: Sampler | None = None
        self._grammars = grammars
        self._constraint = Constraint.from_json(request.format) if request.format is not None else None
        self._constrained: Constrained | None = None

    def begin(self, slot: Slot, shared: int) -> None:
        """Take `slot`, whose cache holds the first `shared` tokens of the prompt already. Raises FormatInvalid."""
        self.slot, self.read = slot, shared
        self._began_ns = time.monotonic_ns()
        self._sampler = Sampler(self._request.options, self._vocabulary, self._context_length)
        self._sampler.read_prompt(self.prompt.text())
        if self._constraint is not None:  # compiled now, not on arrival: those who wait hold no grammars
            self._constrained = Constrained(self._constraint, self._request.thought, self._grammars)

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are not in the cache yet."""
        return len(self.prompt.tokens) - self.read

    def advance(self, context: Context, index: int) -> str | None:
        """Draw the next token from the logits at `index` and show its text. Returns why the answer ends, or None.

        Raises FormatInvalid where the answer cannot go on as its format wants it.
        """
        token = self._draw(context, index)
        if not self._count:
            self._answering_ns = time.monotonic_ns()
        self._count += 1
        self._repeats = self._repeats + 1 if token == self.next_token else 1
        self.next_token = token
        if self._vocabulary.is_end(token):
            return "stop"
        if self._answer is not None:
            self._answer.append(token)
        self._show(context, index, token)
        is_unfinished = self._constrained is not None and not self._constrained.is_complete
        if self._text.is_stopped or (self._constrained is not None and not is_unfinished):
            return "stop"
        if self._repeats > _MOST_REPEATS:
            return "length" if is_unfinished else "stop"
        return "length" if self._count >= self._limit else None

    def finish(self, reason: str) -> None:
        """Send what was held back, then the statistics."""
        rest = self._text.finish()
        entries = self._entries.take(self._text.shown, is_all=not self._text.is_stopped) if self._entries else []
        if rest or entries:
            self._send_piece(rest, entries)
        now = time.monotonic_ns()
        answering = self._answering_ns or now
        done = Done(
            reason=reason,
            prompt_tokens=len(self.prompt.tokens) + self.prompt.surplus,
            prompt_ns=answering - self._began_ns,
            tokens=self._count,
            tokens_ns=now - answering,
            truncated=self._truncated,
            stopped_at=self._text.stopped_at,
            context=None if self._answer is None else self.prompt.text() + self._answer,
        )
        self.sink.send({"event": "done", **done.to_json()})

    def forget(self) -> None:
        """Some of the prompt or the answer left the window."""
        self._truncated = True

    def close(self) -> None:
        """Free what C holds for it, and the images: whoever keeps a sequence keeps no pictures."""
        self.prompt.close()
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    def _draw(self, context: Context, index: int) -> int:
        sampler = self._sampler
        assert sampler is not None
        if self._constrained is None:
            return sampler.sample(context, index)
        logits = context.logits(index)
        token = self._constrained.draw(lambda allowed: sampler.draw(logits, allowed))
        sampler.accept(token)
        return token

    def _show(self, context: Context, index: int, token: int) -> None:
        if self._entries is None:
            text = self._text.feed(self._vocabulary.shown(token, self._special))
            if text:
                self.sink.send({"event": "piece", "text": text})
            return
        start = self._text.received
        text = self._text.feed(self._vocabulary.shown(token, self._special))
        alternatives = self._request.top_logprobs or 0
        self._entries.add(start, logprobs.entry(context.logits(index), token, alternatives, self._vocabulary))
        nothing_held = self._text.received == self._text.shown and not self._text.is_stopped
        entries = self._entries.take(self._text.shown, is_all=nothing_held)
        if text or entries:
            self._send_piece(text, entries)

    def _send_piece(self, text: str, entries: list[dict[str, Any]]) -> None:
        event: dict[str, Any] = {"event": "piece", "text": text}
        if self._entries is not None:
            event["logprobs"] = entries
        self.sink.send(event)
