"""Every row of the API's table of compatibility traps is borne by a test: `test_trap_<number>_…`, or several numbers.

Tests of the registry protocol number another table in the same way, so the places that belong to this one are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[2]
TRAPS = range(1, 91)
PLACES = (
    "registry/ollama_api",
    "registry/models",
    "registry/test_anthropic_client.py",
    "registry/test_openai_client.py",
    "runtime/anthropic",
    "runtime/openai",
)
NAME = re.compile(r"^def test_trap_((?:\d+_)+)", re.MULTILINE)


def files() -> Iterator[Path]:
    for place in PLACES:
        path = TESTS / place
        assert path.exists(), f"{place} is no place of tests any more"
        yield from [path] if path.is_file() else path.rglob("test_*.py")


def borne() -> set[int]:
    names = (name for file in files() for name in NAME.findall(file.read_text("utf-8")))
    return {int(number) for name in names for number in name.split("_") if number}


def test_every_trap_has_a_test() -> None:
    assert sorted(set(TRAPS) - borne()) == []


def test_no_test_bears_a_number_that_is_not_in_the_table() -> None:
    assert sorted(borne() - set(TRAPS)) == []
