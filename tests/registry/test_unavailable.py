"""What is told while the store cannot answer: 503 in the words of the face, with when to ask again."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from registry.app import create_app
from registry.config import Config
from storage.errors import StorageUnavailable, TransactionLost
from tests.databases import NO_SERVER, migrated_postgresql_database, url_of, with_settings


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

    app = create_app(Config(data=str(tmp_path), database_url=url_of(tmp_path), access="open"))
    app.view_functions[endpoint] = fail

    refused = app.test_client().open(path, method=method)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert "the database is locked" in refused.text


@pytest.mark.parametrize("path", ["/v2/team/model/tags/list", "/api/tags"])
@NO_SERVER
def test_rows_that_somebody_holds_too_long_are_503_with_when_to_return(tmp_path: Path, path: str) -> None:
    with migrated_postgresql_database() as url, psycopg.connect(url) as other:
        hurried = with_settings(url, lock_timeout="50ms")
        app = create_app(Config(data=str(tmp_path), database_url=hurried, access="open"))
        other.execute("LOCK TABLE repositories IN ACCESS EXCLUSIVE MODE")

        refused = app.test_client().get(path)

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert "the database is busy" in refused.text


def test_a_transaction_that_was_lost_for_good_is_503_with_when_to_return(tmp_path: Path) -> None:
    def fail() -> NoReturn:
        raise TransactionLost("the database gave up the transaction for another one")

    app = create_app(Config(data=str(tmp_path), database_url=url_of(tmp_path), access="open"))
    app.view_functions["ping/v2"] = fail

    refused = app.test_client().get("/v2")

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json is not None
    assert refused.json["errors"][0]["code"] == "UNAVAILABLE"


def test_the_anthropic_dialect_calls_it_overload(tmp_path: Path) -> None:
    def fail() -> NoReturn:
        raise StorageUnavailable("the database is locked")

    app = create_app(Config(data=str(tmp_path), database_url=url_of(tmp_path), access="open"))
    app.view_functions["anthropic.messages"] = fail

    told = app.test_client().post("/v1/messages").json

    assert told is not None
    assert told["error"]["type"] == "overloaded_error"
