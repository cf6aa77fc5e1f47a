"""The files of `deploy/` agree with the program and with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from auth.policy import Right
from auth.rights import RIGHTS
from registry.config import GRACE_S, client_settings, load_config
from tests.deploy.proxies import DEPLOY
from tests.s3_server import s3_server
from tests.server import ROOT

FILES = sorted(path.name for path in DEPLOY.iterdir() if path.is_file())
ENTRY = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?P<rule>[:?-][^}]*)?\}")
# they name no model that runs: there is no audio, and nothing is searched for
WITHOUT_MODEL = {"/v1/audio/transcriptions", "/api/experimental/web_search", "/api/experimental/web_fetch"}
ROUTES = sorted({route for (_, route), right in RIGHTS.items() if right is Right.INFER} - WITHOUT_MODEL)


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """Every environment variable that the program reads."""
    environ = Asked()
    load_config(environ=environ)
    client_settings(environ)
    return environ.names


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_is_named_is_one(name: str, settings: set[str]) -> None:
    named = set(re.findall(r"\b(?:TONNAGE|OLLAMA)_[A-Z0-9_]*[A-Z0-9]\b", (DEPLOY / name).read_text()))

    assert named - settings == set()


def test_nginx_sends_exactly_the_requests_that_ask_a_model_by_its_name() -> None:
    (pattern,) = re.findall(r"location ~ (\S+) \{", (DEPLOY / "nginx.conf").read_text())

    assert sorted({route for _, route in RIGHTS if re.search(pattern, route)}) == ROUTES


def test_haproxy_sends_exactly_the_requests_that_ask_a_model_by_its_name() -> None:
    lines = re.findall(r"acl asks_a_model path (.+)", (DEPLOY / "haproxy.cfg").read_text())

    assert sorted(route for line in lines for route in line.split()) == ROUTES


def test_the_program_accepts_the_settings_of_every_node(compose: dict[str, Any]) -> None:
    found = [
        load_config(environ={name: filled(str(value)) for name, value in each["environment"].items()})
        for each in nodes(compose)
    ]

    assert [config.node for config in found] == ["node1", "node2", "node3"]
    assert len({config.database_url for config in found}) == 1
    assert {config.bucket.bucket if config.bucket else "" for config in found} == {
        compose["services"]["bucket"]["environment"]["BUCKET"]
    }


def test_proxies_and_nodes_know_each_others_addresses(compose: dict[str, Any]) -> None:
    addresses = [f"{address(node)}:11434" for node in nodes(compose)]

    for name in ("nginx.conf", "haproxy.cfg"):
        named = re.findall(r"[\d.]{7,}:\d+", (DEPLOY / name).read_text())
        assert named == addresses * 2, name
    assert {node["environment"]["TONNAGE_TRUSTED_PROXIES"] for node in nodes(compose)} == {
        address(compose["services"]["proxy"])
    }


def test_nothing_starts_before_its_secrets_are_set(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / ".env.example").read_text()
    required = {match["name"] for match in ENTRY.finditer(text) if (match["rule"] or "").startswith(":?")}
    secret = [
        str(value)
        for service in compose["services"].values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|KEY|DATABASE_URL", name)
    ]

    assert {match["name"] for match in ENTRY.finditer(text)} - required == {"PUBLISH"}
    assert set(re.findall(r"^([A-Z0-9_]+)=$", example, re.MULTILINE)) == required
    assert not re.search(r"^[A-Z0-9_]+=.", example, re.MULTILINE)
    assert secret
    assert all(":?" in value for value in secret)


def test_the_bucket_is_made_once(compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = compose["services"]["bucket"]
    (program,) = service["command"]
    with s3_server(tmp_path / "s3") as server:
        monkeypatch.setenv("BUCKET", "new-bucket")
        monkeypatch.setenv("ENDPOINT", server.endpoint)
        for _ in range(2):
            exec(program, {})  # boto3 takes a second to load, and is here
        client = boto3.session.Session().client("s3", endpoint_url=server.endpoint)
        names = [each["Name"] for each in client.list_buckets()["Buckets"]]

    assert service["entrypoint"] == ["python", "-c"]
    assert names.count("new-bucket") == 1


def test_the_image_holds_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = re.findall(r"^COPY (\w+) \./\1$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)

    assert copied == project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_image_is_built_on_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = re.findall(r"python (requirements\.py .+) >", (DEPLOY / "Containerfile").read_text())
    script, *extras = line.split()

    printed = subprocess.run(
        [sys.executable, str(DEPLOY / script), *extras],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert set(extras) == set(project["optional-dependencies"]) - {"dev"}
    assert printed.stdout.splitlines() == [
        *project["dependencies"],
        *(each for extra in extras for each in project["optional-dependencies"][extra]),
    ]


def test_whoever_stops_a_node_waits_for_its_streams(compose: dict[str, Any]) -> None:
    (unit_s,) = re.findall(r"TimeoutStopSec=(\d+)", (DEPLOY / "tonnage.service").read_text())
    graces_s = {int(node["stop_grace_period"].removesuffix("s")) for node in nodes(compose)}

    assert all(each > 2 * GRACE_S for each in {int(unit_s), *graces_s})


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        assert "CI" not in os.environ, "CI must install systemd"
        pytest.skip("no systemd-analyze")
    unit = tmp_path / "tonnage.service"
    text = (DEPLOY / "tonnage.service").read_text()
    unit.write_text(text.replace("/opt/tonnage/bin/tonnage", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]

    verified = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "/opt/tonnage/bin/tonnage serve" in text
    assert (verified.returncode, verified.stderr) == (0, "")


def nodes(compose: dict[str, Any]) -> list[dict[str, Any]]:
    return [service for name, service in compose["services"].items() if name.startswith("node")]


def address(service: dict[str, Any]) -> str:
    return str(service["networks"]["inside"]["ipv4_address"])


def filled(value: str) -> str:
    """With something in place of every variable."""
    return ENTRY.sub(lambda match: "https://models.test" if match["name"].endswith("URL") else "x", value)
