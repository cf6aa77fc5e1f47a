"""What is secret stays out of every log, every folder that people look into, and every answer."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from auth.keys import PrivateKey, sign_token_request, token_request_url
from storage.digest import Digest
from tests.client import Answer, Client
from tests.databases import lose
from tests.registry.access.callers import api_signature, basic
from tests.registry.access.world import PRIVATE, Wire
from tests.registry.hostile import exchange
from tests.server import Server, command_line, running_server
from tests.tiny_gguf import write_tiny_gguf

COMPLAINS = "{{ raise_exception('no: ' + messages[0].content) }}"


def canary() -> str:
    """A word that stands nowhere else; letters and digits, so that no log writes it in another way."""
    return f"canary{secrets.token_hex(16)}"


@dataclass
class Driven:
    """A server that had every kind of request, the secrets that went in, and all that came out.

    tokens: access tokens as they were printed; of each, what is secret is among the secrets.
    """

    server: Server
    tokens: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wire = Wire(self.server.host)

    def send(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        answer = self._wire.send(method, target, headers or {}, body)
        self.answers.append((f"{method} {target.partition('?')[0]}", answer))
        return answer

    def cli(self, *arguments: str) -> None:
        finished = self.server.run(*arguments, check=False)
        self.printed.append(finished.stdout + finished.stderr)

    def spoken(self, text: str) -> list[str]:
        """The names of the secrets that `text` gives away."""
        return [name for name, secret in self.secrets.items() if secret in text]


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    home = tmp_path_factory.mktemp("canary")
    with running_server(home / "data", {"TONNAGE_LOG_LEVEL": "debug"}) as server:
        driven = Driven(server)
        prepare(driven, home)
        for drive in (registry, token_endpoint, signatures, inference, malformed, commands, failures):
            drive(driven, home)
        yield driven


def prepare(driven: Driven, home: Path) -> None:
    server = driven.server
    owner = Client(server.host, server.admin_token)
    for namespace in ("vault", "models"):
        server.run("namespace", "create", namespace)
    owner.push_model("models/tiny", "latest", write_tiny_gguf(home / "tiny.gguf"))
    owner.push_model("models/tiny", "complains", write_tiny_gguf(home / "no.gguf", chat_template=COMPLAINS, seed=1))
    (home / "broken.gguf").write_bytes((home / "tiny.gguf").read_bytes()[:3000])
    owner.push_model("models/tiny", "broken", home / "broken.gguf")
    owner.push_blob(PRIVATE, b"a private layer")
    for scope in ("pull", "push", "infer", "delete"):
        driven.tokens[scope] = server.run("token", "create", scope, "--scope", scope).stdout.split()[-1]
        driven.secrets[f"{scope} token"] = driven.tokens[scope].split("_", 2)[2]
    driven.secrets |= {"prompt": canary(), "system": canary(), "password": canary(), "api key": canary()}
    driven.secrets |= {"garbage bearer": canary(), "wrong token": f"tng_{'a' * 12}_{canary()}x"}
    PrivateKey.generate().save(home / "id_ed25519")
    for name, path in (("signing key", home / "data" / "keys" / "token-1.pem"), ("own key", home / "id_ed25519")):
        lines = path.read_text().splitlines()
        driven.secrets |= {f"{name}, line {i}": line for i, line in enumerate(lines[2:-2])}
    server.run("key", "add", "vault", str(home / "id_ed25519.pub"), "--role", "admin")


def ways(driven: Driven, scope: str) -> Iterator[dict[str, str]]:
    secret = driven.tokens[scope]
    yield {"Authorization": f"Bearer {secret}"}
    yield {"Authorization": basic(secret)}
    yield {"X-Api-Key": secret}


def registry(driven: Driven, home: Path) -> None:
    """Granted and refused, with credentials of every form, right and wrong."""
    digest = Digest.of(b"a private layer")
    wrong = [
        {"Authorization": f"Bearer {driven.secrets['garbage bearer']}"},
        {"Authorization": f"Bearer {driven.secrets['wrong token']}"},
        {"Authorization": basic(driven.secrets["password"])},
        {"Authorization": basic("x", user=driven.secrets["password"])},
        {"Authorization": f"Digest username={driven.secrets['password']}"},
        {"X-Api-Key": driven.secrets["api key"]},
        {"X-Api-Key": f"tng_{driven.secrets['api key']}"},
    ]
    paths = [
        "/v2/",
        "/v2/_catalog",
        f"/v2/{PRIVATE}/tags/list",
        f"/v2/{PRIVATE}/blobs/{digest}",
        "/api/tags",
        "/nowhere",
    ]
    for headers in [{}, *wrong, *ways(driven, "pull"), *ways(driven, "push"), *ways(driven, "delete")]:
        for path in paths:
            driven.send("GET", path, headers)
        driven.send("POST", f"/v2/{PRIVATE}/blobs/uploads/", headers)
        driven.send("PUT", f"/v2/{PRIVATE}/manifests/v1", headers, b"{}")
        driven.send("DELETE", f"/v2/{PRIVATE}/manifests/none", headers)
    pull = {"Authorization": f"Bearer {driven.tokens['pull']}"}
    location = driven.send("GET", f"/v2/{PRIVATE}/blobs/{digest}", pull).headers["Location"]
    found = re.search(r"signature=([^&]+)", location)
    if found is not None:
        driven.secrets["signed address"] = found[1]
        for target in (location, location[:-3] + "AAA", location.replace("/blobs/", "/manifests/"), f"{location}&n=x"):
            driven.send("GET", target)


def token_endpoint(driven: Driven, home: Path) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for number, each in enumerate(ways(driven, "pull")):
        answer = driven.send("GET", f"/v2/token?scope=repository:{PRIVATE}:pull", each)
        bearer = answer.json["token"]
        driven.secrets[f"bearer {number}"] = bearer.rpartition(".")[2]
        for path in (f"/v2/{PRIVATE}/tags/list", "/v2/vault/other/tags/list", "/api/tags"):
            driven.send("GET", path, {"Authorization": f"Bearer {bearer}"})
            driven.send("GET", path, {"Authorization": f"Bearer {bearer}x"})
    for password in (driven.tokens["pull"], driven.secrets["password"], driven.secrets["wrong token"]):
        for grant in ("password", "refresh_token", ""):
            body = f"grant_type={grant}&username=me&password={password}&refresh_token={password}&service=tonnage"
            answer = driven.send("POST", "/v2/token", headers, body.encode())
            if answer.status == 200:
                driven.secrets["bearer by form"] = answer.json["access_token"].rpartition(".")[2]
    for target in ("/v2/token?service=other", f"/v2/token?password={driven.secrets['password']}"):
        driven.send("GET", target, {"Authorization": basic(driven.secrets["password"])})


def signatures(driven: Driven, home: Path) -> None:
    own, stranger = PrivateKey.load(home / "id_ed25519"), PrivateKey.generate()
    realm = f"http://{driven.server.host}/v2/token"
    for name, key in (("own", own), ("stranger's", stranger)):
        for off_s in (0, 1000):
            when, nonce = int(time.time()) - off_s, secrets.token_urlsafe(16)
            url = token_request_url(realm, "tonnage", f"repository:{PRIVATE}:pull,push", when, nonce)
            authorization = sign_token_request(key, url)
            driven.secrets[f"{name} signature, {off_s}"] = authorization.partition(":")[2]
            target = url.removeprefix(f"http://{driven.server.host}")
            for changed in (target, target, f"{target}&x=1"):  # the second is a replay
                answer = driven.send("GET", changed, {"Authorization": authorization})
                if answer.status == 200:
                    driven.secrets[f"{name} signed bearer"] = answer.json["token"].rpartition(".")[2]
        target = f"/api/tags?ts={int(time.time())}"
        authorization = api_signature(key, "GET", target)
        driven.secrets[f"{name} signature below /api"] = authorization.partition(":")[2]
        for path in (target, "/api/ps", f"/v2/_catalog{target[9:]}"):
            driven.send("GET", path, {"Authorization": authorization})


def inference(driven: Driven, home: Path) -> None:
    """Answers, streams and refusals; a template that repeats the prompt in its error, and weights that do not load."""
    prompt, system = driven.secrets["prompt"], driven.secrets["system"]
    short = {"num_predict": 3, "temperature": 0}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    bodies = {
        "generate": {"prompt": prompt, "system": system, "suffix": ""},
        "chat": {"messages": messages},
        "embed": {"input": [prompt, system]},
        "embeddings": {"prompt": prompt},
    }
    infer = {"Authorization": f"Bearer {driven.tokens['infer']}"}
    for route, body in bodies.items():
        for model in ("models/tiny", "models/tiny:complains", "models/tiny:broken", "models/none", "!", ""):
            for stream in (False, True):
                asked = {"model": model, "stream": stream, "options": short, **body}
                if "tiny" in model or not stream:
                    driven.send("POST", f"/api/{route}", infer, json.dumps(asked).encode())
        for wrong in (
            {"options": {**short, "num_ctx": prompt}}, {"options": {**short, prompt: 1}},
            {"keep_alive": prompt}, {"format": prompt},
            {"template": "{{ " + prompt}, {"images": [prompt]}, {"messages": [{"role": prompt, "content": prompt}]},
            {"think": prompt}, {"tools": [{"type": prompt}]}, {"raw": prompt}, {"context": [prompt]},
            {"prompt": {"x": prompt}}, {"input": [[prompt]]}, {"truncate": prompt},
        ):  # fmt: skip
            asked = {"model": "models/tiny", "options": short, **body, **wrong}
            driven.send("POST", f"/api/{route}", infer, json.dumps(asked).encode())
        cut = json.dumps({"model": "models/tiny", **body}).encode()[:-3]
        driven.send("POST", f"/api/{route}", infer, cut)
    driven.send("POST", "/api/show", infer, json.dumps({"model": "models/tiny", "system": system}).encode())


def malformed(driven: Driven, home: Path) -> None:
    """What HTTP libraries refuse to send, with a secret in every part of it."""
    secret, host = driven.tokens["push"], driven.server.host
    bearer, prompt = f"Authorization: Bearer {secret}", driven.secrets["prompt"]
    for head, body in (
        (f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{bearer}\0x", ""),
        (f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n{bearer}", ""),
        (f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{bearer}{'A' * 20000}", ""),
        (f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n {bearer}", ""),
        (f"GET /v2/ HTTP/9.9\r\n{bearer}", ""),
        (f"{secret} /v2/ HTTP/1.1\r\nHost: {host}", ""),
        (f"GET /v2/?token={secret} HTTP/1.1\r\nHost: x y", ""),
        (f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\nContent-Length: 99999", f'{{"prompt": "{prompt}'),
        (f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked", f"zz\r\n{prompt}"),
        (f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: {prompt}", prompt),
        (f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\nExpect: {prompt}\r\nContent-Length: 1", prompt),
        (f"POST /v2/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
         f"Content-Length: 200", f'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\n{secret}\r\n'),
    ):  # fmt: skip
        for answer in exchange(host, f"{head}\r\n\r\n{body}".encode()):
            driven.answers.append((head[:30], answer))


def commands(driven: Driven, home: Path) -> None:
    files = {}
    for scope in ("pull", "push", "infer"):
        files[scope] = home / f"{scope}.token"
        files[scope].write_text(driven.tokens[scope])
    files["wrong"] = home / "wrong.token"
    files["wrong"].write_text(driven.secrets["wrong token"])
    tiny, key = str(home / "tiny.gguf"), str(home / "id_ed25519")
    driven.cli("list", "--token-file", str(files["pull"]))
    driven.cli("list", "--token-file", str(files["wrong"]))
    driven.cli("push", tiny, "vault/cli:v1", "--token-file", str(files["push"]))
    driven.cli("push", tiny, "vault/cli:v2", "--token-file", str(files["wrong"]))
    driven.cli("push", tiny, "vault/cli:v3", "--key", key)
    driven.cli("push", tiny, "vault/cli:v4", "--key", str(files["pull"]))
    driven.cli("pull", "vault/cli:v1", "-o", str(home / "pulled.gguf"), "--token-file", str(files["pull"]))
    driven.cli("run", "models/none", "--token-file", str(files["infer"]), driven.secrets["prompt"])
    driven.cli("key", "add", "vault", key, "--role", "pull")
    driven.cli("token", "list")
    driven.cli("token", "revoke", "pull")
    driven.cli("list", "--token-file", str(files["pull"]))


def failures(driven: Driven, home: Path) -> None:
    """Our own faults: bytes that are gone from under us, and the database with them."""
    objects = [each for each in (driven.server.data / "objects").rglob("*") if each.is_file()]
    objects = objects or [each for each in (driven.server.data / "blobs").rglob("*") if each.is_file()]
    for each in objects:
        each.rename(each.with_name(f"{each.name}.gone"))
    for headers in (*ways(driven, "push"), {}):
        driven.send("GET", f"/v2/{PRIVATE}/blobs/{Digest.of(b'a private layer')}", headers)
        for model in ("models/tiny", "models/tiny:complains"):
            body = {"model": model, "prompt": driven.secrets["prompt"], "options": {"num_ctx": 777, "num_predict": 3}}
            driven.send("POST", "/api/generate", headers, json.dumps(body).encode())
    lose(driven.server.data)
    for headers in ways(driven, "push"):
        for path in (f"/v2/{PRIVATE}/tags/list", "/api/tags", f"/v2/token?password={driven.secrets['password']}"):
            driven.send("GET", path, headers)
        body = {"model": "models/tiny", "prompt": driven.secrets["prompt"], "options": {"num_predict": 3}}
        driven.send("POST", "/api/generate", headers, json.dumps(body).encode())


def test_every_kind_of_request_was_made(driven):
    """Or the other tests would hold for want of anything to hold."""
    statuses = {answer.status for _, answer in driven.answers}

    assert {200, 202, 400, 401, 403, 404} <= statuses
    assert statuses & {500, 502, 503}, "nothing went wrong on the server's side"
    assert {"signed address", "own signed bearer", "bearer by form", "bearer 0"} <= set(driven.secrets)
    replies = [answer for what, answer in driven.answers if what == "POST /api/chat" and answer.status == 200]
    assert replies, "no model answered"
    assert any(b"canary" not in each.body for each in replies)
    assert len(driven.server.log) > 10_000


def test_no_log_tells_a_secret(driven):
    assert driven.spoken(driven.server.log) == []


def test_the_log_of_requests_has_paths_without_queries(driven):
    lines = [line for line in driven.server.log.splitlines() if re.search(r" (GET|HEAD|POST|PUT|DELETE) /", line)]

    assert len(lines) > 200
    assert [line for line in lines if "?" in line or "signature=" in line or "ts=" in line] == []


def test_nor_does_any_file_beside_the_models_and_the_keys(driven):
    told = {}
    for path in driven.server.data.rglob("*"):
        if not path.is_file() or path.is_relative_to(driven.server.data / "keys"):
            continue
        path.chmod(0o600)
        if found := driven.spoken(path.read_bytes().decode("latin-1")):
            told[str(path.relative_to(driven.server.data))] = found

    assert told == {}


def test_nor_the_arguments_of_any_process(driven):
    for pid in [driven.server.process.pid, *driven.server.descendants()]:
        assert driven.spoken(command_line(pid)) == [], command_line(pid)


def test_nor_does_any_refusal(driven):
    """A refused field is quoted to its sender, a prompt with it, as by others of this API; credentials are not."""
    told = [
        (what, answer.status, found)
        for what, answer in driven.answers
        if answer.status >= 400 and (found := driven.spoken(answer.body.decode("latin-1") + str(answer.headers)))
    ]

    assert [each for each in told if set(each[2]) - {"prompt", "system"}] == []
    assert {status for _, status, _ in told} <= {400, 500}


def test_nor_do_commands(driven):
    assert [(found, text[:300]) for text in driven.printed if (found := driven.spoken(text))] == []


def test_secrets_are_base64_in_no_log_either(driven):
    """As a Basic header carries them, whatever the user name before."""
    log = driven.server.log
    for name, secret in driven.secrets.items():
        for user in ("", "x", "xx", "anybody:", "me:"):
            encoded = base64.b64encode(f"{user}{secret}".encode()).decode()[4:-4]
            assert encoded not in log, name
