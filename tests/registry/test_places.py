"""Where a model's name points to."""

from pathlib import Path

import pytest

from registry.remotes.http import Origin
from registry.remotes.places import find_place
from registry.remotes.settings import RemoteSettings
from storage.reference import ModelName

UPSTREAM = Origin("https", "registry.ollama.ai", 443)


def place(text, *, insecure=False, upstream=UPSTREAM):
    return find_place(text, ModelName.parse(text), upstream, insecure=insecure)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("m", "https://registry.ollama.ai"),
        ("hf.co/org/m", "https://hf.co"),
        ("docker.io/ai/m", "https://registry-1.docker.io"),
        ("https://Docker.IO/ai/m:v1", "https://registry-1.docker.io"),
        ("index.docker.io/ai/m", "https://registry-1.docker.io"),
        ("registry-1.docker.io/ai/m", "https://registry-1.docker.io"),
        ("docker.io:5000/ai/m", "https://docker.io:5000"),
        ("docker.io.example/ai/m", "https://docker.io.example"),
    ],
)
def test_a_name_leads_to_its_registry(text, server):
    assert str(place(text).server) == server


def test_plain_http_stays_plain():
    assert str(place("docker.io/ai/m", insecure=True).server) == "http://registry-1.docker.io"


def test_an_upstream_may_be_called_as_people_call_it():
    assert str(place("ai/m", upstream=Origin("https", "docker.io", 443)).server) == "https://registry-1.docker.io"


def test_the_model_is_kept_here_by_the_name_that_was_asked_for():
    assert place("docker.io/AI/m:v1").name.display == "docker.io/ai/m:v1"


@pytest.mark.parametrize("server", ["docker.io", "https://index.docker.io", "registry-1.docker.io"])
def test_a_token_for_the_name_is_the_registrys(tmp_path, server):
    (tmp_path / "token").write_text("me:secret\n")
    settings = RemoteSettings.of(str(UPSTREAM), (), (f"{server}={tmp_path}/token",), Path(tmp_path), 1)

    assert settings.token_for(place("docker.io/ai/m").server) == "me:secret"
    assert settings.token_for(UPSTREAM) is None
