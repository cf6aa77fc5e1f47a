from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert

import auth.models  # noqa: F401
from auth.grants import KeyGrants
from auth.identity import Role
from auth.tokens import AccessTokens
from migrations.run import downgrade, upgrade
from storage.db import Base, Database
from storage.models import Namespace
from tests.auth.vectors import FINGERPRINT
from tests.databases import url_of

OWN = ("key_grants", "access_tokens", "used_nonces")


def test_the_step_makes_exactly_the_tables_of_the_code_and_goes_back(tmp_path: Path, key):
    url = url_of(tmp_path)
    upgrade(url)
    database = Database(url)
    with database.write() as transaction:
        transaction.execute(insert(Namespace).values(name="alice", is_private=True, created_at=0.0))
    KeyGrants(database).add("alice", key.public, "push")
    AccessTokens(database).create("ci", scopes=["pull"])

    with database.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    differences = [each for each in differences if any(table in repr(each) for table in OWN)]
    assert differences == []
    database.close()

    downgrade(url, "0001")
    upgrade(url)

    again = Database(url)
    assert KeyGrants(again).list() == ()
    KeyGrants(again).add("alice", key.public, "pull")
    assert KeyGrants(again).roles_of(FINGERPRINT) == {"alice": Role.PULL}
    again.close()
