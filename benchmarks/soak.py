"""An hour of everything in little, and what is left of it: nothing.

    python benchmarks/soak.py [--minutes 10] [--clients 16] [--tiny]

A server of its own on a free port, with tiny models and SmolLM2 (--tiny: without), and a crowd: streams, clients that
leave in the middle of a request, a prompt or an answer, reloads, prompts that do not fit, nonsense, embeddings, kill -9
of runners. At the end, with everybody gone and all models unloaded: no runner, no socket, no lease, no descriptor and
no thread more than after warming up, hardly more memory; every slot of the runner that lived through all of it is free,
and answers are what they were. Prints what happened; the exit status is 1 where something is left or was strange.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.soak_load import Models, Tally, chat, crowd
from benchmarks.soak_state import Bounds, Held, grown, held
from demo import smollm2
from registry.config import load_config
from runtime.supervisor.client import SOCKET_NAME, Supervisor
from tests.client import Client
from tests.server import Server, running_server, wait_for
from tests.tiny_gguf import write_tiny_gguf

PARALLEL: Final = 4
_THREADS: Final = 12  # of each web worker: fewer than clients, so that all of them are started soon
_POOL_DESCRIPTORS: Final = 3 * 15  # a connection holds a database, its log and an index of that
_BOUNDS: Final = Bounds(memory_bytes=32 * 2**20, threads=_THREADS, database_descriptors=_POOL_DESCRIPTORS)
_IDLE_S: Final = 60.0
_WARM_SHARE, _WARM_LEAST_S, _WARM_MOST_S = 0.2, 5.0, 60.0
_CROWD_TOKENS: Final = 1500
_LARGE: Final = "soak/large:latest"
_OPEN: Final = {"01", "08"}  # established, and closed by the other side alone
_CONNECTED: Final = "03"
_UNTHOUGHT: Final = ("Traceback", "unexpected error", "a stream broke off", "internal error", "Exception ignored")


@dataclass
class Outcome:
    """What happened, and everything that is wrong with it."""

    tally: Tally
    faults: list[str] = field(default_factory=list)
    before: list[Held] = field(default_factory=list)
    after: list[Held] = field(default_factory=list)

    def report(self) -> str:
        lines = [f"{count:8} {what}" for what, count in sorted(self.tally.counts.items())]
        lines += [f"before: {each}" for each in self.before] + [f"after:  {each}" for each in self.after]
        lines += [f"WRONG: {fault}" for fault in self.faults]
        return "\n".join([*lines, f"{len(self.faults)} faults"])


@dataclass(frozen=True)
class Soak:
    """A server with its models in it."""

    server: Server
    client: Client
    run_dir: Path
    models: Models

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.run_dir)

    def run(self, seconds: float, *, clients: int, seed: int = 0) -> Outcome:
        """Warm up, look, soak, look again."""
        warm_s = min(max(seconds * _WARM_SHARE, _WARM_LEAST_S), _WARM_MOST_S)
        texts = self._texts()
        warm = crowd(self.client.host, self.models, self.supervisor, clients=clients, seconds=warm_s, seed=seed + 1)
        self._settle()
        before = self._held()
        outcome = Outcome(
            crowd(self.client.host, self.models, self.supervisor, clients=clients, seconds=seconds, seed=seed),
            before=before,
        )
        outcome.faults += [f"strange: {each}" for each in (*warm.strange, *outcome.tally.strange)]
        self._settle()
        outcome.faults += self._crowd_at_once()
        outcome.faults += [f"another answer: {name}" for name, text in self._texts().items() if texts[name] != text]
        self._settle()
        outcome.after = self._held()
        outcome.faults += grown(before, outcome.after, _BOUNDS)
        outcome.faults += self._vanished(before, outcome.after) + self._left() + self._logged()
        return outcome

    def _held(self) -> list[Held]:
        return held(self.server.descendants())

    def _texts(self) -> dict[str, str]:
        """What each model that generates says to a fixed question, alone; loads them all."""
        names = [name for name in (self.models.keeper, self.models.spare, self.models.large) if name]
        return {name: self._text(name) for name in names}

    def _text(self, name: str) -> str:
        body = chat(name, "Tell me about ships and harbours.", 40) | {"stream": False, "keep_alive": -1}
        answer = self.client.post_json("/api/chat", body)
        if answer.status != 200:
            raise SystemExit(f"{name} does not answer: {answer.status} {answer.body[:300]!r}")
        return str(answer.json["message"]["content"])

    def _settle(self) -> None:
        """Unload all but the keeper, and wait until nobody is connected to anything."""
        for name in (self.models.spare, self.models.embedder, self.models.large):
            if name:
                self.client.post_json("/api/generate", {"model": name, "keep_alive": 0})
        wait_for(
            lambda: [each.name for each in self.supervisor.ps()] == [self.models.keeper], _IDLE_S, "models to unload"
        )
        wait_for(self._is_idle, _IDLE_S, "connections to close")

    def _is_idle(self) -> bool:
        """Whether web workers, supervisor and runner have as few sockets as when nothing is asked of them."""
        return not self._connected()

    def _connected(self) -> list[str]:
        """Connections to the server's port, the supervisor and the runners, as the kernel lists them."""
        port = int(self.client.host.rpartition(":")[2])
        found = []
        for _, local, _, state, *_ in _table("tcp"):
            if int(local.rpartition(":")[2], 16) == port and state in _OPEN:
                found.append(f"tcp {local}")
        unix = (line for line in _table("unix") if line[5] == _CONNECTED)
        return found + [line[-1] for line in unix if line[-1].startswith(f"{self.run_dir}/")]

    def _crowd_at_once(self) -> list[str]:
        """As many streams as the keeper has slots: all must have begun before the first one ends."""
        spans: list[tuple[float, float]] = []
        threads = [threading.Thread(target=lambda: spans.append(self._span())) for _ in range(PARALLEL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_IDLE_S)
        if len(spans) < PARALLEL:
            return [f"{PARALLEL - len(spans)} of {PARALLEL} last streams did not end"]
        last_begun, first_ended = max(begun for begun, _ in spans), min(ended for _, ended in spans)
        return [] if last_begun < first_ended else ["a slot is not free: the last streams did not run side by side"]

    def _span(self) -> tuple[float, float]:
        """When one long stream said its first word and its last."""
        lines = self.client.lines("/api/chat", chat(self.models.keeper, "Once more.", _CROWD_TOKENS))
        next(lines)
        begun = time.monotonic()
        for last in lines:
            if "error" in last:
                raise RuntimeError(last["error"])
        return begun, time.monotonic()

    def _vanished(self, before: list[Held], after: list[Held]) -> list[str]:
        alive = {each.pid for each in after}
        return [f"{each.role} {each.pid} is gone" for each in before if each.pid not in alive]

    def _left(self) -> list[str]:
        """What is there once the keeper is unloaded, too."""
        self.client.post_json("/api/generate", {"model": self.models.keeper, "keep_alive": 0})
        faults = []
        try:
            wait_for(lambda: not self.server.processes("runtime.runner"), _IDLE_S, "runners to end")
        except AssertionError:
            faults.append(f"runners are left: {self.server.processes('runtime.runner')}")
        faults += [f"a socket is left: {path.name}" for path in self.run_dir.glob("*.sock") if path.name != SOCKET_NAME]
        faults += [f"a connection is left: {each}" for each in self._connected()]
        faults += [f"still loaded: {loaded.name}" for loaded in self.supervisor.ps()]
        return faults

    def _logged(self) -> list[str]:
        """Lines of the server's log that tell of an error nobody thought of."""
        lines = self.server.log.splitlines()
        return [f"log: {line}" for line in lines if any(word in line for word in _UNTHOUGHT)][:20]


def _table(kind: str) -> list[list[str]]:
    """The kernel's list of sockets of that kind."""
    return [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]


@contextmanager
def soaking(folder: Path, *, large: Path | None = None) -> Iterator[Soak]:
    """A server with tiny models, and a large one where given."""
    environ = {
        "OLLAMA_NUM_PARALLEL": str(PARALLEL), "OLLAMA_MAX_LOADED_MODELS": "4", "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_CONTEXT_LENGTH": "2048", "TONNAGE_THREADS": str(_THREADS), "TONNAGE_ACCESS": "open",
    }  # fmt: skip
    models = Models("soak/keeper:latest", "soak/spare:latest", "soak/embedder:latest", _LARGE if large else "")
    with running_server(folder / "data", environ) as server:
        client = Client(server.host)
        weights = {
            models.keeper: write_tiny_gguf(folder / "keeper.gguf", seed=1),
            models.spare: write_tiny_gguf(folder / "spare.gguf", seed=2),
            models.embedder: write_tiny_gguf(folder / "embedder.gguf", arch="bert", n_ctx_train=512),
            **({_LARGE: large} if large else {}),
        }
        for name, path in weights.items():
            repository, _, tag = name.partition(":")
            client.push_model(repository, tag, path)
        run_dir = load_config(environ={"TONNAGE_DATA": str(server.data)}).run_path
        yield Soak(server, client, run_dir, models)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of what clients do; when they do it is up to the machine")
    parser.add_argument("--tiny", action="store_true", help="without the real model")
    given = parser.parse_args()
    if not 0 < given.minutes <= 24 * 60 or not 1 <= given.clients <= 256:
        parser.error("from a moment to a day, with 1 to 256 clients")
    with tempfile.TemporaryDirectory(prefix="tonnage-soak-") as folder:
        with soaking(Path(folder), large=None if given.tiny else smollm2.fetch()) as soak:
            outcome = soak.run(given.minutes * 60, clients=given.clients, seed=given.seed)
        print(outcome.report())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
