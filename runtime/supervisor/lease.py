"""A loaded model that stays loaded for as long as it is held, and what it can be asked."""

from __future__ import annotations

import base64
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from runtime.errors import InputInvalid, RequestCancelled, RunnerGone
from runtime.failures import failure
from runtime.messages import Done, GenerateRequest, Piece
from runtime.wire import Channel, FrameInvalid, encode_frame

POLL_S = 0.1  # how often a waiting thread looks whether its client is still there
_CONNECT_S = 10.0
_MOST_NUMBERS = 16 * 1024**2  # of the vectors of one call, which are held at once: 64 MiB, and 200 MB as text
_UNEXPECTED = "the model runner has ended unexpectedly"


def never() -> bool:
    """The `is_cancelled` of a request that nobody gives up."""
    return False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One L2-normalised vector an input, in order; prompt_tokens is the sum over the inputs.

    Arrays, not lists: thousands of vectors are held at once, and a list takes eight times the memory.
    """

    vectors: list[array[float]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well each document answers the query, from 0 to 1, in the order of the documents."""

    scores: list[float]
    prompt_tokens: int


class Lease:
    """One use of a runner. Closing it, or the end of this process, gives it back."""

    def __init__(self, channel: Channel, ready: dict[str, Any], *, load_ns: int) -> None:
        self._channel = channel
        self._socket = str(ready["socket"])
        self._end = ""
        self.context_length = int(ready["context_length"])
        self.load_ns = load_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def generate(self, request: GenerateRequest, *, is_cancelled: Callable[[], bool] = never) -> Iterator[Piece | Done]:
        """The answer as it grows, a Done last. Closing the iterator ends it early and frees the slot.

        Raises RunnerGone, PromptTooLong, InputInvalid, RequestCancelled.
        """
        for event in self._stream({"op": "generate", "request": request.to_json()}, is_cancelled):
            if event["event"] == "piece":
                yield Piece(event["text"], event.get("logprobs"))
            else:
                yield Done.from_json(event)

    def embed(
        self, inputs: Sequence[str], truncate: bool = True, *, is_cancelled: Callable[[], bool] = never
    ) -> Embeddings:
        """A vector for each input. Raises RunnerGone, PromptTooLong, InputInvalid, RequestCancelled.

        InputInvalid, with the first vector, where there are so many inputs that all vectors together are too large.
        """
        vectors: list[array[float]] = []
        prompt_tokens = 0
        for event in self._stream({"op": "embed", "inputs": list(inputs), "truncate": truncate}, is_cancelled):
            if event["event"] == "vectors":
                width = int(event["width"])
                _check_size(len(inputs), width)
                vectors += _unpack(event["data"], width)
                if len(vectors) > len(inputs):
                    raise RunnerGone("the model runner answers what it was not asked")
            else:
                prompt_tokens = int(event["prompt_tokens"])
        return Embeddings(vectors, prompt_tokens)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        truncate: bool = True,
        *,
        is_cancelled: Callable[[], bool] = never,
    ) -> Ranking:
        """A score for each document. Raises RunnerGone, PromptTooLong, InputInvalid, RequestCancelled."""
        scores: list[float] = []
        prompt_tokens = 0
        asked = {"op": "rerank", "query": query, "documents": list(documents), "truncate": truncate}
        for event in self._stream(asked, is_cancelled):
            if event["event"] == "scores":
                scores += map(float, event["data"])
            else:
                prompt_tokens = int(event["prompt_tokens"])
        return Ranking(scores, prompt_tokens)

    def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = True,
        is_cancelled: Callable[[], bool] = never,
    ) -> list[int]:
        """Token ids. add_special: put those in front and at the end that the model wants there. parse_special: special
        tokens that are spelt out in `text` are meant. Raises InputInvalid for too long a text, RequestCancelled.
        """
        asked = {"op": "tokenize", "text": text, "add_special": add_special, "parse_special": parse_special}
        return [int(token) for token in self._ask(asked, is_cancelled)["tokens"]]

    def detokenize(self, tokens: Sequence[int], *, is_cancelled: Callable[[], bool] = never) -> str:
        """The text of `tokens`, special ones spelt out. Raises InputInvalid for an id the model does not have, or too
        long a text, RequestCancelled.
        """
        return str(self._ask({"op": "detokenize", "tokens": list(tokens)}, is_cancelled)["text"])

    def pieces(self, tokens: Sequence[int], *, is_cancelled: Callable[[], bool] = never) -> list[str | list[int]]:
        """The text of each of `tokens`, or its bytes where they are no text alone. Raises as `detokenize` does."""
        told = self._ask({"op": "pieces", "tokens": list(tokens)}, is_cancelled)["pieces"]
        return [piece if isinstance(piece, list) else str(piece) for piece in told]

    def count(self, text: str, *, is_cancelled: Callable[[], bool] = never) -> int:
        """How many tokens `text` is as a prompt, the begin token included. Raises RequestCancelled."""
        return int(self._ask({"op": "count", "text": text}, is_cancelled)["tokens"])

    def _ask(self, request: dict[str, Any], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        answer = {}
        for event in self._stream(request, is_cancelled):
            answer = event
        return answer

    def _stream(self, request: dict[str, Any], is_cancelled: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """The events of one request, up to and with its last one."""
        try:
            frame = encode_frame(request)
        except FrameInvalid as error:
            raise InputInvalid(f"the request cannot be passed on: {error}") from None
        try:
            channel = self._connect(is_cancelled)
        except OSError:
            raise self._gone() from None
        try:
            self._send(channel, frame, is_cancelled)
            yield from self._events(channel, is_cancelled)
        except (OSError, FrameInvalid):
            raise self._gone() from None
        finally:
            channel.close()

    def _connect(self, is_cancelled: Callable[[], bool]) -> Channel:
        while True:
            try:
                return Channel.connect(self._socket, timeout_s=_CONNECT_S)
            except BlockingIOError:  # so many wait at its door already: it opens between two steps
                self._check(is_cancelled)
            time.sleep(POLL_S)  # until the runner ends: nobody tells when there is room again

    def _send(self, channel: Channel, frame: bytes, is_cancelled: Callable[[], bool]) -> None:
        """Send a frame that may be larger than a socket holds: a runner reads between two steps, which may be long."""
        left = memoryview(frame)
        while left:
            try:
                left = left[channel.send_some(left, timeout_s=POLL_S) :]
            except TimeoutError:
                self._check(is_cancelled)

    def _check(self, is_cancelled: Callable[[], bool]) -> None:
        """Raises RequestCancelled, and ConnectionResetError where the runner is known to have ended."""
        if is_cancelled():
            raise RequestCancelled("request canceled")
        if self._has_ended(within_s=0):
            raise ConnectionResetError

    def _events(self, channel: Channel, is_cancelled: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        looked = time.monotonic()
        while True:
            now = time.monotonic()
            if now - looked >= POLL_S:
                looked = now
                if is_cancelled():
                    raise RequestCancelled("request canceled")
            try:
                event = channel.receive(timeout_s=POLL_S)
            except TimeoutError:
                continue
            if event is None:
                raise ConnectionResetError
            if event["event"] == "error":
                raise failure(event)
            yield event
            if event["event"] == "done":
                return

    def _gone(self) -> RunnerGone:
        """Why the runner's socket closed, if the supervisor knows already."""
        self._has_ended(within_s=1.0)
        return RunnerGone(self._end or _UNEXPECTED)

    def _has_ended(self, *, within_s: float) -> bool:
        """Whether the supervisor says so, or is gone itself: then its runners are, too."""
        if self._end:
            return True
        try:
            event = self._channel.receive(timeout_s=within_s)
        except (BlockingIOError, TimeoutError):
            return False
        except (OSError, FrameInvalid):
            event = None
        self._end = str(event["message"]) if event is not None and event.get("event") == "gone" else _UNEXPECTED
        return True


def _check_size(inputs: int, width: int) -> None:
    """Raises InputInvalid for vectors that are together larger than an answer may be, RunnerGone for none at all."""
    if width < 1:
        raise RunnerGone("the model runner answers with vectors of no width")
    if inputs * width > _MOST_NUMBERS:
        raise InputInvalid(
            f"too many inputs: {inputs} vectors of {width} numbers, and {_MOST_NUMBERS // width} are the most of one "
            "call with this model"
        )


def _unpack(data: str, width: int) -> list[array[float]]:
    """Vectors of `width` from base64 of little-endian float32."""
    flat = array("f")
    flat.frombytes(base64.b64decode(data))
    return [flat[start : start + width] for start in range(0, len(flat), width)]
