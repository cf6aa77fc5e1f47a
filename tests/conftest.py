"""What holds for every test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import close_backends
from tests.databases import ON_POSTGRESQL, give_back_databases


@pytest.fixture(autouse=ON_POSTGRESQL)
def _databases_of_the_test(tmp_path: Path) -> Iterator[None]:
    """What was made for folders of one test goes with it: the first fixture that is set up is torn down last."""
    yield
    give_back_databases(below=tmp_path)


def pytest_sessionfinish(exitstatus: int) -> None:
    """TONNAGE_TEST_STATUS: a file to say in how the run ended, for who has it from make, which tells no more than that
    it failed.
    """
    close_backends()
    if path := os.environ.get("TONNAGE_TEST_STATUS"):
        Path(path).write_text(str(int(exitstatus)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a reason, not one a test: without a server they are hundreds."""
    reasons = Counter(
        str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
