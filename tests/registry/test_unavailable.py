"""What is told while the store cannot answer: 503 in the words of the face, with when to ask again."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from registry.app import create_app
from registry.config import Config
from storage.errors import StorageUnavailable


@pytest.mark.parametrize(
    ("endpoint", "method", "path"),
    [
        ("about.version", "GET", "/api/version"),
        ("ollama.chat", "POST", "/api/chat"),
        ("anthropic.messages", "POST", "/v1/messages"),
        ("openai.chat_completions", "POST", "/v1/chat/completions"),
        ("ping/v2", "GET", "/v2"),
    ],
)
def test_a_store_that_cannot_answer_is_503_with_when_to_return(
    tmp_path: Path, endpoint: str, method: str, path: str
) -> None:
    def fail() -> NoReturn:
        raise StorageUnavailable("the database is locked")

    app = create_app(Config(data=str(tmp_path), database_url=f"sqlite:///{tmp_path}/tonnage.db", access="open"))
    app.view_functions[endpoint] = fail

    refused = app.test_client().open(path, method=method)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert "the database is locked" in refused.text


def test_the_anthropic_dialect_calls_it_overload(tmp_path: Path) -> None:
    def fail() -> NoReturn:
        raise StorageUnavailable("the database is locked")

    app = create_app(Config(data=str(tmp_path), database_url=f"sqlite:///{tmp_path}/tonnage.db", access="open"))
    app.view_functions["anthropic.messages"] = fail

    told = app.test_client().post("/v1/messages").json

    assert told is not None
    assert told["error"]["type"] == "overloaded_error"
