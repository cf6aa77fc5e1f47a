"""GGUF headers that want to crash, hang or fill the memory of whoever reads them."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import GGUFInvalid
from runtime.gguf import Header, read_header
from runtime.gguf_reader import Span
from tests.gguf_damage import MOST_BYTES, small_file, text

ROOT = Path(__file__).parent.parent.parent
TOKENS, MERGES = 151_936, 151_387
READ = """
import json, resource, sys, time
from pathlib import Path
from runtime.errors import GGUFInvalid
from runtime.gguf import read_header
from runtime.gguf_checks import check_weights
path = Path(sys.argv[1])
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
try:
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
        if header.tensors:
            check_weights(header, file, path.stat().st_size)
    end = "read"
except GGUFInvalid:
    end = "refused"
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([end, grown * 1024, time.monotonic() - began]))
"""


def header_of(raw: bytes) -> Header:
    return read_header(io.BytesIO(raw), len(raw))


def test_a_hundred_thousand_damaged_files_are_read_or_refused_and_nothing_else() -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gguf_damage", str(seed), "50000"], stdout=subprocess.PIPE, cwd=ROOT
        )
        for seed in (1, 2)
    ]

    told = [json.loads(child.communicate(timeout=120)[0]) for child in children]

    for each in told:
        assert set(each["ends"]) == {"read", "refused"}
        assert sum(each["ends"].values()) == 50_000
        assert each["ends"]["read"] > 1000  # the damage is not all in the first bytes
        assert each["grown_bytes"] < MOST_BYTES


def test_every_truncation_is_refused() -> None:
    raw = small_file()
    for length in range(len(raw) - 96):  # what follows is padding after the last tensor
        with pytest.raises(GGUFInvalid):
            header_of(raw[:length])


def pairs_of(kind: str) -> Iterator[bytes]:
    """Metadata that costs the reader as much as it can."""
    if kind == "long names":
        yield from (text(f"{n:06}" + "k" * 60_000) + struct.pack("<IB", 0, 1) for n in range(4000))
    elif kind == "many names":
        yield from (text(f"k{n}") + struct.pack("<IB", 0, 1) for n in range(65_536))
    elif kind == "long texts":
        yield from (text(f"k{n}") + struct.pack("<I", 8) + text("ÿ" * 400_000 + "😀") for n in range(200))
    elif kind == "one enormous text":
        yield text("k") + struct.pack("<IQ", 8, 60 * 2**20) + bytes(60 * 2**20)
    elif kind == "an enormous token":
        yield text("tokenizer.ggml.bos_token_id") + struct.pack("<II", 4, 0)
        yield text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2000)
        yield struct.pack("<Q", 60 * 2**20) + b"\xff" * (60 * 2**20) + bytes(8 * 1999)
    elif kind == "short arrays":
        yield from (text(f"k{n}") + struct.pack("<IIQ", 9, 5, 1024) + bytes(4096) for n in range(20_000))
    elif kind == "short arrays of short texts":
        words = b"".join(text(f"{n % 1000:03}") for n in range(1024))
        yield from (text(f"k{n}") + struct.pack("<IIQ", 9, 8, 1024) + words for n in range(4000))
    elif kind == "empty texts":
        yield text("k") + struct.pack("<IIQ", 9, 8, 8 * 2**20) + bytes(64 * 2**20)
    elif kind == "more empty texts":
        yield text("k") + struct.pack("<IIQ", 9, 8, 20 * 2**20) + bytes(160 * 2**20)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("long names", 4000),
        ("many names", 65_536),
        ("long texts", 200),
        ("one enormous text", 1),
        ("an enormous token", 2),
        ("short arrays", 20_000),
        ("short arrays of short texts", 4000),
        ("empty texts", 1),
        ("more empty texts", 1),
    ],
)
def test_what_is_read_fits_little_memory_and_time(kind: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, count))
        file.writelines(pairs_of(kind))

    _, grown, took = cost_of(path)

    assert grown < MOST_BYTES
    assert took < 10


def cost_of(path: Path) -> tuple[str, int, float]:
    """What became of the file in a process of its own, by how many bytes that grew, and in how many seconds."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, cwd=ROOT, timeout=60, check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
    )  # fmt: skip
    end, grown, took = json.loads(done.stdout)
    return end, grown, took


TOKENS_OF = {
    "as many as may be": (2**20, lambda number: f"{number:06}😀".encode(), "read"),
    "more than may be": (2**20 + 1, None, "refused"),
    "eight million empty ones": (8 * 2**20, None, "refused"),
    "long ones": (2**20, lambda number: f"{number:040}😀".encode(), "refused"),
    "one that is a book": (2000, lambda number: b"x" * 2**20 if number == 7 else str(number).encode(), "refused"),
}


@pytest.mark.parametrize(("count", "token", "end"), TOKENS_OF.values(), ids=TOKENS_OF.keys())
def test_vocabularies_are_checked_in_little_memory_and_time(
    count: int, token: Callable[[int], bytes] | None, end: str, tmp_path: Path
) -> None:
    numbers = {"block_count": 1, "embedding_length": 8, "context_length": 8}
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    path = tmp_path / "hostile.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs) + 1) + b"".join(pairs))
        file.write(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count))
        if token is None:
            file.write(bytes(8 * count))
        else:
            file.writelines(len(raw).to_bytes(8, "little") + raw for raw in map(token, range(count)))
        file.write(text("t") + struct.pack("<IQIQ", 1, 8, 0, 0) + bytes(32 + 32))

    became, grown, took = cost_of(path)

    assert became == end
    assert grown < MOST_BYTES
    assert took < 10


@pytest.fixture(scope="module")
def real_sized() -> bytes:
    """The header of a model with a vocabulary as large models have it."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyzĠ", k=chance.randint(1, 12))) for _ in range(5000)]
    tokens = [f"{chance.choice(words)}{number}" for number in range(TOKENS)]
    merges = [f"{chance.choice(words)} {chance.choice(words)}" for _ in range(MERGES)]
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("qwen2"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, TOKENS) + b"".join(map(text, tokens)),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, TOKENS) + bytes(4 * TOKENS),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, TOKENS) + struct.pack("<i", 1) * TOKENS,
        text("tokenizer.ggml.merges") + struct.pack("<IIQ", 9, 8, MERGES) + b"".join(map(text, merges)),
        text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, TOKENS - 1),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def test_a_large_vocabulary_costs_a_call_a_string_and_no_more(real_sized: bytes) -> None:
    """Time is others' too; what a string costs is this one call, and a second one would double it."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        header = header_of(real_sized)
    finally:
        sys.setprofile(None)

    merges = header.metadata["tokenizer.ggml.merges"]
    assert isinstance(merges, Span)
    assert (header.vocabulary_size, merges.length) == (TOKENS, MERGES)
    assert header.eos_token.endswith(str(TOKENS - 1))
    assert calls < 1.01 * (TOKENS + MERGES)
