"""Alembic's entry: the metadata of every package that has tables, over the connection of `migrations.run`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from alembic import context

from storage.db import Base

_TABLES = ("storage.models", "auth.models", "registry.remotes.models", "registry.mirror.models")

for module in _TABLES:
    if find_spec(module) is not None:
        import_module(module)

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
