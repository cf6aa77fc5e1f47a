"""Logits to token ids, by a chain of llama.cpp's samplers that belongs to one sequence."""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Sequence

import llama_cpp.llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

from runtime.options import SampleOptions
from runtime.runner.library import Context, Vocabulary

_SEEDS = 2**32
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Sampler:
    """The chain in llama.cpp's common order: penalties, top-k, typical, top-p, min-p, temperature, then the draw.

    Steps that would change nothing are left out. Close it: the memory is C's.
    """

    def __init__(self, options: SampleOptions, vocabulary: Vocabulary, context_length: int) -> None:
        """context_length: bounds how far penalties look back, whatever `repeat_last_n` says."""
        self._chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        self._window = _penalty_window(options, context_length)
        if self._window:
            self._add(
                ll.llama_sampler_init_penalties(
                    vocabulary.size,
                    self._window,
                    options.repeat_penalty,
                    options.frequency_penalty,
                    options.presence_penalty,
                )
            )
        self._takes_likeliest = options.temperature <= 0 and not self._window
        if options.temperature <= 0:
            self._add(ll.llama_sampler_init_greedy())
        else:
            self._add_draw(options)

    def read_prompt(self, tokens: Sequence[int]) -> None:
        """Let penalties count the end of the prompt as well."""
        for token in tokens[-self._window :] if self._window else ():
            ll.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, index: int) -> int:
        """The token that follows the one at `index` of the last step; it counts for penalties from now on."""
        if self._takes_likeliest:  # as the chain would, without a list of all candidates: a quarter of the time
            return int(context.logits(index).argmax())
        return int(ll.llama_sampler_sample(self._chain, context.pointer, index))

    def draw(self, logits: NDArray[np.float32], allowed: NDArray[np.intp]) -> int:
        """One of the tokens `allowed`, at least one; the others might not exist. logits: (vocabulary,), left as it is.

        The token counts for nothing until `accept`.
        """
        candidates = np.empty(len(allowed), _CANDIDATE)
        candidates["id"], candidates["logit"], candidates["p"] = allowed, logits[allowed], 0
        pointer = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(ll.llama_token_data))
        array = ll.llama_token_data_array(data=pointer, size=len(allowed), selected=-1, sorted=False)
        ll.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def accept(self, token: int) -> None:
        """Let penalties count `token` from now on."""
        ll.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            ll.llama_sampler_free(self._chain)
            self._chain = None

    def _add_draw(self, options: SampleOptions) -> None:
        if options.top_k > 0:
            self._add(ll.llama_sampler_init_top_k(options.top_k))
        if 0 < options.typical_p < 1:
            self._add(ll.llama_sampler_init_typical(options.typical_p, 1))
        if options.top_p < 1:
            self._add(ll.llama_sampler_init_top_p(max(options.top_p, 0.0), 1))
        if options.min_p > 0:
            self._add(ll.llama_sampler_init_min_p(min(options.min_p, 1.0), 1))
        self._add(ll.llama_sampler_init_temp(options.temperature))
        seed = options.seed % _SEEDS if options.seed >= 0 else secrets.randbelow(_SEEDS - 1)
        self._add(ll.llama_sampler_init_dist(seed))

    def _add(self, sampler: object) -> None:
        ll.llama_sampler_chain_add(self._chain, sampler)


def _penalty_window(options: SampleOptions, context_length: int) -> int:
    """How many tokens back penalties look; 0 where they are off."""
    if options.repeat_penalty == 1.0 and options.presence_penalty == 0.0 and options.frequency_penalty == 0.0:
        return 0
    return context_length if options.repeat_last_n < 0 else min(options.repeat_last_n, context_length)
