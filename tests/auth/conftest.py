from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from sqlalchemy import insert

import auth.models  # noqa: F401  # its tables must be known before they are created
from auth.access import AccessConfig, Gate, current_gate
from auth.errors import AccessDenied, Unauthorized
from auth.grants import KeyGrants, stored_privacy
from auth.keys import PrivateKey, sign_token_request, token_request_url
from auth.policy import Right
from auth.tokens import AccessTokens, TokenSigner
from registry import token
from storage.db import Base, Database
from storage.models import Namespace
from storage.reference import RepositoryName
from tests.auth.vectors import NONCE, SEED, TS
from tests.databases import url_of


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(float(TS))


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return url_of(tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """`public` and `alice` (private) exist; nobody has a grant."""
    database = Database(database_url)
    Base.metadata.create_all(database.engine)
    with database.write() as transaction:
        for name, is_private in (("public", False), ("alice", True), ("bob", True)):
            transaction.execute(insert(Namespace).values(name=name, is_private=is_private, created_at=0.0))
    yield database
    database.close()


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.from_seed(SEED)


@pytest.fixture
def tokens(database: Database, clock: Clock) -> AccessTokens:
    return AccessTokens(database, now=clock)


@pytest.fixture
def grants(database: Database, clock: Clock) -> KeyGrants:
    return KeyGrants(database, now=clock)


@pytest.fixture
def signer(tmp_path: Path, clock: Clock) -> TokenSigner:
    return TokenSigner(tmp_path / "keys", now=clock)


@dataclass
class Door:
    """A small app around the gate; `/check/<right>` answers with the caller's principal or the refusal."""

    app: Flask
    gate: Gate
    client: FlaskClient
    clock: Clock

    def token(self, key: PrivateKey, scope: str, *, nonce: str = NONCE, host: str = "localhost") -> object:
        """The answer to a signed token request."""
        url = token_request_url(f"http://{host}/v2/token", self.gate.service, scope, int(self.clock.now), nonce)
        target = url.removeprefix(f"http://{host}")
        return self.client.get(target, headers={"Host": host, "Authorization": sign_token_request(key, url)})

    def check(self, right: Right, wanted: str = "", *, path: str = "/check", **headers: str) -> object:
        """Ask for `right` on `wanted`, space-separated `name:action`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, query_string={"right": right, "wanted": wanted}, headers=named)


@pytest.fixture
def open_door(
    database: Database, signer: TokenSigner, tokens: AccessTokens, grants: KeyGrants, clock: Clock
) -> Callable[..., Door]:
    """A door with the given AccessConfig; keyed and reached over the network unless told otherwise."""

    def build(**settings: object) -> Door:
        config = AccessConfig(**settings)  # type: ignore[arg-type]
        gate = Gate(config, database, signer, tokens, grants, stored_privacy(database), now=clock)
        app = Flask(__name__)
        app.extensions["tonnage.gate"] = gate
        app.register_blueprint(token.bp)
        for rule in ("/check", "/api/check", "/v1/check"):
            app.add_url_rule(rule, endpoint=rule, view_func=_check)
        return Door(app, gate, app.test_client(), clock)

    return build


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door()


def _check() -> tuple[dict[str, object], int, dict[str, str]]:
    pairs = [each.rsplit(":", 1) for each in request.args["wanted"].split()]
    wanted = [(RepositoryName.parse(name), action) for name, action in pairs]
    try:
        identity = current_gate().check(Right(request.args["right"]), *wanted)
    except Unauthorized as error:
        return {"error": str(error), "detail": error.detail}, 401, {"WWW-Authenticate": error.challenge}
    except AccessDenied as error:
        return {"error": str(error)}, 403, {}
    return {"principal": identity.principal}, 200, {}


def basic(secret: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
