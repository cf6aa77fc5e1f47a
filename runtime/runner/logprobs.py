"""Log-probabilities of generated tokens, as /api/generate shows them, in step with the text that is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.runner.library import Vocabulary

MOST_ALTERNATIVES = 20


def entry(logits: NDArray[np.float32], token: int, alternatives: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """One token's entry. logits: (vocabulary,), before any sampler."""
    wide = logits.astype(np.float64)
    highest = wide.max()
    total = highest + np.log(np.exp(wide - highest).sum())
    described = _describe(token, wide[token] - total, vocabulary)
    count = min(max(alternatives, 0), MOST_ALTERNATIVES, len(wide))
    if count:
        best = np.argpartition(wide, -count)[-count:]
        best = best[np.argsort(-wide[best], kind="stable")]
        described["top_logprobs"] = [_describe(int(one), wide[one] - total, vocabulary) for one in best]
    return described


def _describe(token: int, logprob: np.float64, vocabulary: Vocabulary) -> dict[str, Any]:
    piece = vocabulary.piece(token)
    described: dict[str, Any] = {"token": piece.decode("utf-8", "replace"), "logprob": max(float(logprob), -1e30)}
    if piece:
        described["bytes"] = list(piece)
    return described


class PendingEntries:
    """Entries whose token's text is still held back."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, dict[str, Any]]] = []

    def add(self, start: int, described: dict[str, Any]) -> None:
        """start: how many characters of the answer were received before the token."""
        self._entries.append((start, described))

    def take(self, shown: int, *, is_all: bool) -> list[dict[str, Any]]:
        """Those whose text begins before `shown`, all where nothing is held; the rest waits."""
        if is_all:
            due, self._entries = self._entries, []
        else:
            due = [pair for pair in self._entries if pair[0] < shown]
            self._entries = self._entries[len(due) :]
        return [described for _, described in due]
