"""An answer as it grows: the runner's pieces, with reasoning, content and tool calls told apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flask import Response

from runtime.api.replies import ndjson, one_object, streamed
from runtime.api.serving import Call
from runtime.errors import RunnerGone
from runtime.messages import Done, GenerateRequest
from runtime.parsing.calls import AnswerParser, Parsed, ToolCall
from runtime.supervisor.lease import Lease

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some text of the answer, under what it is."""

    parsed: Parsed
    logprobs: list[JSON] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A request that has its runner. `load_ns`: from the request's arrival until then.

    is_cut: what the client sent did not fit the context, as far as that is known before the runner has read it.
    """

    call: Call
    lease: Lease
    request: GenerateRequest
    load_ns: int
    parser: AnswerParser
    is_cut: bool = False

    def events(self) -> Iterator[Chunk | Done]:
        """Chunks that say something, then Done. Raises RunnerGone when the runner falls silent before that."""
        for event in self.lease.generate(self.request, is_cancelled=self.call.is_cancelled):
            if isinstance(event, Done):
                if (rest := self.parser.finish()) != Parsed():
                    yield Chunk(rest)
                yield event
                return
            chunk = Chunk(self.parser.feed(event.text), event.logprobs)
            if chunk.parsed != Parsed() or chunk.logprobs:
                yield chunk
        raise RunnerGone("the model runner ended the answer without a word")

    def respond(self, lines: Iterator[JSON], whole: Callable[[Whole], JSON]) -> Response:
        """The answer as `lines`, or made from all of it by `whole` where the client wants no stream."""
        if self.call.body.flag("stream", True):
            return self._marked(ndjson(lines, self.lease.close))
        answer = self.whole()
        return self.answered(answer, one_object(whole(answer)))

    def stream(self, frames: Iterator[bytes], failed: Callable[[Exception], bytes], content_type: str) -> Response:
        """The answer as `frames` of another dialect; see `replies.streamed`."""
        return self._marked(streamed(frames, self.lease.close, failed, content_type))

    def whole(self) -> Whole:
        """The answer read to its end; the runner is given back, whatever happens. Raises RunnerGone."""
        with self.lease:
            return collect(self.events())

    def answered(self, answer: Whole, response: Response) -> Response:
        """`response`, made of the whole answer, with a word in its headers on what did not fit."""
        return self._marked(response, is_cut=answer.done.truncated)

    def _marked(self, response: Response, *, is_cut: bool = False) -> Response:
        if self.is_cut or is_cut:
            response.headers["Tonnage-Truncated"] = "true"
        return response

    def statistics(self, done: Done) -> JSON:
        """The figures of the final object, zeros left out; durations in nanoseconds. `truncated`: something is lost."""
        figures = {
            "total_duration": time.monotonic_ns() - self.call.started_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": done.prompt_tokens,
            "prompt_eval_duration": done.prompt_ns,
            "eval_count": done.tokens,
            "eval_duration": done.tokens_ns,
        }
        lost = {"truncated": True} if self.is_cut or done.truncated else {}
        return {key: figure for key, figure in figures.items() if figure} | lost


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole answer, for `stream: false`."""

    thinking: str
    content: str
    calls: tuple[ToolCall, ...]
    logprobs: list[JSON]
    done: Done


def collect(events: Iterator[Chunk | Done]) -> Whole:
    """Read an answer to its end."""
    thinking: list[str] = []
    content: list[str] = []
    calls: list[ToolCall] = []
    logprobs: list[JSON] = []
    for event in events:
        if isinstance(event, Done):
            return Whole("".join(thinking), "".join(content), tuple(calls), logprobs, event)
        thinking.append(event.parsed.thinking)
        content.append(event.parsed.content)
        calls += event.parsed.calls
        logprobs += event.logprobs or []
    raise RunnerGone("the model runner ended the answer without a word")
