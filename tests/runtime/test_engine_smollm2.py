"""A real model: the promises that a random one could keep by chance."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo import smollm2
from runtime.supervisor.lease import Lease
from tests.supervised import answer, request, spec_of, supervised

SUBJECTS = ["the sea", "bread", "a clock", "winter", "the moon", "paper", "a bridge", "honey"]
TEXTS = [f"<|im_start|>user\nTell me about {what}.{' Be kind.' * n}<|im_end|>\n<|im_start|>assistant\n"
         for n, what in enumerate(SUBJECTS)]  # fmt: skip


@pytest.fixture(scope="module")
def lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lease]:
    with (
        supervised(tmp_path_factory.mktemp("run"), num_parallel=8) as running,
        running.client.lease(spec_of(smollm2.fetch())) as held,
    ):
        yield held


def test_eight_streams_are_each_what_they_are_alone(lease: Lease) -> None:
    alone = [answer(lease, request(text, tokens=32))[0] for text in TEXTS]

    with ThreadPoolExecutor(8) as pool:
        together = [text for text, _ in pool.map(lambda text: answer(lease, request(text, tokens=32)), TEXTS)]

    assert together == alone


def test_similar_texts_have_similar_vectors(lease: Lease) -> None:
    one, like, unlike = lease.embed(
        ["The cat sat on the mat.", "The cat sat on a mat.", "SELECT 1 FROM users;"]
    ).vectors

    def likeness(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert likeness(one, like) > likeness(one, unlike)


def test_a_prompt_seen_before_is_not_read_again(lease: Lease) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 40
    _, cold = answer(lease, request(text, tokens=1))

    _, warm = answer(lease, request(text + "And", tokens=1))

    assert warm.prompt_tokens >= cold.prompt_tokens > 300
    assert warm.prompt_ns < cold.prompt_ns / 4


def test_the_file_is_mapped(lease: Lease) -> None:
    maps = [path for path in Path("/proc").glob("[0-9]*/maps") if _mentions(path, smollm2.CACHED)]

    assert maps


def _mentions(maps: Path, path: Path) -> bool:
    try:
        return str(path) in maps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
