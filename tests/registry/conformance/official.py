"""Run the official OCI conformance binary against a fresh server in each mode that we promise; `make conformance`.

    python -m tests.registry.conformance.official /path/to/the/binary

Every test must pass: a failure, an error, and a skip (a server that answered with a fallback the specification allows)
each end in exit status 1; the binary itself says 0 for a skip. Tests that a mode switches off are counted as disabled.
Source: distribution-spec, conformance/config.go, junit.go, results.go.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.server import Server, running_server

_TIMEOUT_S = 600
_UNWANTED = ("failures", "errors", "skipped")


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
        junit = Path(folder) / "junit.xml"
        if not junit.exists():  # its settings were refused: it says why, and exits with 0
            print(f"{mode.name}: no report", finished.stdout[-4000:], finished.stderr[-4000:], sep="\n")
            return False
        report = ElementTree.parse(junit).getroot()  # written by the binary we started
        counts = outcomes(report)
        print(f"{mode.name}: {counts}, exit {finished.returncode}")
        for case in report.iter("testcase"):
            if case.get("status") != "passed":
                print(f"  {case.get('status')}: {case.get('name')}: {case.findtext('system-out', '')[:2000]}")
        return finished.returncode == 0 and counts["passed"] > 0 and not sum(counts[name] for name in _UNWANTED)


def outcomes(report: ElementTree.Element) -> dict[str, int]:
    """How many tests ended how, by a report's totals; its cases have no child elements, and skip what is disabled."""
    counts = {name: int(report.get(name, "0")) for name in (*_UNWANTED, "disabled")}  # a zero may be left out
    return {"passed": int(report.get("tests", "0")) - sum(counts.values()), **counts}


def _login(server: Server, mode: Mode) -> dict[str, str]:
    told = {"OCI_REGISTRY": server.host, "OCI_TLS": "disabled"}
    if mode.server["TONNAGE_ACCESS"] == "keyed":
        told |= {"OCI_USERNAME": "conformance", "OCI_PASSWORD": server.admin_token}
    return told


def _without_suite_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
