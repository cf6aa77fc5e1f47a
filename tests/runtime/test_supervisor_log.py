"""A stranger's words in our log: short, printable, few."""

from __future__ import annotations

import logging

import pytest

from runtime.supervisor.runner_log import RunnerLog, readable


class Clock:
    """Time as the test wants it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain words\n", "plain words"),
        ("a\x1b[31mred\x07", "a [31mred"),
        ("one\n2026-01-01 ERROR forged\r\n", "one 2026-01-01 ERROR forged"),
        ("é 漢字", "é 漢字"),
        ("x" * 500, "x" * 399 + "…"),
        ("\x00\x00", ""),
    ],
)
def test_a_line_is_one_line(said: str, shown: str) -> None:
    assert readable(said) == shown


def test_a_flood_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, "tonnage.runner"):
        lines = RunnerLog("acme/m:v1", 7, clock)
        for number in range(10_000):
            lines.take(f"line {number}")
        assert len(caplog.records) == 200
        clock.now += 60
        lines.take("the end")

    assert [record.getMessage() for record in caplog.records[-2:]] == [
        "acme/m:v1[7] 9800 lines left out",
        "acme/m:v1[7] the end",
    ]
    assert lines.last == "the end"


def test_the_last_words_are_kept_even_where_the_log_is_full() -> None:
    lines = RunnerLog("m", 7, Clock())
    for number in range(1000):
        lines.take(f"line {number}")

    assert lines.last == "line 999"
