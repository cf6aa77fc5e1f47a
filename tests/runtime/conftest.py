"""The Ollama dialect as an app of its own, on a real store, supervisor and runner."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from auth.access import AccessConfig, Gate
from auth.grants import KeyGrants, stored_privacy
from auth.tokens import AccessTokens, TokenSigner
from registry.models import about, listing, openai_models, show
from runtime.api.anthropic import routes as anthropic
from runtime.api.ollama import bp
from runtime.api.openai import routes as openai
from runtime.settings import RuntimeSettings
from runtime.supervisor.client import Supervisor
from storage.store import Store
from tests.stored_models import open_store, push_layers, push_model
from tests.supervised import Supervised, start_supervisor, supervised
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import write_tiny_projector

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking %}<think>\n{% else %}<think></think>{% endif %}"
)
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
TURNS = "{% for m in messages %}<e>{{ m.content | trim }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
GO_TEMPLATES = {
    "go-chat": (
        "{{ if .System }}[S]{{ .System }}{{ end }}{{ if .Tools }}[T]{{ .Tools }}{{ end }}"
        "{{ range .Messages }}[{{ .Role }}]{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
        "{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}[assistant]"
        "{{ if .IsThinkSet }}{{ .ThinkLevel }}{{ end }}"
    ),
    "go-legacy": (
        "{{ if .System }}S:{{ .System }} {{ end }}{{ if .Prompt }}U:{{ .Prompt }} {{ end }}A:{{ .Response }} E "
    ),
    "go-gap": "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}",
    "go-tools": "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Tools }}",
    "go-broken": "line one\n{{ if .Prompt }}",
    "go-endless": "{{ range 2000000 }}{{ end }}{{ .Prompt }}",
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """A supervisor of one's own, with settings of one's own."""
    started: list[Supervised] = []

    def start(**settings: object) -> Supervised:
        started.append(start_supervisor(tmp_path / "run", **settings))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait(5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """For tests that leave nothing behind."""
    with supervised(tmp_path_factory.mktemp("run")) as running:
        yield running


@pytest.fixture(scope="session")
def ollama_run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("run")
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.supervisor", "--run-dir", str(path)],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"max_loaded": 2, "num_parallel": 2, "grace_s": 0.1}).encode())
    process.stdin.close()
    yield path
    process.terminate()
    try:
        process.wait(10)
    finally:
        process.kill()


@pytest.fixture(scope="session")
def ollama_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("store")
    store = open_store(path)
    tiny = write_tiny_gguf(path / "tiny.gguf")
    push_model(store, "tiny", tiny, license="MIT", params='{"num_predict":4,"temperature":0.0,"mirostat":1}')
    push_model(store, "ns/alias:v1", tiny, system="You are S.", messages='[{"role":"user","content":"STORED"}]')
    push_model(store, "thinker", write_tiny_gguf(path / "thinker.gguf", chat_template=THINKING))
    push_model(store, "tooled", write_tiny_gguf(path / "tooled.gguf", chat_template=TOOLS))
    push_model(store, "bert", write_tiny_gguf(path / "bert.gguf", arch="bert", chat_template=None))
    push_model(store, "plain", write_tiny_gguf(path / "plain.gguf", chat_template=None))
    push_model(store, "gotemplate", write_tiny_gguf(path / "go.gguf", chat_template=None), template="<{{ .Prompt }}>")
    for name, template in GO_TEMPLATES.items():
        push_model(store, name, tiny, template=template)
    push_model(store, "both", write_tiny_gguf(path / "both.gguf", chat_template=TOOLS), template="<{{ .Prompt }}>")
    projector = write_tiny_projector(path / "projector.gguf").read_bytes()
    push_model(store, "seeing", tiny, template=GO_TEMPLATES["go-chat"], projector=projector)
    push_model(store, "seeing-jinja", tiny, projector=projector)
    push_model(store, "blind", tiny, projector=b"no projector")
    push_model(store, "deepseek-r1", tiny, template=GO_TEMPLATES["go-chat"])
    push_model(store, "surrogate", write_tiny_gguf(path / "half.gguf", chat_template='a{{ "\\ud800" }}b'))
    push_model(store, "begun", write_tiny_gguf(path / "begun.gguf", chat_template=TURNS))
    push_model(store, "stranger", write_tiny_gguf(path / "none.gguf", chat_template=None), config={"renderer": "x"})
    push_model(store, "hostile", write_tiny_gguf(path / "hostile.gguf", chat_template="{{ ''.__class__.__mro__ }}"))
    push_model(store, "typo", tiny, params='{"stop":"x"}')
    push_layers(store, "image", [("application/vnd.oci.image.layer.v1.tar", b"no model")])
    return store


def open_gate(store: Store, keys: Path) -> Gate:
    """Who may do what is tested elsewhere."""
    database = store.database
    grants, tokens = KeyGrants(database), AccessTokens(database)
    return Gate(AccessConfig(mode="open"), database, TokenSigner(keys), tokens, grants, stored_privacy(database))


@pytest.fixture(scope="session")
def ollama(ollama_store: Store, ollama_run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    for blueprint in (bp, openai.bp, anthropic.bp, about.bp, listing.bp, openai_models.bp, show.bp):
        app.register_blueprint(blueprint)
    app.extensions["tonnage.gate"] = open_gate(ollama_store, tmp_path_factory.mktemp("keys"))
    app.extensions["tonnage.store"] = ollama_store
    app.extensions["tonnage.supervisor"] = Supervisor(ollama_run_dir)
    app.extensions["tonnage.runtime"] = RuntimeSettings()
    return app.test_client()
