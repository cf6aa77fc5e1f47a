"""What commands leave in the audit trail."""

from __future__ import annotations

import time

import click

from auth.audit import AuditTrail, Event, What, system_user
from storage.db import Database
from storage.errors import StorageError
from storage.reference import RepositoryName


def leave(
    database: Database,
    what: What,
    *,
    namespace: str | None = None,
    repository: RepositoryName | None = None,
    reference: str | None = None,
    detail: str = "",
) -> None:
    """A row for what a command has done, by whoever typed it. What has been done stays done without it.

    namespace: the repository's own where one is given.
    """
    row = Event(
        what,
        system_user(),
        time.time(),
        namespace=repository.namespace if repository is not None else namespace,
        repository=str(repository) if repository is not None else None,
        reference=reference,
        detail=detail or None,
    )
    try:
        AuditTrail(database).write(row)
    except StorageError as error:
        click.echo(f"tonnage: done, but not recorded in the audit trail: {error}", err=True)
