"""Text and tokens, each from the other: what a runner is asked that computes nothing, and a runner that can no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Never

from runtime.errors import InputInvalid, RuntimeFailure
from runtime.runner.library import Vocabulary

MOST_TOKENS = 2**20  # of one call: some 40 MB of numbers here, and as much again where they are read
_MOST_TEXT_BYTES = 8 * 1024**2  # six times as much in JSON, where all of it is control characters
JSON = dict[str, Any]


def answer(op: str, request: JSON, vocabulary: Vocabulary) -> JSON:
    """What is said to "tokenize", "count", "detokenize" and "pieces". Raises InputInvalid."""
    if not vocabulary.has_text:  # llama.cpp aborts when it is asked
        raise InputInvalid("the model has no vocabulary")
    match op:
        case "tokenize":
            return {"event": "done", "tokens": _tokens(request, vocabulary)}
        case "count":
            return {"event": "done", "tokens": _count(request["text"], vocabulary)}
        case "detokenize":
            text = b"".join(_spelt(request["tokens"], vocabulary))
            return {"event": "done", "text": text.decode("utf-8", "replace")}
        case _:
            return {"event": "done", "pieces": list(map(_shown, _spelt(request["tokens"], vocabulary)))}


def _tokens(request: JSON, vocabulary: Vocabulary) -> list[int]:
    return vocabulary.tokenize(
        request["text"],
        add_special=bool(request["add_special"]),
        parse_special=bool(request.get("parse_special", True)),
        most=MOST_TOKENS,
    )


def _count(text: str, vocabulary: Vocabulary) -> int:
    """Of a prompt, the begin token included."""
    tokens = vocabulary.tokenize(text, add_special=False)
    return len(tokens) + (vocabulary.adds_begin and tokens[:1] != [vocabulary.begin])


def _spelt(tokens: Sequence[int], vocabulary: Vocabulary) -> list[bytes]:
    if len(tokens) > MOST_TOKENS:
        raise InputInvalid(f"there are {len(tokens)} tokens, and {MOST_TOKENS} are the most of one call")
    vocabulary.check(tokens)
    spelt, size = [], 0
    for token in tokens:
        piece = vocabulary.piece(token)
        size += len(piece)
        if size > _MOST_TEXT_BYTES:
            raise InputInvalid(f"the text of the tokens is larger than {_MOST_TEXT_BYTES} bytes")
        spelt.append(piece)
    return spelt


def _shown(piece: bytes) -> str | list[int]:
    """As text; as bytes where it is none by itself."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


class WordsOnly:
    """In the place of an `Engine` where no weights are loaded: whatever computes is refused."""

    parallel = 1
    has_work = False

    def prepare(self, *_: object) -> Never:
        raise RuntimeFailure("only the vocabulary of the model is loaded")

    def embed_job(self, *_: object, truncate: bool) -> Never:
        self.prepare(truncate)

    def rank_job(self, *_: object, truncate: bool) -> Never:
        self.prepare(truncate)

    def needs_preparing(self, _op: object) -> bool:
        return False

    def submit(self, task: object) -> None:
        """Nothing is ever prepared."""

    def cancel(self, task: object) -> None:
        """Nothing is ever submitted."""

    def step(self) -> bool:
        return False

    def facts(self) -> JSON:
        """What the supervisor wants to know of a runner that is ready."""
        return {"context_length": 0, "parallel": self.parallel, "weights_bytes": 0, "is_on_gpu": False}
