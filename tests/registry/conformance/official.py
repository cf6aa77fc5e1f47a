"""Run the official OCI conformance binary against a fresh server in each mode that we promise; `make conformance`.

    python -m tests.registry.conformance.official /path/to/the/binary

Every test must pass: a failure, an error, and a skip (a server that answered with a fallback the specification allows)
each end in exit status 1. Source: distribution-spec, conformance/README.md, "Configuration".
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.server import Server, running_server

_TIMEOUT_S = 600


@dataclass(frozen=True)
class Mode:
    """What the suite and the server are told."""

    name: str
    suite: dict[str, str]
    server: dict[str, str] = field(default_factory=lambda: {"TONNAGE_ACCESS": "open"})


MODES = (
    Mode("1.1", {"OCI_VERSION": "1.1"}),
    Mode("dev", {"OCI_VERSION": "dev"}),
    Mode(
        "dev, sparse",
        {"OCI_VERSION": "dev", "OCI_DATA_SPARSE": "true"},
        {"TONNAGE_ACCESS": "open", "TONNAGE_ALLOW_SPARSE": "1"},
    ),
    Mode("dev, keyed", {"OCI_VERSION": "dev"}, {"TONNAGE_ACCESS": "keyed"}),
)


def main(binary: Path) -> int:
    failed = [mode.name for mode in MODES if not _passes(binary.resolve(), mode)]
    print(f"modes that failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _passes(binary: Path, mode: Mode) -> bool:
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "data", mode.server) as server:
        finished = subprocess.run(
            [binary],
            cwd=folder,
            env={**_without_suite_settings(), **mode.suite, **_login(server, mode), "OCI_RESULTS_DIR": folder},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        outcome = outcomes(Path(folder) / "junit.xml")
        has_passed = finished.returncode == 0 and set(outcome) == {"pass"}
        print(f"{mode.name}: {dict(outcome)}, exit {finished.returncode}")
        if not has_passed:
            print(finished.stdout[-4000:], finished.stderr[-4000:], sep="\n")
        return has_passed


def outcomes(junit: Path) -> Counter[str]:
    """How many tests of a JUnit report ended how; those without any child element passed."""
    found: Counter[str] = Counter()
    for case in ElementTree.parse(junit).iter("testcase"):  # written by the binary we started
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[min(kinds) if kinds else "pass"] += 1
    return found


def _login(server: Server, mode: Mode) -> dict[str, str]:
    told = {"OCI_REGISTRY": server.host, "OCI_TLS": "disabled"}
    if mode.server["TONNAGE_ACCESS"] == "keyed":
        told |= {"OCI_USERNAME": "conformance", "OCI_PASSWORD": server.admin_token}
    return told


def _without_suite_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
