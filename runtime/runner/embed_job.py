"""The inputs of one call to be embedded or ranked: read into tokens, and answered in their order."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputInvalid, PromptTooLong
from runtime.runner.library import Vocabulary
from runtime.runner.sequence import Sink

TOO_LONG = "the input length exceeds the context length"
_SMALLEST_NORM = 1e-12
_PLACEHOLDER = re.compile(r"\{(query|document)\}")
Vector = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class EmbedJob:
    """One call. `inputs` are token ids, of which the first `done` have been answered.

    ranks: what is computed for an input is one score, how well a document answers a query; else it is a vector.
    """

    sink: Sink
    inputs: list[list[int]]
    ranks: bool = False
    done: int = 0
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = sum(map(len, self.inputs))

    @property
    def is_done(self) -> bool:
        return self.done == len(self.inputs)

    def deliver(self, found: list[Vector]) -> None:
        """Send what the next inputs came to."""
        self.done += len(found)
        if self.ranks:
            self.sink.send({"event": "scores", "data": [float(vector[0]) for vector in found]})
        else:
            data = base64.b64encode(np.stack(found).astype("<f4").tobytes()).decode("ascii")
            self.sink.send({"event": "vectors", "width": len(found[0]), "data": data})

    def finish(self) -> None:
        self.sink.send({"event": "done", "prompt_tokens": self.prompt_tokens})


def input_tokens(text: str, vocabulary: Vocabulary, limit: int, *, truncate: bool) -> list[int]:
    """The tokens of one input with the special ones around it, the text's tail cut to `limit`. Raises PromptTooLong."""
    tokens = vocabulary.tokenize(text, add_special=True)
    if not tokens:
        fallback = vocabulary.begin if vocabulary.begin is not None else vocabulary.end
        return [fallback or 0]  # an empty text has a vector, too
    if len(tokens) <= limit:
        return tokens
    if not truncate:
        raise PromptTooLong(TOO_LONG)
    closing = tokens[-1:] if tokens[-1] in {vocabulary.end, vocabulary.separator} else []
    return tokens[: max(limit - len(closing), 0)] + closing[:limit]


@dataclass(frozen=True, slots=True)
class PairTokens:
    """How a query and a document become one input.

    template: the model's own words with {query} and {document} in them; None puts special tokens around the two:
    `opening` query `between` document `closing`, which is [CLS] query [SEP] document [SEP] for BERT and its kin.
    """

    template: str | None
    opening: tuple[int, ...]
    between: tuple[int, ...]
    closing: tuple[int, ...]

    def of(self, query: str, document: str, vocabulary: Vocabulary, limit: int, *, truncate: bool) -> list[int]:
        """The document's tail is cut to `limit` tokens in all. Raises PromptTooLong; a query is never cut."""
        if self.template is not None:
            return self._filled(self.template, query, document, vocabulary, limit, truncate=truncate)
        asked = (*self.opening, *vocabulary.tokenize(query, add_special=False), *self.between)
        found = vocabulary.tokenize(document, add_special=False)
        room = limit - len(asked) - len(self.closing)
        if room < min(len(found), 1) or (len(found) > room and not truncate):
            raise PromptTooLong(TOO_LONG)
        return [*asked, *found[:room], *self.closing]

    def _filled(
        self, template: str, query: str, document: str, vocabulary: Vocabulary, limit: int, *, truncate: bool
    ) -> list[int]:
        for _ in range(4):  # cut text may have more tokens than the cut tokens were, though hardly twice
            texts = {"query": query, "document": document}
            filled = _PLACEHOLDER.sub(lambda found, texts=texts: texts[found[1]], template)  # type: ignore[misc]
            tokens = vocabulary.tokenize(filled, add_special=False)
            if len(tokens) <= limit:
                return tokens
            if not truncate:
                break
            inner = vocabulary.tokenize(document, add_special=False)
            document = vocabulary.text(inner[: max(len(inner) - (len(tokens) - limit), 0)])
        raise PromptTooLong(TOO_LONG)


def normalise(vector: Vector) -> Vector:
    """(width,) of unit length. Raises InputInvalid where a number is none."""
    wide = vector.astype(np.float64)
    if not np.isfinite(wide).all():
        raise InputInvalid("embedding contains NaN or Inf values")
    unit: Vector = (wide / max(float(np.linalg.norm(wide)), _SMALLEST_NORM)).astype(np.float32)
    return unit


def relevance(logit: float) -> float:
    """A score between 0 and 1, in the order of the logits. Raises InputInvalid where it is no number."""
    if not math.isfinite(logit):
        raise InputInvalid("embedding contains NaN or Inf values")
    smaller = math.exp(-abs(logit))  # never overflows
    return (1.0 if logit >= 0 else smaller) / (1.0 + smaller)
