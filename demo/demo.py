"""The whole job once, with a real model: store it by key, pull it through a cut, run it.

`make demo` runs it to the end; `make serve` (--serve) leaves the server running instead.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from auth.keys import PrivateKey  # noqa: E402  # the path above comes first
from demo import smollm2  # noqa: E402
from demo.second_client import SecondClient  # noqa: E402

NAMESPACE, MODEL = "demo", "demo/smollm2:135m"
_START_S = 60


class Failed(Exception):
    """A step did not do what it says."""


@dataclass
class Home:
    """A server's data folder and address, and the commands against it."""

    folder: Path
    url: str = ""

    def tonnage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "TONNAGE_DATA": str(self.folder / "data"), "TONNAGE_SERVER": self.url}
        command = [sys.executable, "-m", "registry", *arguments]
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise Failed(f"tonnage {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done


def step(text: str) -> None:
    print(f"· {text}", flush=True)


@contextmanager
def server(home: Home, listen: str) -> Iterator[subprocess.Popen[str]]:
    """`tonnage serve` in `home`; ended, with all its processes, at the end."""
    environ = {**os.environ, "TONNAGE_DATA": str(home.folder / "data"), "TONNAGE_LISTEN": listen}
    command = [sys.executable, "-m", "registry", "serve"]
    log = (home.folder / "server.log").open("w+")
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        home.url = _address(process, home.folder / "server.log")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        log.close()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        text = log.read_text()
        if found := re.search(r"listening on (http://\S+)", text):
            return found[1]
        if process.poll() is not None:
            raise Failed(f"the server did not start: {text.strip()}")
        time.sleep(0.05)
    raise Failed(f"the server did not listen within {_START_S} s")


def push(home: Home, model: Path) -> None:
    """Namespace, key, a push that is refused and one that is not."""
    home.tonnage("namespace", "create", NAMESPACE)
    keys = {name: home.folder / name / "id_ed25519" for name in ("publisher", "stranger", "reader")}
    for path in keys.values():
        path.parent.mkdir()
        PrivateKey.generate().save(path)
    home.tonnage("key", "add", NAMESPACE, f"{keys['publisher']}.pub", "--role", "push")
    home.tonnage("key", "add", NAMESPACE, f"{keys['reader']}.pub", "--role", "pull")
    step(f"namespace {NAMESPACE} created (private), the publisher's key may push, the reader's may pull")

    refused = home.tonnage("push", str(model), MODEL, "--key", str(keys["stranger"]), check=False)
    if refused.returncode == 0:
        raise Failed("a key that nobody registered could push")
    step(f"push with an unregistered key is refused: {refused.stderr.strip().splitlines()[-1]}")

    start = time.monotonic()
    home.tonnage("push", str(model), MODEL, "--key", str(keys["publisher"]))
    seconds, size_mib = time.monotonic() - start, smollm2.SIZE / 2**20
    step(f"pushed {MODEL}: {size_mib:.0f} MiB in {seconds:.2f} s ({size_mib / seconds:.0f} MiB/s)")


def pull_through_a_cut(home: Home) -> None:
    """A second client: the connection is cut in the middle of the model layer, and Range goes on from there."""
    client = SecondClient(home.url, PrivateKey.load(home.folder / "reader" / "id_ed25519"))
    layer = client.model_layer("demo/smollm2", "135m")
    start = time.monotonic()
    digest = hashlib.sha256()
    first = client.read_blob("demo/smollm2", layer.digest, start=0, stop_after=layer.size // 2)
    digest.update(first)
    rest = client.read_blob("demo/smollm2", layer.digest, start=len(first), stop_after=None)
    digest.update(rest)
    seconds = time.monotonic() - start
    if f"sha256:{digest.hexdigest()}" != layer.digest or layer.digest != f"sha256:{smollm2.SHA256}":
        raise Failed(f"pulled sha256:{digest.hexdigest()}, expected {layer.digest}")
    step(
        f"pulled it back: cut after {len(first):,} bytes, resumed with Range: bytes={len(first)}-, "
        f"digest {layer.digest[:19]}… holds ({seconds:.2f} s)"
    )


def ask(home: Home) -> None:
    """The stored model through the official `ollama` package."""
    import ollama

    client = ollama.Client(host=home.url)
    start, first_s, text, final = time.monotonic(), 0.0, "", None
    question = [{"role": "user", "content": "Name three things a ship can carry."}]
    for final in client.chat(MODEL, messages=question, stream=True, options={"temperature": 0, "num_predict": 64}):
        if not text and final.message.content:
            first_s = time.monotonic() - start
        text += final.message.content or ""
    if final is None or not final.done or not text or not final.eval_count or not final.eval_duration:
        raise Failed("the streamed chat did not end as it should")
    rate = final.eval_count / (final.eval_duration / 1e9)
    step(f"chat: {text.strip()!r}")
    step(f"      {rate:.1f} tokens/s over {final.eval_count} tokens; first token after {first_s:.2f} s with loading")

    start = time.monotonic()
    again = client.chat(MODEL, messages=question, stream=True, options={"temperature": 0, "num_predict": 1})
    next(iter(again))
    step(f"      asked again, the model loaded: first token after {(time.monotonic() - start) * 1000:.0f} ms")

    written = client.generate(MODEL, prompt="The sea is", options={"temperature": 0, "num_predict": 16})
    step(f"generate: {written.response.strip()!r}")
    vectors = client.embed(MODEL, input=["a ship", "a boat", "a spreadsheet"]).embeddings
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    step(f"embed: {len(vectors)} vectors of {len(vectors[0])}; ship·boat {near:.3f}, ship·spreadsheet {far:.3f}")

    listed = [model.model for model in client.list().models]
    loaded = [f"{model.model} ({(model.size or 0) / 2**20:.0f} MiB)" for model in client.ps().models]
    if MODEL not in listed or not loaded:
        raise Failed(f"{MODEL} is missing from the lists: tags {listed}, ps {loaded}")
    step(f"listed: {', '.join(map(str, listed))}; loaded: {', '.join(loaded)}")


def demo() -> None:
    """Every step, on a free port and a throwaway data folder."""
    model = smollm2.fetch()
    step(f"model: {model.name}, {smollm2.SIZE:,} bytes, sha256 {smollm2.SHA256[:12]}…")
    with tempfile.TemporaryDirectory(prefix="tonnage-demo-") as folder:
        home = Home(Path(folder))
        with server(home, "127.0.0.1:0") as process:
            step(f"server on {home.url} (SQLite, filesystem, CPU)")
            push(home, model)
            pull_through_a_cut(home)
            ask(home)
        if process.returncode != 0:
            raise Failed(f"the server ended with {process.returncode}")
        step("server stopped")
    print("the whole job is done")


def stay(listen: str) -> int:
    """A server with the model in it, until Ctrl-C."""
    model = smollm2.fetch()
    home = Home(ROOT / ".cache" / "serve")
    home.folder.mkdir(parents=True, exist_ok=True)
    with server(home, listen) as process:
        publisher = home.folder / "publisher" / "id_ed25519"
        if not publisher.exists():
            push(home, model)
        print((home.folder / "server.log").read_text(), end="")
        print(USE.format(url=home.url, host=urlsplit(home.url).netloc, model=MODEL, bin=Path(sys.executable).parent))
        try:
            process.wait()
        except KeyboardInterrupt:
            print()
    return process.returncode


USE = """
The server runs until Ctrl-C and holds {model}. In another terminal:

  curl {url}/api/chat -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  TONNAGE_SERVER={url} {bin}/tonnage run {model} "Name three ships."
  OLLAMA_HOST={host} ollama run {model}
"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--serve", action="store_true", help="leave the server running")
    arguments.add_argument("--listen", default="127.0.0.1:11434", help="with --serve: where")
    given = arguments.parse_args()
    try:
        if given.serve:
            return stay(given.listen)
        demo()
    except (Failed, http.client.HTTPException, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
