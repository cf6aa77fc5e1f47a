"""The one door to llguidance: which tokens an answer may go on with, so that it becomes what a JSON Schema says.

Schemas come from anybody, and this process serves others meanwhile: compiling and every step have a bound on their
work, and whatever the engine refuses or stumbles over is a FormatInvalid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from runtime.errors import FormatInvalid
from runtime.runner.library import Vocabulary

# The engine counts work in fuel, 15 to 50 units a microsecond, and states of about 1 kB. An ordinary schema compiles in
# a millisecond; the worst that were found took 0.3 s to compile, 22 ms a step and 30 MB, with 150,000 tokens.
_LIMITS = LLParserLimits(
    max_items_in_row=10_000,
    initial_lexer_fuel=400_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=25_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
_OPTIONS = {
    # one blank, or one line break with an indent: a model that may write blanks for ever sometimes does
    "whitespace_pattern": r"\x20|\r?\n[\x20\t]{0,64}",
    # without \u a key has one spelling, so that no additional property can repeat a declared one
    "json_allowed_escapes": 'nrbtf\\"',
}
_HOPELESS = "no answer can be as the schema wants it"
_SPACE = r"/[\x20\t\r\n]{1,8}/"  # before content


class Matcher:
    """The state of one answer."""

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._size = tokenizer.vocab_size
        self._mask = np.zeros((self._size + 31) // 32, np.int32)

    def allowed(self) -> NDArray[np.intp]:
        """The tokens that may follow, at least one; end tokens only where the answer is complete."""
        _guarded(lambda: self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes))
        self._check()
        bits = np.unpackbits(self._mask.view(np.uint8), count=self._size, bitorder="little")
        found: NDArray[np.intp] = np.flatnonzero(bits)
        if not found.size:
            raise _refusal(_HOPELESS)
        return found

    def take(self, token: int) -> None:
        """`token` follows; it must be allowed."""
        _guarded(lambda: self._matcher.consume_token(token))
        self._check()

    def could_take(self, text: bytes) -> bool:
        tokens = self._tokenizer.tokenize_bytes(text)
        return bool(_guarded(lambda: self._matcher.validate_tokens(tokens)) == len(tokens))

    def take_text(self, text: bytes) -> None:
        for token in self._tokenizer.tokenize_bytes(text):
            self.take(token)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal(self._matcher.get_error())


class Grammars:
    """Compiles schemas for one model. What the engine needs of the vocabulary is made with the first of them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def matcher(self, schema: dict[str, Any], openings: Sequence[str] | None) -> Matcher:
        """A matcher for `schema`. Raises FormatInvalid.

        openings: text that may come instead, and ends what the matcher can tell; None also forbids white space in
        front.
        """
        answer: dict[str, Any] = {"json_schema": {**schema, "x-guidance": _OPTIONS}}
        grammars: list[dict[str, Any]] = [answer]
        if openings is not None:
            answer["name"] = "answer"
            others = "".join(f" | {self._spelt(opening)} SPACE?" for opening in openings)
            grammars = [{"lark_grammar": f"start: SPACE? (@answer{others})\nSPACE: {_SPACE}"}, answer]
        text = json.dumps({"grammars": grammars})
        compiled = _guarded(lambda: LLMatcher(self._tokenizer, text, log_level=0, limits=_LIMITS))
        if compiled.is_error():
            raise _refusal(compiled.get_error())
        return Matcher(compiled, self._tokenizer)

    def piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token)

    def prepare(self) -> None:
        """Read the vocabulary now, a second for a large one, rather than when it is needed. Raises FormatInvalid."""
        _ = self._tokenizer

    @cached_property
    def everything(self) -> NDArray[np.intp]:
        """All tokens."""
        return np.arange(self._vocabulary.size)

    @cached_property
    def without_end(self) -> NDArray[np.intp]:
        """All tokens but those that end an answer."""
        return np.setdiff1d(self.everything, self._ends)

    @cached_property
    def _ends(self) -> list[int]:
        return [token for token in range(self._vocabulary.size) if self._vocabulary.is_end(token)]

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        # slices would double the time and the memory of this to save some 20 microseconds a step
        wrapped = TokenizerWrapper(_Tokens(self._vocabulary, self._ends))
        made: LLTokenizer = _guarded(lambda: LLTokenizer(wrapped, eos_token=self._ends, slices=[]))
        return made

    def _spelt(self, opening: str) -> str:
        """`opening` in the engine's grammar language; control tokens are none of its text."""
        tokens = self._vocabulary.tokenize(opening, add_special=False)
        if not any(map(self._vocabulary.is_control, tokens)):
            return json.dumps(opening)
        return " ".join(
            f"<[{token}]>" if self._vocabulary.is_control(token) else json.dumps(self._vocabulary.text([token]))
            for token in tokens
        )


class _Tokens:
    """The vocabulary as the engine's Python binding wants to see it."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, ends: list[int]) -> None:
        self._vocabulary = vocabulary
        self.tokens = [vocabulary.piece(token) for token in range(vocabulary.size)]
        self.special_token_ids = [token for token in range(vocabulary.size) if vocabulary.is_control(token)]
        if not ends:
            raise FormatInvalid("the model has no token to end an answer with: it cannot be held to a format")
        self.eos_token_id = ends[0]
        special = set(self.special_token_ids)
        self._ids = {piece: token for token, piece in enumerate(self.tokens) if piece and token not in special}
        self._longest = min(max(map(len, self._ids), default=1), 64)

    def __call__(self, text: bytes) -> list[int]:
        """How the model would spell `text`, byte for byte: some tokenizers put a blank in front."""
        tokens = self._vocabulary.tokenize(text.decode("utf-8", "replace"), add_special=False)
        if b"".join(self.tokens[token] for token in tokens) == text:
            return tokens
        return self._greedy(text)

    def _greedy(self, text: bytes) -> list[int]:
        tokens, at = [], 0
        while at < len(text):
            size = next((n for n in range(self._longest, 0, -1) if text[at : at + n] in self._ids), 1)
            if (token := self._ids.get(text[at : at + size])) is not None:
                tokens.append(token)
            at += size
        return tokens


def _guarded(work: Callable[[], Any]) -> Any:
    """What `work` returns. A panic of the engine is no ordinary exception, but no end of this process either."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise _refusal(str(error)) from None


def _refusal(reason: str) -> FormatInvalid:
    if reason.startswith("NoExtension"):
        reason = _HOPELESS
    return FormatInvalid(f"invalid format: {' '.join(reason.removesuffix('<non-verbose/>').split())[:300]}")
