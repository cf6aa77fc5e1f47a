"""A data folder into which Ollama's models are imported, as it is typed; and what is in it then."""

from __future__ import annotations

import time
from pathlib import Path

import click
from click.testing import CliRunner, Result
from sqlalchemy import update

from registry.cli import group
from storage.db import Database
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.models import BlobLink, Object
from storage.reference import ModelName, RepositoryName
from storage.store import Store
from tests.databases import migrated
from tests.ollama_folder import DEFAULT

WEIGHTS, TEMPLATE = b"GGUF" + bytes(range(256)) * 40, b"{{ .Prompt }}"
PLACE, NAME = f"{DEFAULT}/llama3/8b", "library/llama3:8b"
MIB = 2**20


class Installation:
    """A data folder, and the command as it is typed there."""

    def __init__(self, data: Path) -> None:
        self.data, self.url = data, migrated(data)
        self.store = Store(Database(self.url), FilesystemDriver(data))

    def run(self, folder: Path, *options: str) -> Result:
        words = ["import-ollama", str(folder), "--data", str(self.data), "--database-url", self.url, *options]
        return CliRunner().invoke(group, words, standalone_mode=False)  # as the console script does

    def imports(self, folder: Path, *options: str, status: int = 0) -> list[list[str]]:
        """The lines, each as its columns."""
        done = self.run(folder, *options)
        assert done.exception is None, done.output
        assert done.return_value == status, done.output
        return [line.split("\t") for line in done.output.splitlines()]

    def refusal(self, folder: Path) -> str:
        """The one line of an import that does not begin."""
        error = self.run(folder).exception
        assert isinstance(error, click.ClickException), error
        return error.format_message()

    def raw(self, name: str) -> bytes:
        model = ModelName.parse(name)
        return self.store.repositories.get_manifest(model.repository, model.tag).raw

    def file(self, name: str, digest: Digest) -> Path:
        path = self.store.blobs.local_path(ModelName.parse(name).repository, digest)
        assert path is not None
        return path

    def tags(self) -> list[str]:
        """Everything that a reader can ask for."""
        repositories = self.store.repositories
        names, _ = repositories.catalog()
        return sorted(f"{name}:{tag}" for name in names for tag in repositories.tags(RepositoryName(name))[0])


def let_leases_lapse(store: Store) -> None:
    with store.database.write() as session:
        for table in (Object, BlobLink):
            session.execute(update(table).values(lease_until=time.time() - 1))
