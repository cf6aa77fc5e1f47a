"""A prompt as the cache will hold it: begin token once, ids checked, images in their places, cut where it may be."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import InputInvalid, PromptTooLong, RequestCancelled
from runtime.messages import GenerateRequest
from runtime.runner.library import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from runtime.runner.vision import Image, Projector

_TOO_LONG = "the prompt is longer than the context length currently available to the model"
_ADVICE = "; shorten the prompt, adjust the context length in settings, or use a model with a longer context length"


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """An image in a prompt: the positions it takes, and what is put into the cache there. Read whole or not at all."""

    start: int
    image: Image
    embeddings: NDArray[np.float32]

    @property
    def end(self) -> int:
        return self.start + self.image.positions


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """tokens: an id for each position; those of an image are negative, and made of what it shows.

    is_cut: some of what was asked for is not here. surplus: cells that images take beyond their positions.
    """

    tokens: list[int]
    is_cut: bool = False
    images: tuple[Span, ...] = ()

    @property
    def surplus(self) -> int:
        return sum(span.image.cells - span.image.positions for span in self.images)

    def whole(self, length: int) -> int:
        """The most that may be kept of the first `length` positions: no part of an image."""
        return next((span.start for span in self.images if span.start < length < span.end), length)

    def text(self) -> list[int]:
        """The ids that are tokens."""
        return [token for token in self.tokens if token >= 0] if self.images else self.tokens

    def close(self) -> None:
        for span in self.images:
            span.image.close()

    def part(self, start: int, most: int) -> list[int] | Span:
        """What is read next from `start` on: an image, or up to `most` tokens before one."""
        for span in self.images:
            if span.start == start:
                return span
            if span.start > start:
                most = min(most, span.start - start)
                break
        return self.tokens[start : start + most]


def read_prompt(
    request: GenerateRequest,
    vocabulary: Vocabulary,
    context_length: int,
    projector: Projector | None,
    is_gone: Callable[[], bool],
) -> Prompt:
    """What to compute for `request`. May take long: texts of megabytes, and images.

    is_gone: whether nobody waits for it any more. Raises InputInvalid for ids that are none of the model's and for
    images that cannot be seen, PromptTooLong where the prompt may not be cut, RequestCancelled.
    """
    vocabulary.check(request.context)
    if request.images:
        if projector is None:
            raise InputInvalid("this model has no projector: it cannot see images")
        return _seen(request, vocabulary, context_length, projector, is_gone)
    tokens = _begun([*request.context, *vocabulary.tokenize(request.prompt, add_special=False)], vocabulary)
    if len(tokens) <= context_length:
        return Prompt(tokens)
    if not request.truncate:
        raise PromptTooLong(f"{_TOO_LONG}: {len(tokens)} tokens of {context_length}{_ADVICE}")
    if not request.shift:
        raise PromptTooLong(_TOO_LONG + _ADVICE)
    keep = kept_tokens(request.options.num_keep, len(tokens), context_length, adds_begin=vocabulary.adds_begin)
    newest = context_length - max((context_length - keep) // 2, 1) - keep
    return Prompt(tokens[:keep] + tokens[len(tokens) - newest :], is_cut=True)


def kept_tokens(num_keep: int, prompt_length: int, context_length: int, *, adds_begin: bool) -> int:
    """How many tokens at the beginning are never dropped. A negative `num_keep` means the whole prompt."""
    wanted = prompt_length if num_keep < 0 else num_keep + adds_begin
    return max(min(wanted, context_length - 1), 0)


def _begun(tokens: list[int], vocabulary: Vocabulary) -> list[int]:
    begin = vocabulary.begin
    if begin is not None and (vocabulary.adds_begin or not tokens) and tokens[:1] != [begin]:
        tokens.insert(0, begin)
    if not tokens:
        raise InputInvalid("the prompt has no tokens")
    return tokens


def _seen(
    request: GenerateRequest,
    vocabulary: Vocabulary,
    context_length: int,
    projector: Projector,
    is_gone: Callable[[], bool],
) -> Prompt:
    """A prompt with images. It is never cut: half an image shows nothing."""
    from runtime.runner.vision import Text  # noqa: PLC0415  # its libraries are for runners that have a projector

    try:
        files = [base64.b64decode(image) for image in request.images]
    except ValueError:
        raise InputInvalid("illegal base64 data in an image") from None
    tokens = list(request.context)
    placed: list[tuple[int, Image]] = []
    for part in projector.read(request.prompt, files):
        if isinstance(part, Text):
            tokens += part.tokens
        else:
            placed.append((len(tokens), part))
            tokens += _ids(part)
    begun = len(tokens)
    tokens = _begun(tokens, vocabulary)
    placed = [(start + len(tokens) - begun, image) for start, image in placed]
    if tokens[-1] < 0:
        tokens += vocabulary.tokenize("\n", add_special=False)  # what follows is drawn from a token's logits
    cells = len(tokens) + sum(image.cells - image.positions for _, image in placed)
    if cells > context_length:
        raise PromptTooLong(f"{_TOO_LONG}: {cells} tokens with its images, of {context_length}{_ADVICE}")
    spans = []
    for start, image in placed:
        if is_gone():  # seconds, for each of them
            raise RequestCancelled("request canceled")
        spans.append(Span(start, image, projector.encode(image, caller=request.caller)))
    return Prompt(tokens, images=tuple(spans))


def _ids(image: Image) -> list[int]:
    """An id for each position of an image: the same for the same image, and none of a token."""
    first = int(image.digest[:15], 16) << 16
    return [-1 - (first | place & 0xFFFF) for place in range(image.positions)]
