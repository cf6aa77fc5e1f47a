"""The tokens of a prompt: begin token once, ids checked, cut to the window where that is allowed."""

from __future__ import annotations

from runtime.errors import InputInvalid, PromptTooLong
from runtime.messages import GenerateRequest
from runtime.runner.library import Vocabulary

_TOO_LONG = "the prompt is longer than the context length currently available to the model"
_ADVICE = "; shorten the prompt, adjust the context length in settings, or use a model with a longer context length"


def prompt_tokens(request: GenerateRequest, vocabulary: Vocabulary, context_length: int) -> tuple[list[int], bool]:
    """The token ids to compute, and whether some of the prompt was cut away.

    Raises InputInvalid for ids that are none of the model's, PromptTooLong where the prompt may not be cut.
    """
    vocabulary.check(request.context)
    tokens = [*request.context, *vocabulary.tokenize(request.prompt, add_special=False)]
    begin = vocabulary.begin
    if begin is not None and (vocabulary.adds_begin or not tokens) and tokens[:1] != [begin]:
        tokens.insert(0, begin)
    if not tokens:
        raise InputInvalid("the prompt has no tokens")
    if len(tokens) <= context_length:
        return tokens, False
    if not request.truncate:
        raise PromptTooLong(f"{_TOO_LONG}: {len(tokens)} tokens of {context_length}{_ADVICE}")
    if not request.shift:
        raise PromptTooLong(_TOO_LONG + _ADVICE)
    keep = kept_tokens(request.options.num_keep, len(tokens), context_length, adds_begin=vocabulary.adds_begin)
    newest = context_length - max((context_length - keep) // 2, 1) - keep
    return tokens[:keep] + tokens[len(tokens) - newest :], True


def kept_tokens(num_keep: int, prompt_length: int, context_length: int, *, adds_begin: bool) -> int:
    """How many tokens at the beginning are never dropped. A negative `num_keep` means the whole prompt."""
    wanted = prompt_length if num_keep < 0 else num_keep + adds_begin
    return max(min(wanted, context_length - 1), 0)
