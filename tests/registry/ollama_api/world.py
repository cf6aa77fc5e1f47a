"""Real servers of the Ollama API with small models in them, and requests to them over real sockets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from storage.digest import Digest
from storage.reference import RepositoryName
from tests.client import Answer, Client, connection_closing
from tests.server import Server, running_server
from tests.stored_models import open_store, push_model
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import write_tiny_projector

JSON = dict[str, Any]
NDJSON, ONE_OBJECT, EVENTS = "application/x-ndjson", "application/json; charset=utf-8", "text/event-stream"
LONG: JSON = {"temperature": 0, "num_predict": 20_000, "num_ctx": 2048}
BUSY = "server busy, please try again.  maximum pending requests exceeded"
OF_NOTHING = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the empty blob
SEEN_THROUGH_A_PROXY = {"Forwarded": "for=192.0.2.7"}  # whoever sends this is no caller from this machine
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking %}<think>\n{% else %}<think></think>{% endif %}"
)
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
GAP = (
    "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}"
    "{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}{{ end }}"
)
ALIAS = "{{ if .System }}[S]{{ .System }}{{ end }}{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}[next]"
STORED = '[{"role":"user","content":"STORED"}]'
TOOL: JSON = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"enum": ["C"]}, "city": {"enum": ["Rome"]}},
            "required": ["unit", "city"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Api:
    """One server, as a client on the same machine sees it."""

    server: Server

    @property
    def client(self) -> Client:
        return Client(self.server.host)

    @property
    def admin(self) -> Client:
        """Whoever may do everything."""
        return Client(self.server.host, self.server.admin_token)

    def post(self, path: str, headers: Mapping[str, str] | None = None, **body: Any) -> Answer:
        return self.client.post_json(path, body, headers=headers)

    def whole(self, path: str, **body: Any) -> JSON:
        """The one object of an answer that is no stream."""
        answer = self.post(path, **{"stream": False} | body)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == ONE_OBJECT
        found: JSON = answer.json
        return found

    def lines(self, path: str, **body: Any) -> list[JSON]:
        """Every object of a stream."""
        answer = self.post(path, **body)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == NDJSON
        return parsed(answer.body)

    @contextmanager
    def begun(self, path: str, **body: Any) -> Iterator[Iterator[bytes]]:
        """The lines of a stream that has begun; on leaving, the client hangs up."""
        connection, response = self.client.open("POST", path, json.dumps(body).encode())
        with connection_closing(connection):
            assert response.status == 200, response.read()
            lines = iter(response)
            assert next(lines)
            yield lines
            response.close()

    def prompt_of(self, path: str, **body: Any) -> str:
        shown = self.whole(path, _debug_render_only=True, **body)
        return str(shown["_debug_info"]["rendered_template"])

    def names(self) -> list[str]:
        return [model["name"] for model in self.client.request("GET", "/api/tags").json["models"]]

    def loaded(self) -> dict[str, JSON]:
        """What /api/ps lists, by name."""
        return {model["name"]: model for model in self.client.request("GET", "/api/ps").json["models"]}

    def runners(self) -> set[int]:
        return set(self.server.processes("runtime.runner"))

    def unload(self, name: str) -> None:
        assert self.whole("/api/generate", model=name, keep_alive=0)["done_reason"] == "unload"

    def unload_all(self) -> None:
        for name in self.loaded():
            self.unload(name)


def parsed(body: bytes) -> list[JSON]:
    """The objects of an ndjson body, each on a line of its own and nothing else."""
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.removesuffix(b"\n").split(b"\n")]


def user(content: str = "hello") -> list[JSON]:
    return [{"role": "user", "content": content}]


@contextmanager
def serve(folder: Path, environ: Mapping[str, str]) -> Iterator[Api]:
    """A server that finds the models in its data folder, as if they had been pushed."""
    data = folder / "data"
    data.mkdir(parents=True)
    _fill(data, folder)
    with running_server(data, environ) as server:
        yield Api(server)


def _fill(data: Path, folder: Path) -> None:
    store = open_store(data)
    tiny = write_tiny_gguf(folder / "tiny.gguf")
    params = '{"num_predict":8,"temperature":0.0}'
    push_model(store, "tiny", tiny, params=params, license="MIT")
    push_model(store, "ns/alias:v1", tiny, params=params, template=ALIAS, system="You are S.", messages=STORED)
    push_model(store, "tight", tiny, params='{"num_predict":2,"temperature":0.0,"num_ctx":128}')
    push_model(store, "gap", tiny, params=params, template=GAP, system="You are S.", messages=STORED)
    push_model(store, "typo", tiny, params='{"stop":"x"}')
    push_model(store, "broken", tiny, params=params, template="line one\n{{ if .Prompt }}")
    push_model(store, "painter", tiny, params=params, config={"capabilities": ["image"]})
    projector = write_tiny_projector(folder / "projector.gguf").read_bytes()
    push_model(store, "seeing", tiny, params=params, template=ALIAS, projector=projector)
    for name, more in {
        "thinker": {"chat_template": THINKING},
        "tooled": {"chat_template": TOOLS},
        "other": {"seed": 1},
        "bert": {"arch": "bert", "chat_template": None},
    }.items():
        push_model(store, name, write_tiny_gguf(folder / f"{name}.gguf", **more), params=params)  # type: ignore[arg-type]
    vague = write_tiny_gguf(folder / "nan.gguf", arch="bert", chat_template=None)
    push_model(store, "nan", _overwrite(vague, "token_embd_norm.bias", math.nan))  # what it computes is no number
    parrot = write_tiny_gguf(folder / "parrot.gguf")
    push_model(store, "parrot", _overwrite(parrot, "output_norm.weight", 0), params=params)  # one token again and again
    (folder / "fake.gguf").write_bytes(b"no model")
    push_model(store, "fake", folder / "fake.gguf")
    lost = write_tiny_gguf(folder / "gone.gguf", seed=2)
    push_model(store, "gone", lost)
    # the manifest names weights that are there no more
    store.driver.delete(store.blobs.stat(RepositoryName.parse("library/gone"), Digest.of(lost.read_bytes())).key)
    store.database.dispose()


def _overwrite(path: Path, tensor: str, value: float) -> Path:
    """The model with one of its float tensors all `value`."""
    reader = gguf.GGUFReader(path)
    (found,) = (each for each in reader.tensors if each.name == tensor)
    with path.open("r+b") as file:
        file.seek(int(found.data_offset))
        file.write(np.full(int(found.n_elements), value, np.float32).tobytes())
    return path
