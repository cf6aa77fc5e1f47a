"""The one door to llama.cpp: models, vocabularies, contexts and batches, over its C interface.

Nothing here knows of requests. Pointers stay inside; what comes out are ints, bytes and arrays.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import llama_cpp.llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputInvalid, LoadFailed
from runtime.runner.loading import add_adapters, load_adapter, load_weights
from runtime.runner.settings import RunnerSettings

POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST = range(4)
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ, a constant of the build
_CACHE_TYPES = {"f16": ll.GGML_TYPE_F16, "q8_0": ll.GGML_TYPE_Q8_0, "q4_0": ll.GGML_TYPE_Q4_0}
_LOG_CONTINUES, _LOG_INFO, _LOG_WARN, _LOG_ERROR = 5, 2, 3, 4
_BUFFER_SIZE = re.compile(rb"(\S+)\s+\w+ buffer size =\s*(\d{1,9}\.\d+) MiB")  # which buffers, and how much
_HOST_BUFFERS = (b"CPU", b"AMX", b"BLAS")
_BESIDE = b"fallback to CPU"  # said of every matrix of an adapter whose weight is kept in another order
_PIECE_BYTES = 256
_LOOK_EVERY_S = 0.05
_NEVER_ABORT = ll.ggml_abort_callback(0)
ABANDONED = 2  # of Context.decode


class Log:
    """What llama.cpp says: warnings and errors go to stderr, and the last error is kept to explain a failed load.

    host_bytes, device_bytes: what it says it has taken of the machine's memory and of accelerators', files that it
    maps counted whole.
    """

    _callback: ClassVar[Any] = None

    def __init__(self) -> None:
        self.last_error = ""
        self.host_bytes = self.device_bytes = 0
        self._level = 0
        Log._callback = ll.llama_log_callback(self._take)  # kept for as long as C may call it
        ll.llama_log_set(Log._callback, None)

    def _take(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUES else level
        if self._level == _LOG_INFO:
            self._measure(text)
        if self._level not in {_LOG_WARN, _LOG_ERROR} or _BESIDE in text:
            return
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        if self._level == _LOG_ERROR and "failed to load model" not in line:
            self.last_error = line.strip()

    def _measure(self, text: bytes) -> None:
        taken = _BUFFER_SIZE.search(text)
        if taken is None:
            return
        size = round(float(taken[2]) * 2**20)
        if taken[1].startswith(_HOST_BUFFERS) or taken[1].endswith(b"_Host"):
            self.host_bytes += size
        else:
            self.device_bytes += size


class Vocabulary:
    """Tokens and their spelling. Threads may share it."""

    def __init__(self, model: Any) -> None:
        self._vocab = ll.llama_model_get_vocab(model)
        self.size = int(ll.llama_vocab_n_tokens(self._vocab))
        self.has_text = bool(ll.llama_vocab_type(self._vocab) != ll.LLAMA_VOCAB_TYPE_NONE)
        self.begin = self._optional(ll.llama_vocab_bos)
        self.end = self._optional(ll.llama_vocab_eos)
        self.separator = self._optional(ll.llama_vocab_sep)
        self.adds_begin = self.begin is not None and bool(ll.llama_vocab_get_add_bos(self._vocab))
        self._pieces: dict[int, bytes] = {}  # bounded by the vocabulary

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool = True, most: int | None = None
    ) -> list[int]:
        """Token ids of `text`. add_special: put those around it that the model wants. parse_special: special tokens
        that are spelt out in it are meant. Raises InputInvalid where there are more than `most`.
        """
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 16  # a token has at least one byte; the rest is for special ones
        tokens = (ll.llama_token * room)()
        count = ll.llama_tokenize(self._vocab, raw, len(raw), tokens, room, add_special, parse_special)
        if count < 0:
            tokens = (ll.llama_token * -count)()
            count = ll.llama_tokenize(self._vocab, raw, len(raw), tokens, -count, add_special, parse_special)
        if most is not None and count > most:
            raise InputInvalid(f"the text has {count} tokens, and {most} are the most of one call")
        return list(tokens[: max(count, 0)])

    def piece(self, token: int) -> bytes:
        """The bytes of one token, special ones spelt out."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(token)
        return known

    def special(self, texts: Iterable[str]) -> frozenset[int]:
        """The control tokens that are spelt as one of `texts`."""
        spelt = (self.tokenize(text, add_special=False) for text in texts)
        return frozenset(tokens[0] for tokens in spelt if len(tokens) == 1 and self.is_control(tokens[0]))

    def shown(self, token: int, special: frozenset[int]) -> bytes:
        """The bytes of one token of an answer; none for a control token that is not among `special`."""
        return b"" if self.is_control(token) and token not in special else self.piece(token)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`. Raises InputInvalid."""
        self.check(tokens)
        return b"".join(map(self.piece, tokens)).decode("utf-8", "replace")

    def check(self, tokens: Sequence[int]) -> None:
        """Raise InputInvalid unless each of `tokens` is one of ours."""
        if any(isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.size for token in tokens):
            raise InputInvalid("a token id is not in the model's vocabulary")

    def is_end(self, token: int) -> bool:
        """Whether the model ends its answer with `token`."""
        return bool(ll.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether `token` marks structure, and is no text that could be part of an answer."""
        return bool(ll.llama_vocab_is_control(self._vocab, token))

    def _read_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        length = ll.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = ll.llama_token_to_piece(self._vocab, token, buffer, -length, 0, True)
        return buffer.raw[: max(length, 0)]

    def _optional(self, get: Callable[[Any], int]) -> int | None:
        token = int(get(self._vocab))
        return token if 0 <= token < self.size else None


class Model:
    """Weights, mapped."""

    def __init__(self, settings: RunnerSettings, log: Log, on_progress: Callable[[float], None]) -> None:
        """Load the files of `settings`. Raises LoadFailed with llama.cpp's own words."""
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.n_gpu_layers = settings.num_gpu
        params.main_gpu = settings.main_gpu or 0
        params.vocab_only = settings.vocabulary_only
        params.load_mode = ll.LLAMA_LOAD_MODE_NONE if settings.use_mmap is False else ll.LLAMA_LOAD_MODE_MMAP

        @ll.llama_progress_callback  # type: ignore[untyped-decorator]
        def report(progress: float, _: Any) -> bool:
            on_progress(progress)
            return True

        params.progress_callback = report
        self.pointer = load_weights(settings, params)
        if not self.pointer:
            raise LoadFailed(log.last_error or "llama.cpp cannot load the model")
        self.adapters = [self._load_adapter(path, log) for path in settings.adapters]
        self.vocabulary = Vocabulary(self.pointer)
        self.size = int(ll.llama_model_size(self.pointer))
        self.trained_context = int(ll.llama_model_n_ctx_train(self.pointer))
        self.embedding_width = int(ll.llama_model_n_embd_out(self.pointer))
        self.offloads = bool(ll.llama_supports_gpu_offload())
        self.window = int(ll.llama_model_n_swa(self.pointer))  # tokens that some layers look back; 0 is all of them
        self.has_state = bool(ll.llama_model_is_recurrent(self.pointer) or ll.llama_model_is_hybrid(self.pointer))

    def _load_adapter(self, path: str, log: Log) -> Any:
        """A LoRA adapter, which lives as long as the model. Raises LoadFailed."""
        pointer = load_adapter(self.pointer, path)
        if not pointer:
            raise LoadFailed(log.last_error or "llama.cpp cannot load the adapter")
        return pointer

    def metadata(self, key: str) -> str | None:
        """The value of a key of the GGUF header, as text."""
        buffer = ctypes.create_string_buffer(256)
        length = ll.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    @property
    def pooling(self) -> int:
        """How the model wants tokens' vectors joined; POOLING_NONE where it does not say."""
        value = self.metadata(f"{self.metadata('general.architecture')}.pooling_type")
        return int(value) if value is not None and value.isdigit() else POOLING_NONE


class Batch:
    """The input of one step. Arrays of `capacity` that llama.cpp reads in place; filled anew for every step."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._sequence_at = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uintp) * 4
        self.raw = ll.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ll.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ll.llama_pos)),
            n_seq_id=self._ones.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._sequence_at.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ll.llama_seq_id))),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def clear(self) -> None:
        self.size = 0

    def add(self, token: int, position: int, sequence: int) -> int:
        """Put in one token whose logits are wanted. Returns its index in the step."""
        at = self.size
        self._tokens[at] = token
        self._positions[at] = position
        self._sequences[at] = sequence
        self._outputs[at] = 1
        self.size = at + 1
        return at

    def add_slice(self, tokens: Sequence[int], position: int, sequence: int, *, wants_last: bool) -> int:
        """Put in consecutive tokens of a prompt. wants_last: logits of the last one. Returns its index in the step."""
        start, end = self.size, self.size + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._sequences[start:end] = sequence
        self._outputs[start:end] = 0
        self._outputs[end - 1] = wants_last
        self.size = end
        return end - 1

    def want_all(self) -> None:
        """Mark every token as an output, as embedding contexts expect."""
        self._outputs[: self.size] = 1


class Context:
    """A KV cache and the buffers to compute with it. Not for several threads."""

    def __init__(self, model: Model, *, cells: int, sequences: int, step_tokens: int, threads: int,
                 settings: RunnerSettings, embeds: bool = False, pooling: int = POOLING_NONE) -> None:  # fmt: skip
        """cells: tokens in all sequences together. step_tokens: the most of one step. Raises LoadFailed.

        Sequences that generate have cells of their own, an equal part each: attention then has the same shape however
        many there are, so that an answer does not depend on who else is served, and no time goes into masked cells of
        others. Short inputs to be embedded share all cells instead.
        """
        params = ll.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = step_tokens
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = embeds  # see above
        params.swa_full = False  # layers with a window keep the window only
        params.no_perf = True
        params.type_k = params.type_v = _CACHE_TYPES.get(settings.kv_cache_type, ll.GGML_TYPE_F16)
        if settings.flash_attention is not None:
            params.flash_attn_type = int(settings.flash_attention)
        if embeds:
            params.embeddings, params.pooling_type = True, pooling
        else:
            params.n_outputs_max = sequences  # logits are wanted after a prompt, not in it: their buffer is the largest
        self.pointer = ll.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise LoadFailed("llama.cpp cannot make a context: not enough memory, or settings it does not support")
        add_adapters(self.pointer, model.adapters)
        self._memory = ll.llama_get_memory(self.pointer)
        self._vocabulary_size = model.vocabulary.size
        self._embedding_width = model.embedding_width
        self._window, self._has_state = model.window, model.has_state
        self.can_shift = bool(self._memory) and bool(ll.llama_memory_can_shift(self._memory))
        self.can_copy = bool(self._memory) and not model.has_state  # a state is of one moment, which is rarely wanted
        self._is_abandoned: Callable[[], bool] | None = None
        self._looks_at = 0.0
        self._abort = ll.ggml_abort_callback(self._should_abort)  # kept: C holds no reference

    @property
    def is_causal(self) -> bool:
        """Whether tokens see only what is before them, so that a sequence may be computed in slices."""
        return bool(self._memory) and bool(ll.llama_get_causal_attn(self.pointer))

    def decode(self, batch: Batch, is_abandoned: Callable[[], bool] | None = None) -> int:
        """Compute one step. 0 is good, 1 means no room in the cache, less than 0 an error.

        is_abandoned: asked now and then while it lasts; once it says yes, nothing of the step is kept, and ABANDONED
        comes back.
        """
        batch.raw.n_tokens = batch.size
        if is_abandoned is None:
            return int(ll.llama_decode(self.pointer, batch.raw))
        with self.watched(is_abandoned):
            return int(ll.llama_decode(self.pointer, batch.raw))

    @contextmanager
    def watched(self, is_abandoned: Callable[[], bool]) -> Iterator[None]:
        """What is computed here is given up once `is_abandoned` says yes."""
        self._is_abandoned, self._looks_at = is_abandoned, time.monotonic() + _LOOK_EVERY_S
        ll.llama_set_abort_callback(self.pointer, self._abort, None)
        try:
            yield
        finally:
            ll.llama_set_abort_callback(self.pointer, _NEVER_ABORT, None)

    def _should_abort(self, _: Any) -> bool:
        """Called between any two operations of a step: some thousand times, so it has to be quick."""
        now = time.monotonic()
        if now < self._looks_at:
            return False
        self._looks_at = now + _LOOK_EVERY_S
        return self._is_abandoned is not None and self._is_abandoned()

    def cut(self, sequence: int, length: int) -> bool:
        """Keep the first `length` positions, to go on from there. False where that cannot be: nothing is left then."""
        if length and self.reaches(sequence, length) and self.drop(sequence, length):
            return True
        self.drop(sequence, 0)
        return not length

    def reaches(self, sequence: int, length: int) -> bool:
        """Whether what a token at `length` looks back on is still there, or the state is that of this moment."""
        if self._has_state:
            return bool(ll.llama_memory_seq_pos_max(self._memory, sequence) == length - 1)
        if not self._window:
            return True
        first = ll.llama_memory_seq_pos_min(self._memory, sequence)  # of the layers with a window; -1 is none at all
        return bool(0 <= first <= max(length - self._window, 0))

    def copy(self, source: int, target: int) -> None:
        """Let `target` have the cells of `source` and no others; only where `can_copy`."""
        ll.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int, start: int, end: int = -1) -> bool:
        """Forget the cells of positions from `start` up to `end` (-1: all that follow). False: it cannot be done."""
        return not self._memory or bool(ll.llama_memory_seq_rm(self._memory, sequence, start, end))

    def move(self, sequence: int, start: int, by: int) -> None:
        """Add `by` to all positions from `start` on."""
        ll.llama_memory_seq_add(self._memory, sequence, start, -1, by)

    def clear(self) -> None:
        """Forget all cells."""
        if self._memory:
            ll.llama_memory_clear(self._memory, False)

    def logits(self, index: int) -> NDArray[np.float32]:
        """(vocabulary,) of the token at `index` of the last step; valid until the next one."""
        return self._array(ll.llama_get_logits_ith(self.pointer, index), self._vocabulary_size)

    def sequence_embedding(self, sequence: int) -> NDArray[np.float32]:
        """(width,) of one sequence of the last step, pooled by llama.cpp; valid until the next one."""
        return self._array(ll.llama_get_embeddings_seq(self.pointer, sequence), self._embedding_width)

    def close(self) -> None:
        if self.pointer:
            ll.llama_free(self.pointer)
            self.pointer = None

    @staticmethod
    def _array(pointer: Any, length: int) -> NDArray[np.float32]:
        if not pointer:
            raise InputInvalid("llama.cpp has no output for this input")
        return np.ctypeslib.as_array(pointer, (length,))
