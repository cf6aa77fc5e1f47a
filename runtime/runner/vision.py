"""Images in prompts: the door to libmtmd, which cuts them up, encodes them and shows them to the model.

An image takes cells of the KV cache as text does; what stands in them are embeddings that a projector computed instead
of tokens. The projector has a backend and threads of its own, so that one thread may encode while another decodes.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as ll
import llama_cpp.mtmd_cpp as mt
import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputInvalid, LoadFailed
from runtime.runner.encoded import EncodedImages
from runtime.runner.library import Context, Model
from runtime.runner.pixels import KEPT_PIXELS, MOST_STRETCH, Pixels, read_pixels

MOST_IMAGES = 32  # of one prompt; each is held as 24 MiB of pixels while the prompt is read
_KEPT_BYTES = 256 * 2**20
_MARKER = re.compile(r"\[img-(0|[1-9]\d{0,3})\]")
_LOG_CONTINUES, _LOG_WARN, _LOG_ERROR = 5, 3, 4
_PROBES, _FITTINGS = 48, 8


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of a prompt, up to the next image. Those that a model wants around its images are among them."""

    tokens: list[int]


class Image:
    """One image of one prompt, as the projector will see it; of a large one, which some projectors cut up, one tile.

    digest: of the pixels and of which tile this is, 64 hex digits. cells: of the KV cache. positions: how far it moves
    the position, less than `cells` where positions have two dimensions (M-RoPE). needs_all_at_once: its cells see each
    other, so that one step must hold all of them.
    """

    def __init__(self, pointer: Any, digest: str, *, needs_all_at_once: bool) -> None:
        """pointer: a chunk of libmtmd that belongs to nobody else."""
        self._pointer = pointer
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False
        self.digest = digest
        self.cells = int(mt.mtmd_input_chunk_get_n_tokens(pointer))
        self.positions = int(mt.mtmd_input_chunk_get_n_pos(pointer))
        self.needs_all_at_once = needs_all_at_once
        self._free = weakref.finalize(self, mt.mtmd_input_chunk_free, pointer)

    def close(self) -> None:
        """Give up the pixels, as soon as nobody reads them. What is known of the image stays known."""
        with self._lock:
            self._is_closed = True
            self._free_unused()

    @contextmanager
    def held(self) -> Iterator[Any]:
        """libmtmd's chunk, which stays for as long as this lasts, whoever closes the image. Raises InputInvalid."""
        with self._lock:
            if self._is_closed:
                raise InputInvalid("the image is not held any more")
            self._users += 1
        try:
            yield self._pointer
        finally:
            with self._lock:
                self._users -= 1
                self._free_unused()

    def _free_unused(self) -> None:
        if self._is_closed and not self._users:
            self._free()


class Projector:
    """A stored projector, loaded beside the model whose embeddings it makes."""

    def __init__(self, path: str, model: Model, *, threads: int, use_gpu: bool, most_cells: int = 0) -> None:
        """Load the file at `path`. Raises LoadFailed with libmtmd's own words.

        most_cells: images that would take more are scaled down until they do not, where their cells depend on their
        size; 0 leaves them to the projector, which may make 4096 cells of a photograph.
        """
        log = _listen()
        log.errors.clear()
        can = mt.mtmd_get_cap_from_file(path.encode())
        if not can.inp_vision:
            reads = "sound only" if can.inp_audio else "no images"
            raise LoadFailed(log.reason(path) or f"the projector reads {reads}")
        params = mt.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.n_threads = threads
        params.print_timings = False
        # `warmup` stays on: it computes nothing, but takes the memory now and finds tensors that do not fit each other
        self._pointer = mt.mtmd_init_from_file(path.encode(), model.pointer, params)
        if not self._pointer:
            raise LoadFailed(log.reason(path) or "libmtmd cannot load the projector")
        self._width = int(ll.llama_model_n_embd_inp(model.pointer))
        self._encoding = threading.Lock()
        self._encoded = EncodedImages(_KEPT_BYTES)
        self._most_cells = most_cells
        self.cells_at_once = self._measure_cells_at_once()

    def read(self, prompt: str, images: Sequence[bytes]) -> list[Text | Image]:
        """Tokens and images of `prompt`, in which `[img-N]` stands for the N-th of `images`.

        Text without images becomes what the vocabulary makes of it; a token for the beginning is not put before it.
        Raises InputInvalid. May run in any thread; whoever gets the images closes them.
        """
        if len(images) > MOST_IMAGES:
            raise InputInvalid(f"a prompt may have {MOST_IMAGES} images, this one has {len(images)}")
        texts, order = _split(prompt, len(images))
        with ExitStack() as cleanup:
            bitmaps: list[Any] = []
            digests: list[str] = []
            for data in images:  # one after the other: the pixels of one are gone when the next is decoded
                pixels = read_pixels(data)
                pixels = pixels.scaled(*self._fit(pixels.width, pixels.height))
                digests.append(pixels.digest)
                bitmaps.append(_bitmap(pixels, str(len(bitmaps))))
                cleanup.callback(mt.mtmd_bitmap_free, bitmaps[-1])
            parts = [_text_part(texts[0])]
            for number, text in zip(order, texts[1:], strict=True):
                parts += [mt.mtmd_input_part(bitmap=bitmaps[number]), _text_part(text)]
            return list(self._tokenize(parts, digests))

    def encode(self, image: Image, *, caller: str = "") -> NDArray[np.float32]:
        """(cells, width): the embeddings of `image`, to be read only. Slow; may run in any thread, one at a time.

        caller: whose image it is; how long this takes must not tell anybody what others have sent. Raises InputInvalid.
        """
        key = (caller, image.digest)
        known = self._encoded.get(key)
        if known is not None:
            return known
        with image.held() as chunk, self._encoding:
            known = self._encoded.get(key)  # another may have encoded it while this one waited
            if known is None:
                known = self._compute(chunk, image.cells)
                self._encoded.put(key, known)
        return known

    def decode(self, context: Context, image: Image, embeddings: NDArray[np.float32], *, position: int, sequence: int,
               step_tokens: int) -> tuple[int, int]:  # fmt: skip
        """Put `image` into the KV cache of `sequence`, in steps of `step_tokens`, the context's own.

        Returns llama_decode's code (0 is good, 1 no room) and the next position. After another code than 0 a part may
        be in the cache: drop the sequence from `position` on. No logits come of it. Raises InputInvalid.
        """
        if embeddings.shape != (image.cells, self._width) or embeddings.dtype != np.float32:
            raise InputInvalid("these are not the embeddings of the image")
        if image.needs_all_at_once and image.cells > step_tokens:  # llama.cpp would abort
            raise InputInvalid(
                f"the image takes {image.cells} cells at once, a step has {step_tokens}: raise num_batch"
            )
        following = ll.llama_pos(position)
        floats = np.ascontiguousarray(embeddings).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        with image.held() as chunk:
            code = mt.mtmd_helper_decode_image_chunk(
                self._pointer, context.pointer, chunk, floats, position, sequence, step_tokens,
                ctypes.byref(following), mt.mtmd_helper_post_decode_callback(), None,
            )  # fmt: skip
        return int(code), int(following.value)

    def close(self) -> None:
        """Give the memory back, once nothing is being encoded; nobody may be reading or decoding."""
        with self._encoding:
            if self._pointer:
                mt.mtmd_free(self._pointer)
                self._pointer = None
        self._encoded.clear()

    def _compute(self, chunk: Any, cells: int) -> NDArray[np.float32]:
        if not self._pointer:
            raise InputInvalid("the projector is closed")
        if mt.mtmd_encode_chunk(self._pointer, chunk) != 0:
            raise InputInvalid("the projector cannot encode the image")
        output = mt.mtmd_get_output_embd(self._pointer)
        embeddings: NDArray[np.float32] = np.ctypeslib.as_array(output, (cells, self._width)).copy()
        if not np.isfinite(embeddings).all():
            raise InputInvalid("the projector makes embeddings that are not numbers")
        return embeddings

    def _tokenize(self, parts: list[Any], digests: Sequence[str]) -> Iterator[Text | Image]:
        """What libmtmd makes of `parts`. Parts, not markers in a text: there is no marker that a user could type."""
        pointers = (ctypes.POINTER(mt.mtmd_input_part) * len(parts))(*map(ctypes.pointer, parts))
        chunks = mt.mtmd_input_chunks_init()
        try:
            if mt.mtmd_tokenize_from_parts(self._pointer, chunks, pointers, len(parts), False) != 0:
                raise InputInvalid("the projector cannot use an image of this shape")
            tiles: dict[int, int] = {}
            for at in range(mt.mtmd_input_chunks_size(chunks)):
                chunk = mt.mtmd_input_chunks_get(chunks, at)
                if mt.mtmd_input_chunk_get_type(chunk) == mt.MTMD_INPUT_CHUNK_TYPE_TEXT:
                    count = ctypes.c_size_t()
                    tokens = mt.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                    yield Text(tokens[: count.value])
                    continue
                number = int(mt.mtmd_input_chunk_get_id(chunk) or 0)
                tiles[number] = tile = tiles.get(number, -1) + 1
                yield self._image(chunk, digests[number], tile)
        finally:
            mt.mtmd_input_chunks_free(chunks)

    def _image(self, chunk: Any, digest: str, tile: int) -> Image:
        """A copy of `chunk`. Cells are in the digest: some projectors pad by where in the prompt an image stands."""
        cells = mt.mtmd_input_chunk_get_n_tokens(chunk)
        all_at_once = bool(mt.mtmd_decode_use_non_causal(self._pointer, chunk))
        named = hashlib.sha256(f"{digest} {tile} {cells}".encode()).hexdigest()
        return Image(mt.mtmd_input_chunk_copy(chunk), named, needs_all_at_once=all_at_once)

    def _fit(self, width: int, height: int) -> tuple[int, int]:
        """The size at which an image takes no more than `most_cells`; its own where none is found."""
        size, cells = (width, height), 0
        for _ in range(_FITTINGS):
            cells = self._cells(*size)
            if not self._most_cells or cells <= self._most_cells:
                return size
            scale = 0.97 * (self._most_cells / cells) ** 0.5
            size = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
        return width, height

    def _cells(self, width: int, height: int) -> int:
        """What an image of this size takes, found with an empty one."""
        bitmap = mt.mtmd_bitmap_init(width, height, None)
        try:
            parts = list(self._tokenize([mt.mtmd_input_part(bitmap=bitmap)], [""]))
        finally:
            mt.mtmd_bitmap_free(bitmap)
        return sum(part.cells for part in parts if isinstance(part, Image))

    def _measure_cells_at_once(self) -> int:
        """The most cells of an image whose cells see each other, found with images of many shapes; or 0."""
        if not mt.mtmd_decode_use_non_causal(self._pointer, None):
            return 0
        stretches = np.geomspace(1 / MOST_STRETCH, MOST_STRETCH, _PROBES)
        shapes = [(int((KEPT_PIXELS * stretch) ** 0.5), int((KEPT_PIXELS / stretch) ** 0.5)) for stretch in stretches]
        return max(self._cells(*self._fit(*shape)) for shape in shapes)


class _Log:
    """What libmtmd says: warnings and errors go to stderr, and errors are kept to explain a failed load."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = ll.llama_log_callback(self._take)  # kept: C holds no reference
        mt.mtmd_helper_log_set(self._callback, None)  # also sets that of the rest of libmtmd

    def reason(self, path: str) -> str:
        """The first error, which is the closest to its cause, without `path` and the name of a function."""
        words = " ".join(self.errors[0].split()) if self.errors else ""
        words = words.rpartition(f"'{path}': ")[2].replace(path, "the projector")
        return re.sub(r"^\S+: (error: )?", "", words)

    def _take(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUES else level
        if self._level not in {_LOG_WARN, _LOG_ERROR}:
            return
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        if self._level == _LOG_ERROR:
            self.errors.append(line)


@functools.cache
def _listen() -> _Log:
    """libmtmd has one log for the whole process."""
    return _Log()


def _split(prompt: str, images: int) -> tuple[list[str], list[int]]:
    """The texts around the markers of `images` images, and the images' numbers in the order of their markers.

    A marker of an image that there is not is text. Raises InputInvalid unless each image has one marker.
    """
    texts, order, end = [], [], 0
    for marker in _MARKER.finditer(prompt):
        if (number := int(marker[1])) < images:
            texts.append(prompt[end : marker.start()])
            order.append(number)
            end = marker.end()
    if sorted(order) != list(range(images)):
        raise InputInvalid("the prompt must have one marker [img-N] for each image")
    return [*texts, prompt[end:]], order


def _text_part(text: str) -> Any:
    raw = text.encode("utf-8", "replace")
    told = mt.mtmd_input_text(text=raw, text_len=len(raw), add_special=False, parse_special=True)
    return mt.mtmd_input_part(text=ctypes.pointer(told))


def _bitmap(pixels: Pixels, name: str) -> Any:
    """libmtmd's own copy of `pixels`; `name` comes back with each tile of it."""
    bitmap = mt.mtmd_bitmap_init(
        pixels.width, pixels.height, ctypes.cast(ctypes.c_char_p(pixels.rgb), ctypes.POINTER(ctypes.c_uint8))
    )
    mt.mtmd_bitmap_set_id(bitmap, name.encode())
    return bitmap
