"""The header of a GGUF file: metadata and tensors, read with bounds before llama.cpp is shown the file.

Whatever would make llama.cpp allocate, loop or read past the file is refused here, in one clear line. Big arrays
(the vocabulary) are walked and checked but not kept: `Span` remembers where they lie.
Spec: the GGUF specification, "File Structure".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import BinaryIO

from runtime.errors import GGUFInvalid
from runtime.gguf_reader import KEPT_STRING, MARK_EVERY, Reader, Scalar, Span, Value
from runtime.gguf_types import FILE_TYPES, TENSOR_TYPES, ValueType

MAGIC = b"GGUF"
MAX_PAIRS = 65_536
MAX_TENSORS = 65_536
MAX_LAYERS = 512  # llama.cpp's own bound
_TENSOR_TAIL = struct.Struct("<IQ")
_MAX_INT64 = 2**63 - 1
_ALIGNMENT = "general.alignment"
_FIXED_TYPES = {  # llama.cpp reads these as what they should be, and ends where they are something else
    _ALIGNMENT: (ValueType.UINT32, "a 32-bit number"),
    "split.no": (ValueType.UINT16, "a 16-bit number"),
    "split.count": (ValueType.UINT16, "a 16-bit number"),
    "general.type": (ValueType.STRING, "a text"),
    "adapter.type": (ValueType.STRING, "a text"),
    "adapter.lora.alpha": (ValueType.FLOAT32, "a 32-bit float"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One weight matrix. `dims` as stored, fastest first; `offset` counts from the start of the tensor data.

    file: which of several files it is in, from 0.
    """

    name: str
    dims: tuple[int, ...]
    type: str
    offset: int
    size: int
    file: int = 0


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself. Every number has been checked against the file's size.

    data_offset: where the tensor data begins, or, of a header that was read in part, how far it was read.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    special_tokens: Mapping[str, str] = field(default_factory=dict)  # "bos" and "eos" → the token's text

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    @property
    def context_length(self) -> int:
        return self.number("context_length") or 0

    @property
    def embedding_length(self) -> int:
        return self.number("embedding_length") or 0

    @property
    def block_count(self) -> int:
        return self.number("block_count") or 0

    @property
    def layer_count(self) -> int:
        """`block_count`, no more than a model may have."""
        return min(self.block_count, MAX_LAYERS)

    @property
    def pooling_type(self) -> int | None:
        """Present, whatever its value, on models that embed instead of completing."""
        return self.number("pooling_type")

    @property
    def chat_template(self) -> str | None:
        return self.text("tokenizer.chat_template")

    @property
    def vocabulary_size(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Span):
            return tokens.length
        return len(tokens) if isinstance(tokens, list) else 0

    @property
    def bos_token(self) -> str:
        return self.special_tokens.get("bos", "")

    @property
    def eos_token(self) -> str:
        return self.special_tokens.get("eos", "")

    @property
    def parameter_count(self) -> int:
        return sum(prod(tensor.dims) for tensor in self.tensors)

    @property
    def file_type(self) -> str:
        """The quantisation level, e.g. `Q4_K_M`, or `unknown`."""
        number = self.metadata.get("general.file_type")
        return FILE_TYPES.get(number, "unknown") if isinstance(number, int) else "unknown"

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """The integer at `<architecture>.<key>`; None when absent, negative or of another type."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def per_layer(self, key: str) -> list[int] | None:
        """`<architecture>.<key>` of each layer, stored once for all of them or as an array; None when absent."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        count = self.layer_count
        if isinstance(value, list):
            numbers = [max(int(n), 0) if isinstance(n, int) else 0 for n in value[:count]]
            return numbers + [0] * (count - len(numbers))
        return [max(int(value), 0)] * count if isinstance(value, int) else None


def parameter_text(count: int) -> str:
    """A parameter count as people write it: `8.0B`, `134.52M`, `2K`."""
    if count >= 10**9:
        return f"{count / 1e9:.0f}B" if count % 10**9 == 0 else f"{count / 1e9:.1f}B"
    if count >= 10**6:
        return f"{count / 1e6:.0f}M" if count % 10**6 == 0 else f"{count / 1e6:.2f}M"
    return f"{count / 1e3:.0f}K" if count >= 1000 else str(count)


def read_header(file: BinaryIO, size: int) -> Header:
    """The header of a GGUF file of `size` bytes, read from its beginning. Raises GGUFInvalid."""
    reader = Reader(file, size)
    version, tensor_count, pair_count = _read_counts(reader)
    metadata = _read_metadata(reader, pair_count)
    alignment = _alignment(metadata)
    tensors = _read_tensors(reader, tensor_count, alignment)
    data_offset = -(-reader.offset // alignment) * alignment
    if tensors and data_offset + tensors[-1].offset + tensors[-1].size > size:
        raise GGUFInvalid("not a whole GGUF file: tensor data runs past the end of the file")
    special = {name: _special_token(file, size, metadata, name) for name in ("bos", "eos")}
    return Header(version, metadata, tuple(tensors), data_offset, special)


def read_facts(file: BinaryIO, size: int) -> Header:
    """The metadata that comes before the tokenizer, a few kilobytes: enough for a list of models, not for loading one.

    Raises GGUFInvalid.
    """
    reader = Reader(file, size)
    version, _, pair_count = _read_counts(reader)
    return Header(version, _read_metadata(reader, pair_count, until="tokenizer."), (), reader.offset)


def read_array(file: BinaryIO, size: int, span: Span) -> list[Scalar]:
    """All elements of an array that was left in the file, in order."""
    reader = Reader(file, size, start=span.offset)
    if span.type is ValueType.STRING:
        return [reader.string() for _ in range(span.length)]
    return reader.numbers(span.type, span.length)


def read_strings(file: BinaryIO, size: int, span: Span, *, longest: int) -> Iterator[str]:
    """The strings of an array that was left in the file, one after the other. Raises GGUFInvalid for one of more than
    `longest` bytes.
    """
    reader = Reader(file, size, start=span.offset)
    return (reader.string(longest) for _ in range(span.length))


def _read_counts(reader: Reader) -> tuple[int, int, int]:
    """(version, number of tensors, number of metadata keys)"""
    if reader.take(4) != MAGIC:
        raise GGUFInvalid("not a GGUF file: it does not begin with GGUF")
    version = int(reader.scalar(ValueType.UINT32))
    if version not in {2, 3}:
        raise GGUFInvalid(f"not a GGUF file we can read: version {version}, known are 2 and 3")
    return version, reader.count(MAX_TENSORS, "tensors"), reader.count(MAX_PAIRS, "metadata keys")


def _read_metadata(reader: Reader, pair_count: int, *, until: str | None = None) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(pair_count):
        key = reader.key()
        if until is not None and key.startswith(until):
            break
        if key in metadata:
            raise GGUFInvalid(f"not a valid GGUF file: duplicate metadata key {key[:80]!r}")
        kind = reader.value_type()
        wanted, words = _FIXED_TYPES.get(key, (kind, ""))
        if kind is not wanted:
            raise GGUFInvalid(f"not a valid GGUF file: {key} is not {words}")
        metadata[key] = reader.value(kind)
    return metadata


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get(_ALIGNMENT, 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1024**2 or alignment & (alignment - 1):
        raise GGUFInvalid("not a valid GGUF file: general.alignment is not a power of two")
    return alignment


def _read_tensors(reader: Reader, count: int, alignment: int) -> list[Tensor]:
    tensors: list[Tensor] = []
    names: set[str] = set()
    expected = 0
    for _ in range(count):
        tensor = _read_tensor(reader)
        if tensor.name in names:
            raise GGUFInvalid(f"not a valid GGUF file: duplicate tensor {tensor.name!r}")
        if tensor.offset != expected:  # llama.cpp asks for this too; it also rules out overlaps
            raise GGUFInvalid(f"not a valid GGUF file: tensor {tensor.name!r} is not where the one before it ends")
        names.add(tensor.name)
        expected = -(-(tensor.offset + tensor.size) // alignment) * alignment
        tensors.append(tensor)
    return tensors


def _read_tensor(reader: Reader) -> Tensor:
    name = reader.key(63)  # ggml's names have room for 63 bytes
    dim_count = int(reader.scalar(ValueType.UINT32))
    if dim_count > 4:
        raise GGUFInvalid(f"not a valid GGUF file: tensor {name!r} has {dim_count} dimensions, at most 4 are allowed")
    dims = struct.unpack(f"<{dim_count}q", reader.take(8 * dim_count))
    kind, offset = _TENSOR_TAIL.unpack(reader.take(_TENSOR_TAIL.size))
    if kind not in TENSOR_TYPES:
        raise GGUFInvalid(f"not a GGUF file we can read: tensor {name!r} has unknown type {kind}")
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = prod(dims)
    if min(dims, default=0) < 0 or prod(max(n, 1) for n in dims) > _MAX_INT64 // 16:
        raise GGUFInvalid(f"not a valid GGUF file: tensor {name!r} has an impossible shape")
    if (dims[0] if dims else 1) % block:
        raise GGUFInvalid(f"not a valid GGUF file: rows of tensor {name!r} are not whole blocks of {type_name}")
    return Tensor(name, dims, type_name, offset, elements // block * block_bytes)


def _special_token(file: BinaryIO, size: int, metadata: Mapping[str, Value], name: str) -> str:
    """The text of the vocabulary's bos or eos token, or "" when it names none."""
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
        return ""
    if isinstance(tokens, list):
        return str(tokens[token_id]) if token_id < len(tokens) else ""
    if not isinstance(tokens, Span) or tokens.type is not ValueType.STRING or token_id >= tokens.length:
        return ""
    mark, steps = divmod(token_id, MARK_EVERY)
    reader = Reader(file, size, start=tokens.marks[mark])
    reader.skip_strings(steps)
    return reader.string(KEPT_STRING)
