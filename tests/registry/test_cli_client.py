"""The client commands as a person or a script meets them: output, exit codes, files."""

import io
import json
import os
import pty
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from auth.keys import PrivateKey
from registry.cli.tables import (
    ago_text,
    fetching_text,
    processor_text,
    running_models,
    size_text,
    stored_models,
    until_text,
)
from registry.remotes.progress import progress_on
from tests.faulty_registry import faulty_registry
from tests.tiny_gguf import write_tiny_gguf

ROOT = Path(__file__).parent.parent.parent
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def registry():
    with faulty_registry() as running:
        yield running


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def tonnage(
    folder: Path, *arguments: str, server: str = "http://127.0.0.1:1", stdin: bytes = b""
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a `tonnage` process with a home of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "registry", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "TONNAGE_DATA": str(folder / "data"),
            "TONNAGE_SERVER": server,
        },
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return finished.returncode, finished.stdout.decode(), finished.stderr.decode()


def test_push_then_pull_gives_the_same_file(registry, gguf, tmp_path):
    assert tonnage(tmp_path, "push", str(gguf), "alice/tiny:v1", server=registry.url)[0] == 0

    status, _, said = tonnage(tmp_path, "pull", "alice/tiny:v1", server=registry.url)

    assert status == 0, said
    assert (tmp_path / "tiny-v1.gguf").read_bytes() == gguf.read_bytes()
    assert registry.count("PUT", "/v2/alice/tiny/manifests/v1") == 1


def test_a_second_pull_leaves_the_file_alone(registry, gguf, tmp_path):
    registry.add_model("latest", gguf.read_bytes())
    tonnage(tmp_path, "pull", "a/m", server=registry.url)
    sent = registry.sent_bytes

    status, _, said = tonnage(tmp_path, "pull", "a/m", server=registry.url)

    assert (status, registry.sent_bytes) == (0, sent)
    assert "up to date" in said


def test_a_file_with_other_content_is_replaced_only_by_force(registry, gguf, tmp_path):
    registry.add_model("latest", gguf.read_bytes())
    (tmp_path / "m-latest.gguf").write_bytes(b"mine")

    status, _, said = tonnage(tmp_path, "pull", "a/m", server=registry.url)
    assert (status, (tmp_path / "m-latest.gguf").read_bytes()) == (1, b"mine")
    assert "--force" in said

    assert tonnage(tmp_path, "pull", "a/m", "--force", server=registry.url)[0] == 0
    assert (tmp_path / "m-latest.gguf").read_bytes() == gguf.read_bytes()


@pytest.mark.parametrize("output, file", [("d", "d/m-latest.gguf"), ("x.gguf", "x.gguf")])
def test_output_is_a_folder_or_a_file(registry, gguf, tmp_path, output, file):
    (tmp_path / "d").mkdir()
    registry.add_model("latest", gguf.read_bytes())

    tonnage(tmp_path, "pull", "a/m", "-o", output, server=registry.url)

    assert (tmp_path / file).read_bytes() == gguf.read_bytes()


def test_the_first_push_makes_a_key_and_says_how_to_enrol_it(registry, gguf, tmp_path):
    registry.keys.add("SHA256:none")

    status, _, said = tonnage(tmp_path, "push", str(gguf), "alice/tiny", server=registry.url)

    key = PrivateKey.load(tmp_path / "data" / "keys" / "id_ed25519")
    assert status == 1
    assert key.public.fingerprint in said
    assert "tonnage key add NAMESPACE" in said
    assert (tmp_path / "data" / "keys" / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_admitted_may_push(registry, gguf, tmp_path):
    key = PrivateKey.generate()
    key.save(tmp_path / "id")
    registry.keys.add(key.public.fingerprint)

    status, _, said = tonnage(tmp_path, "push", str(gguf), "alice/tiny", "--key", "id", server=registry.url)

    assert status == 0, said


def test_a_token_file_may_push(registry, gguf, tmp_path):
    registry.users["token"] = "tng_1_x"
    (tmp_path / "t").write_text("tng_1_x\n")

    status, _, said = tonnage(tmp_path, "push", str(gguf), "alice/tiny", "--token-file", "t", server=registry.url)

    assert status == 0, said


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["pull"], 2, "Missing argument"),
        (["pull", "a/m", "--nonsense"], 2, "No such option"),
        (["pull", "a b"], 1, "invalid model name"),
        (["pull", "a/m"], 1, "cannot connect to http://127.0.0.1:1"),
        (["pull", "a/m", "--server", "http://h/path"], 1, "without a path"),
        (["pull", "a/m", "--server", "h:5000"], 1, "write http://HOST:PORT"),
        (["pull", "a/m", "--key", "/nowhere/id", "--token-file", "/nowhere/t"], 1, "/nowhere/t"),
        (["push", "/nowhere/x.gguf", "a/m"], 1, "/nowhere/x.gguf: No such file"),
        (["push", __file__, "a/m"], 1, "not a GGUF file"),
        (["list"], 1, "cannot connect"),
        (["ps"], 1, "cannot connect"),
        (["run", "a/m", "hello"], 1, "cannot connect"),
        (["run", "a/m"], 2, "no prompt"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_failures_are_one_line_and_a_status(tmp_path, arguments, status, words):
    got, out, said = tonnage(tmp_path, *arguments)

    assert (got, out) == (status, "")
    assert words in said
    assert "Traceback" not in said
    if status == 1:
        assert said.splitlines()[-1].startswith("tonnage: ")


class _Api(BaseHTTPRequestHandler):
    """The answers of the Ollama API that the commands read."""

    protocol_version = "HTTP/1.1"
    bodies: list[tuple[str, dict]] = []  # noqa: RUF012  # one server a test module

    def log_message(self, *_):
        pass

    def do_GET(self):
        model = {
            "name": "a/m:latest\x1b[2J",
            "digest": "0123456789abcdef",
            "size": 91_730_000,
            "modified_at": "2020-01-01T00:00:00.123456789Z",
        }
        self._answer([{"models": [model]}])

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append((self.path, body))
        if self.path == "/api/show" and body["model"] != "missing":
            return self._answer([{"capabilities": ["completion"], "model_info": {}}])
        if self.path == "/api/chat":
            pieces = [{"thinking": "hm"}, {"content": "Hel"}, {"content": "lo\x1b[2J"}]
            return self._answer([{"message": {"role": "assistant", **piece}} for piece in pieces])
        if body["model"] == "missing":
            return self._answer([{"error": "model 'missing' not found"}], 404)
        if body["model"] == "broken":
            return self._answer([{"response": "half"}, {"error": "the runner ended"}])
        return self._answer(
            [{"thinking": "hm"}, {"response": "Hel"}, {"response": "lo\x1b[2J"}, {"response": "", "done": True}]
        )

    def _answer(self, objects, status=200):
        raw = b"".join(json.dumps(each).encode() + b"\n" for each in objects)
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture(scope="module")
def api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_list_is_a_table_without_control_characters(api, tmp_path):
    status, out, _ = tonnage(tmp_path, "list", server=api)

    head, row = out.splitlines()
    assert status == 0
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.startswith("a/m:latest[2J    0123456789ab    91 MB")
    assert row.endswith("years ago")


def test_run_prints_the_answer_and_nothing_else_into_a_pipe(api, tmp_path):
    assert tonnage(tmp_path, "run", "a/m", "Say", "hello", server=api) == (0, "Hello[2J\n", "")
    assert _Api.bodies[-1] == ("/api/generate", {"model": "a/m", "prompt": "Say hello"})


def test_run_takes_the_prompt_from_a_pipe(api, tmp_path):
    tonnage(tmp_path, "run", "a/m", "Translate:", "--system", "Be brief.", server=api, stdin=b"Guten Tag\n")

    assert _Api.bodies[-1][1] == {"model": "a/m", "prompt": "Translate:\n\nGuten Tag", "system": "Be brief."}


def test_run_on_a_terminal_is_a_conversation(api, tmp_path):
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "registry", "run", "a/m", "--server", api],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            cwd=tmp_path,
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.write(ours, b"hello\nagain\n/clear\nanew\n/bye\n")
        assert child.wait(30) == 0
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)

    asked = [body.get("messages") for path, body in _Api.bodies if path == "/api/chat"]
    assert [[message["role"] for message in each] for each in asked] == [
        ["user"],
        ["user", "assistant", "user"],
        ["user"],
    ]
    assert asked[1][1]["content"] == "Hello\x1b[2J"
    assert "Thinking...\r\nhm\r\n...done thinking.\r\n\r\nHello[2J" in shown


@pytest.mark.parametrize("model, words", [("missing", "not found"), ("broken", "the runner ended")])
def test_run_fails_in_one_line(api, tmp_path, model, words):
    status, _, said = tonnage(tmp_path, "run", model, "x", server=api)

    assert status == 1
    assert said.startswith("tonnage: ")
    assert words in said


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (397_821_319, "397 MB"), (2_019_393_189, "2.0 GB"),
     (42 * 10**9, "42 GB"), (3 * 10**12, "3.0 TB"), (None, "-"), ("5", "-"), (-1, "-")],
)  # fmt: skip
def test_sizes(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    "size, on_gpu, text",
    [
        (10, 0, "100% CPU"),
        (10, 10, "100% GPU"),
        (10, 3, "70%/30% CPU/GPU"),
        (0, 0, "100% CPU"),
        (None, None, "100% CPU"),
    ],
)
def test_processors(size, on_gpu, text):
    assert processor_text(size, on_gpu) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (3599, "59 minutes"),
     (7200, "2 hours"), (3 * 86400, "3 days"), (20 * 86400, "2 weeks"), (90 * 86400, "3 months"),
     (800 * 86400, "2 years")],
)  # fmt: skip
def test_times(seconds, text):
    then = NOW + timedelta(seconds=seconds)

    assert until_text(then.isoformat(), NOW) == f"{text} from now"
    assert ago_text((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == f"{text} ago"


@pytest.mark.parametrize(
    "when, text",
    [("2026-03-01T11:59:59Z", "Stopping..."), ("2318-01-01T00:00:00Z", "Forever"), ("soon", ""), (None, ""), (5, "")],
)
def test_the_end_of_a_models_stay(when, text):
    assert until_text(when, NOW) == text


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            {"repository": "library/far", "total": 4_900_000_000, "completed": 2_205_000_000},
            "library/far: 45% of 4.9 GB",
        ),
        ({"repository": "a\nb", "total": 0, "completed": 0}, "a b: 0 B"),
        ({"total": "much", "completed": 5}, ": -"),
        ({"repository": "m", "total": 5, "completed": 6}, "m: 5 B"),
    ],
)
def test_weights_on_their_way_are_shown_with_how_far_they_are(told, shown):
    assert fetching_text(told) == f"fetching {shown}"


def test_hostile_lists_are_shown_as_well_as_can_be():
    assert stored_models([{}, {"name": 5, "size": True}], NOW).count("\n") == 2
    assert running_models([{"name": "m", "context_length": 4096}], NOW).splitlines()[1].split() == [
        "m",
        "-",
        "100%",
        "CPU",
        "4096",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars_that_may_go_back():
    terminal = _Terminal()
    bar = progress_on(terminal).bar("pushing", 1000)

    bar.move(800)
    bar.move(300)
    bar.close()

    assert "pushing:  30%" in terminal.getvalue()


def test_a_file_gets_one_line_a_step():
    file = io.StringIO()
    bar = progress_on(file).bar("pushing", 1000)

    bar.move(800)
    bar.close()

    assert file.getvalue() == "pushing (1000 bytes)\n"
