"""The GGUF header reader, on real small files and on damaged ones."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import gguf
import pytest

from runtime.errors import GGUFInvalid
from runtime.gguf import Header, parameter_text, read_array, read_facts, read_header
from runtime.gguf_reader import KEPT_ARRAY, Span
from tests.tiny_gguf import CHAT_TEMPLATE, write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def header_of(raw: bytes) -> Header:
    return read_header(io.BytesIO(raw), len(raw))


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_file(
    pairs: bytes = b"", tensors: bytes = b"", *, pair_count: int = 0, tensor_count: int = 0, version: int = 3
) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, pair_count) + pairs + tensors


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    packed = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + packed + struct.pack("<IQ", kind, offset)


def test_reads_what_the_writer_wrote(tiny: bytes) -> None:
    header = header_of(tiny)

    assert header.architecture == "llama"
    assert (header.context_length, header.embedding_length, header.block_count) == (2048, 64, 2)
    assert header.chat_template == CHAT_TEMPLATE
    assert (header.bos_token, header.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert header.pooling_type is None
    assert header.file_type == "Q4_1"


def test_tensors_lie_where_the_reference_reader_finds_them(tiny: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny)
    reference = gguf.GGUFReader(path)

    header = header_of(tiny)

    found = {each.name: (header.data_offset + each.offset, each.size, each.dims) for each in header.tensors}
    assert found == {
        each.name: (int(each.data_offset), int(each.n_bytes), tuple(int(n) for n in each.shape))
        for each in reference.tensors
    }
    assert header.parameter_count == sum(int(each.n_elements) for each in reference.tensors)


def test_long_arrays_stay_in_the_file_and_can_be_read_later(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "long.gguf", "llama")
    tokens = [f"token {number}" for number in range(10_000)]
    writer.add_token_list(tokens)
    writer.add_token_scores([float(number) for number in range(10_000)])
    writer.add_eos_token_id(9_999)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    raw = (tmp_path / "long.gguf").read_bytes()

    header = header_of(raw)

    names, scores = header.metadata["tokenizer.ggml.tokens"], header.metadata["tokenizer.ggml.scores"]
    assert isinstance(names, Span)
    assert isinstance(scores, Span)
    assert read_array(io.BytesIO(raw), len(raw), names) == tokens
    assert read_array(io.BytesIO(raw), len(raw), scores)[-1] == 9999.0
    assert header.eos_token == "token 9999"
    assert header.vocabulary_size == 10_000


def test_facts_stop_before_the_tokenizer(tiny: bytes) -> None:
    facts = read_facts(io.BytesIO(tiny), len(tiny))

    assert facts.architecture == "llama"
    assert facts.context_length == 2048
    assert not [key for key in facts.metadata if key.startswith("tokenizer.")]


def test_every_truncation_of_the_head_is_refused(tiny: bytes) -> None:
    for length in range(min(4096, len(tiny))):
        with pytest.raises(GGUFInvalid):
            header_of(tiny[:length])


def test_a_file_that_lost_its_last_byte_is_refused(tiny: bytes) -> None:
    end = header_of(tiny)
    last = end.tensors[-1]
    whole = end.data_offset + last.offset + last.size

    assert header_of(tiny[:whole]).tensors == end.tensors
    with pytest.raises(GGUFInvalid, match="past the end"):
        header_of(tiny[: whole - 1])


def test_a_file_shorter_than_its_stated_size_is_refused(tiny: bytes) -> None:
    with pytest.raises(GGUFInvalid):
        read_header(io.BytesIO(tiny[:2000]), len(tiny))


HUGE = 2**63
REFUSED = {
    "other magic": b"GGML" + bytes(20),
    "empty": b"",
    "version 1": gguf_file(version=1),
    "version 4": gguf_file(version=4),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "more keys than bytes": gguf_file(pair_count=2**40),
    "more tensors than bytes": gguf_file(tensor_count=2**63 + 5),
    "key longer than the file": gguf_file(struct.pack("<Q", 2**62), pair_count=1) + bytes(64),
    "empty key": gguf_file(text("") + struct.pack("<II", 4, 1), pair_count=1),
    "key that is not text": gguf_file(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1), pair_count=1),
    "duplicate key": gguf_file((text("a") + struct.pack("<II", 4, 1)) * 2, pair_count=2),
    "unknown value type": gguf_file(text("a") + struct.pack("<I", 13) + bytes(64), pair_count=1),
    "string past the end": gguf_file(text("a") + struct.pack("<IQ", 8, HUGE), pair_count=1),
    "array past the end": gguf_file(text("a") + struct.pack("<IIQ", 9, 4, 2**61), pair_count=1),
    "array of strings past the end": gguf_file(text("a") + struct.pack("<IIQ", 9, 8, 2**61), pair_count=1),
    "string in an array past the end": gguf_file(text("a") + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1), pair_count=1),
    "array in an array": gguf_file(text("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(64), pair_count=1),
    "alignment 0": gguf_file(text("general.alignment") + struct.pack("<II", 4, 0), pair_count=1),
    "alignment 3": gguf_file(text("general.alignment") + struct.pack("<II", 4, 3), pair_count=1),
    "alignment that is text": gguf_file(text("general.alignment") + struct.pack("<I", 8) + text("32"), pair_count=1),
    "alignment of 64 bits": gguf_file(text("general.alignment") + struct.pack("<IQ", 10, 32), pair_count=1),
    "alignment of 8 bits": gguf_file(text("general.alignment") + struct.pack("<IB", 0, 32), pair_count=1) + bytes(64),
    "alignment beyond a megabyte": gguf_file(text("general.alignment") + struct.pack("<II", 4, 2**31), pair_count=1),
    "number of a part of 32 bits": gguf_file(text("split.no") + struct.pack("<II", 4, 0), pair_count=1),
    "count of parts of 64 bits": gguf_file(text("split.count") + struct.pack("<IQ", 10, 2), pair_count=1),
    "type that is a number": gguf_file(text("general.type") + struct.pack("<II", 4, 1), pair_count=1),
    "type of adapter that is a flag": gguf_file(text("adapter.type") + struct.pack("<I?", 7, True), pair_count=1),
    "alpha of 64 bits": gguf_file(text("adapter.lora.alpha") + struct.pack("<Id", 12, 1.0), pair_count=1),
    "key with a NUL": gguf_file(text("a\0b") + struct.pack("<II", 4, 1), pair_count=1),
    "key of 64 KiB": gguf_file(text("k" * 65_536) + struct.pack("<II", 4, 1), pair_count=1),
    "value that is missing": gguf_file(text("abcdefgh") + struct.pack("<I", 12), pair_count=1),
    "array without a type": gguf_file(text("abcdefgh") + struct.pack("<I", 9), pair_count=1),
    "array of unknown type": gguf_file(text("a") + struct.pack("<IIQ", 9, 2**32 - 1, 1) + bytes(64), pair_count=1),
    "array of bytes beyond the end": gguf_file(text("a") + struct.pack("<IIQ", 9, 0, 65), pair_count=1) + bytes(64),
    "array whose size wraps": gguf_file(text("a") + struct.pack("<IIQ", 9, 10, 2**61 + 1), pair_count=1) + bytes(64),
    "counts that are negative": b"GGUF" + struct.pack("<Iqq", 3, -1, -1) + bytes(64),
    "name without letters": gguf_file(tensors=tensor("", (1,)), tensor_count=1) + bytes(128),
    "name with a NUL": gguf_file(tensors=tensor("a\0", (1,)), tensor_count=1) + bytes(128),
    "no end of dimensions": gguf_file(tensors=text("t") + struct.pack("<I", 2**32 - 1), tensor_count=1) + bytes(64),
    "five dimensions": gguf_file(tensors=tensor("t", (1, 1, 1, 1, 1)), tensor_count=1) + bytes(64),
    "negative dimension": gguf_file(tensors=tensor("t", (2**64 - 1,)), tensor_count=1) + bytes(64),
    "product beyond 64 bits": gguf_file(tensors=tensor("t", (2**32, 2**32)), tensor_count=1) + bytes(64),
    "product that wraps to a small number": gguf_file(tensors=tensor("t", (2**62, 2, 2)), tensor_count=1) + bytes(64),
    "unknown tensor type": gguf_file(tensors=tensor("t", (4,), kind=99), tensor_count=1) + bytes(64),
    "removed tensor type": gguf_file(tensors=tensor("t", (4,), kind=4), tensor_count=1) + bytes(64),
    "row that is no whole block": gguf_file(tensors=tensor("t", (33,), kind=8), tensor_count=1) + bytes(64),
    "tensor that does not begin at 0": gguf_file(tensors=tensor("t", (1,), offset=32), tensor_count=1) + bytes(128),
    "offset that wraps": gguf_file(tensors=tensor("t", (1,), offset=2**64 - 32), tensor_count=1) + bytes(128),
    "data past the end": gguf_file(tensors=tensor("t", (1024,)), tensor_count=1) + bytes(64),
    "name of 64 bytes": gguf_file(tensors=tensor("t" * 64, (1,)), tensor_count=1) + bytes(128),
    "two tensors of one name": gguf_file(
        tensors=tensor("t", (8,)) + tensor("t", (8,), offset=32), tensor_count=2
    ) + bytes(256),
    "two tensors in one place": gguf_file(tensors=tensor("t", (8,)) + tensor("u", (8,)), tensor_count=2) + bytes(256),
}  # fmt: skip


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_extreme_fields_are_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(GGUFInvalid) as refused:
        header_of(raw)

    assert str(refused.value).startswith("not a ")
    assert "\n" not in str(refused.value)


def test_kept_values_are_bounded_whatever_the_file_holds() -> None:
    many = b"".join(text(f"k{n}") + struct.pack("<I", 8) + text("x" * 900_000) for n in range(40))

    header = header_of(gguf_file(many, pair_count=40))

    kept = [value for value in header.metadata.values() if isinstance(value, str)]
    assert len(header.metadata) == 40
    assert sum(map(len, kept)) <= 16 * 1024**2


def test_a_short_array_is_kept() -> None:
    raw = gguf_file(text("a") + struct.pack(f"<IIQ{KEPT_ARRAY}I", 9, 4, KEPT_ARRAY, *range(KEPT_ARRAY)), pair_count=1)

    assert header_of(raw).metadata["a"] == list(range(KEPT_ARRAY))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (999, "999"),
        (1500, "2K"),
        (999_999, "1000K"),
        (1_235_000, "1.24M"),
        (134_515_008, "134.52M"),
        (999_999_999, "1000.00M"),
        (1_000_000_000, "1B"),
        (1_250_000_000, "1.2B"),
        (3_212_749_888, "3.2B"),
        (8_030_261_312, "8.0B"),
    ],
)
def test_parameter_counts_read_as_people_write_them(count: int, expected: str) -> None:
    assert parameter_text(count) == expected
