"""Log-probabilities in the two shapes that the OpenAI API knows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]


def chat_logprobs(entries: Sequence[JSON]) -> JSON:
    """Of chat: one entry a token, with its alternatives. entries: as /api/chat shows them."""
    return {"content": [_token(entry) | {"top_logprobs": _alternatives(entry)} for entry in entries]}


def _alternatives(entry: JSON) -> list[JSON]:
    return [_token(each) for each in entry.get("top_logprobs", [])]


def _token(entry: JSON) -> JSON:
    """bytes: null where the token stands for no text."""
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes")}


class TextLogprobs:
    """Of completions: parallel lists. Offsets count the characters of the answer before each token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def shown(self, entries: Sequence[JSON]) -> JSON:
        """The lists of the next tokens of the answer; no list of alternatives where none were asked for."""
        offsets = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(bytes(entry.get("bytes", ()))))
        tops = [{each["token"]: each["logprob"] for each in entry.get("top_logprobs", [])} for entry in entries]
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": tops if any(tops) else None,
            "text_offset": offsets,
        }
