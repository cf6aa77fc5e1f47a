"""Damaged GGUF headers, as many as one likes. `python -m tests.gguf_damage SEED COUNT` reads so many, and tells in
one JSON line what became of them and by how many bytes its memory grew.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from runtime.errors import GGUFInvalid
from runtime.gguf import read_header

MOST_BYTES = 256 * 1024**2
NUMBERS = [0, 1, 7, 8, 9, 31, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def small_file() -> bytes:
    """A valid file of every kind of value, some hundred bytes long."""
    words = ["Ā", "Ġthe", "", "ship", "<|end|>"]
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("llama.block_count") + struct.pack("<II", 4, 2),
        text("llama.head_count_kv") + struct.pack("<IIQ2I", 9, 4, 2, 2, 1),
        text("llama.epsilon") + struct.pack("<If", 6, 1e-5),
        text("llama.factor") + struct.pack("<Id", 12, 2.0),
        text("llama.shift") + struct.pack("<Iq", 11, -5),
        text("llama.causal") + struct.pack("<I?", 7, True),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(words)) + b"".join(map(text, words)),
        text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, 4),
        text("tokenizer.chat_template") + struct.pack("<I", 8) + text("{{ messages }}"),
    ]
    tensors = [
        text("token_embd.weight") + struct.pack("<I2QIQ", 2, 32, 5, 8, 0),
        text("output_norm.weight") + struct.pack("<IQIQ", 1, 32, 0, 192),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(192 + 128)


def _flip(raw: bytearray, chance: random.Random) -> None:
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)


def _number(raw: bytearray, chance: random.Random) -> None:
    place, width = chance.randrange(len(raw)), chance.choice([1, 2, 4, 8])
    raw[place : place + width] = (chance.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")


def _cut(raw: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(raw))
    del raw[start : start + chance.choice([1, 8, len(raw)])]


def _repeat(raw: bytearray, chance: random.Random) -> None:
    start, end = sorted(chance.randrange(len(raw)) for _ in range(2))
    place = chance.randrange(len(raw))
    raw[place:place] = raw[start:end]


def _noise(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw))
    raw[place : place + 8] = chance.randbytes(chance.randrange(16))


WAYS: list[Callable[[bytearray, random.Random], None]] = [_flip, _number, _number, _cut, _repeat, _noise]


def damaged(raw: bytes, count: int, seed: int) -> Iterator[bytes]:
    """So many files, each with one to three faults."""
    chance = random.Random(seed)
    for _ in range(count):
        copy = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            if copy:
                chance.choice(WAYS)(copy, chance)
        yield bytes(copy)


def main() -> None:
    seed, count = map(int, sys.argv[1:])
    raw = small_file()
    read_header(io.BytesIO(raw), len(raw))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    ends: Counter[str] = Counter()
    for copy in damaged(raw, count, seed):
        try:
            read_header(io.BytesIO(copy), len(copy))
            ends["read"] += 1
        except GGUFInvalid:
            ends["refused"] += 1
        except Exception as error:  # that is the question
            ends[f"{type(error).__name__}: {error}"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ends": ends, "grown_bytes": grown * 1024}))


if __name__ == "__main__":
    main()
