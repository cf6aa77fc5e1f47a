"""create, show, cp, run, stop and rm against a real server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.cli import main
from tests.client import Client
from tests.server import Server, running_server, wait_for
from tests.tiny_gguf import write_tiny_gguf

MODELFILE = """FROM ./tiny.gguf
TEMPLATE {{ .Prompt }}
SYSTEM "You are brief.
Very."
PARAMETER num_predict 4
PARAMETER temperature 0
PARAMETER stop <|im_end|>
PARAMETER mirostat 1
LICENSE MIT
MESSAGE user Hi
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environ = {"TONNAGE_UPSTREAM": "http://127.0.0.1:1"}  # nobody is there
    with running_server(tmp_path_factory.mktemp("create") / "data", environ) as running:
        for namespace in ("library", "acme"):
            running.run("namespace", "create", namespace, "--public")
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "Modelfile").write_text(MODELFILE)
    return tmp_path


class Command:
    """The `tonnage` command as its console script runs it, in this process: another one costs a second each time."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], home: Path) -> None:
        self._patch, self._captured, self._home = patch, captured, home

    def __call__(self, server: Server, folder: Path, *arguments: str, check: bool = True) -> tuple[str, str]:
        """Output and what was said, of a command run in `folder`."""
        self._patch.setattr(sys, "argv", ["tonnage", *arguments])
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        self._patch.setenv("HOME", str(self._home))
        self._patch.setenv("TONNAGE_SERVER", server.url)
        self._patch.chdir(folder)
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, said = self._captured.readouterr()
        assert (ended.value.code == 0) is check, said
        return out, said


@pytest.fixture
def tonnage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(monkeypatch, capsys, tmp_path)


def shown(server: Server, name: str) -> dict[str, object]:
    answer = Client(server.host).post_json("/api/show", {"model": name})
    assert answer.status == 200, answer.body
    found: dict[str, object] = answer.json
    return found


def test_a_model_is_made_of_a_file_and_a_modelfile(tonnage: Command, server: Server, folder: Path) -> None:
    _, said = tonnage(server, folder, "create", "acme/made:v1")

    model = shown(server, "acme/made:v1")
    assert (model["system"], model["template"], model["license"]) == ("You are brief.\nVery.", "{{ .Prompt }}", "MIT")
    assert model["messages"] == [{"role": "user", "content": "Hi"}]
    assert [line.split() for line in str(model["parameters"]).splitlines()] == [
        ["num_predict", "4"],
        ["stop", '"<|im_end|>"'],
        ["temperature", "0"],
    ]
    lines = said.splitlines()
    assert lines[0] == "warning: parameter mirostat is deprecated"
    assert lines[1].startswith("hashing tiny.gguf (")
    assert lines[2].startswith("sending ")
    assert lines[-1] == "success"


def test_what_the_server_has_is_not_sent_again(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "acme/twice:v1")

    _, said = tonnage(server, folder, "create", "acme/twice:v2")

    assert "hashing" in said
    assert "sending" not in said


def test_several_files_are_sent_side_by_side(tonnage: Command, server: Server, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "whole.gguf", shard_tensors=4)
    shards = sorted(tmp_path.glob("whole*.gguf"))
    assert len(shards) > 2

    _, said = tonnage(server, tmp_path, "create", "sharded")

    assert said.count("sending ") == len(shards)
    assert said.splitlines()[-1] == "success"
    assert tonnage(server, tmp_path, "show", "sharded")[0].startswith("  Model\n")


def test_a_modelfile_elsewhere_names_files_beside_it(tonnage: Command, server: Server, folder: Path) -> None:
    (folder / "work").mkdir()

    tonnage(server, folder / "work", "create", "elsewhere", "-f", "../Modelfile")

    assert shown(server, "elsewhere")["license"] == "MIT"


def test_a_model_is_made_of_a_stored_one(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "base")
    (folder / "Modelfile").write_text("FROM base\nSYSTEM Derived.\nLICENSE BSD")

    _, said = tonnage(server, folder, "create", "derived")

    assert "sending" not in said
    model = shown(server, "derived")
    assert (model["system"], model["license"]) == ("Derived.", "MIT\nBSD")


def test_what_show_prints_makes_the_model_again(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "first")

    out, _ = tonnage(server, folder, "show", "first", "--modelfile")
    (folder / "Printed").write_text(out)
    tonnage(server, folder, "create", "second", "-f", "Printed")

    keys = ("system", "template", "parameters", "messages", "details", "model_info")
    first, second = shown(server, "first"), shown(server, "second")
    assert {key: second[key] for key in keys[:4]} == {key: first[key] for key in keys[:4]}
    assert second["model_info"] == first["model_info"]


def test_quantising(tonnage: Command, server: Server, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "float.gguf", is_float=True)

    tonnage(server, tmp_path, "create", "small", "-q", "q8_0")

    details = shown(server, "small")["details"]
    assert isinstance(details, dict)
    assert details["quantization_level"] == "Q8_0"


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["bad name"], None, "invalid model name"),
        (["x", "-f", "nowhere"], None, "nowhere: No such file"),
        (["x"], "FROM ./nowhere.gguf", "there is no such file"),
        (["x"], "FROM tiny.gguf\nNONSENSE x", "(line 2): command must be one of"),
        (["x"], "SYSTEM x", "no FROM line"),
        (["x"], "FROM tiny.gguf\nPARAMETER seed x", "invalid int value [x]"),
        (["x"], "FROM tiny.gguf\nTEMPLATE {{ if }}", "template error"),
        (["x", "-q", "Q3_K_S"], "FROM tiny.gguf", "unsupported quantization type"),
        (["x"], "FROM nowhere.example/a/b:c", ""),
        (["x", "--server", "http://127.0.0.1:1"], "FROM tiny.gguf", "cannot connect"),
    ],
)
def test_failures_are_one_line(
    tonnage: Command, server: Server, folder: Path, arguments: list[str], text: str | None, words: str
) -> None:
    if text is not None:
        (folder / "Modelfile").write_text(text)

    _, said = tonnage(server, folder, "create", *arguments, check=False)

    last = said.splitlines()[-1]
    assert last.startswith("tonnage: ")
    assert words in last
    assert Client(server.host).post_json("/api/show", {"model": "x"}).status == 404


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--system", "You are brief.\nVery.\n"), ("--license", "MIT\n"), ("--template", "{{ .Prompt }}\n")],
)
def test_show_prints_one_part(tonnage: Command, server: Server, folder: Path, flag: str, text: str) -> None:
    tonnage(server, folder, "create", "parts")

    assert tonnage(server, folder, "show", "parts", flag)[0] == text


def test_show_tells_of_all(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "whole")

    short, long = (tonnage(server, folder, "show", "whole", *flags)[0] for flags in ([], ["-v"]))

    assert "    architecture        llama\n" in short
    assert '    stop           "<|im_end|>"\n' in short
    assert "Tensors" not in short
    assert "    token_embd.weight    " in long


def test_cp_gives_a_second_name(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "original")

    assert tonnage(server, folder, "cp", "original", "acme/copy:v1")[0] == "copied original to acme/copy:v1\n"

    assert shown(server, "acme/copy:v1")["license"] == "MIT"
    assert "not found" in tonnage(server, folder, "cp", "nowhere", "x", check=False)[1]


def test_stop_unloads(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "stopped")
    tonnage(server, folder, "run", "stopped", "hello", "--keep-alive", "1h")
    assert "stopped:latest" in tonnage(server, folder, "ps")[0]

    tonnage(server, folder, "stop", "stopped")

    wait_for(lambda: "stopped:latest" not in tonnage(server, folder, "ps")[0], 10, "the model to be unloaded")
    assert 'couldn\'t find model "nowhere" to stop' in tonnage(server, folder, "stop", "nowhere", check=False)[1]


def test_rm_unloads_first(tonnage: Command, server: Server, folder: Path) -> None:
    tonnage(server, folder, "create", "doomed")
    tonnage(server, folder, "run", "doomed", "hello", "--keep-alive", "1h")

    assert tonnage(server, folder, "rm", "doomed")[0] == "deleted doomed\n"

    wait_for(lambda: "doomed:latest" not in tonnage(server, folder, "ps")[0], 10, "the model to be unloaded")
    assert "doomed:latest" not in tonnage(server, folder, "list")[0]


def test_run_of_a_model_that_embeds_prints_its_vector(tonnage: Command, server: Server, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "bert.gguf", arch="bert", chat_template=None)
    tonnage(server, tmp_path, "create", "bert")

    vector = json.loads(tonnage(server, tmp_path, "run", "bert", "a ship")[0])

    assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-3)


def test_run_has_the_server_pull_what_it_lacks(tonnage: Command, server: Server, folder: Path, tmp_path: Path) -> None:
    tonnage(server, folder, "create", "acme/far:v1")
    with running_server(tmp_path / "near", {"TONNAGE_UPSTREAM": server.url}) as near:
        out, said = tonnage(near, folder, "run", "acme/far:v1", "hello")

    assert out.strip()
    assert said.splitlines()[0] == "pulling manifest"
    assert said.splitlines()[-1] == "success"


def test_run_of_a_model_that_is_nowhere_fails_in_one_line(tonnage: Command, server: Server, folder: Path) -> None:
    said = tonnage(server, folder, "run", "acme/nowhere:v1", "hello", check=False)[1]

    assert said.splitlines()[-1].startswith("tonnage: ")
