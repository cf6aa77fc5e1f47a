"""import-ollama: the models of an Ollama installation on this machine, straight into the store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from auth.audit import What, system_user
from registry.cli.connection import FILE
from registry.cli.serve import with_config
from registry.cli.store import open_store
from registry.cli.tables import size_text
from registry.cli.traces import leave
from registry.ollama_store.blobs import Blobs, How
from registry.ollama_store.errors import FolderUnfit, ModelRefused
from registry.ollama_store.folder import ManifestFile, OllamaFolder, Skipped, Unreadable, spelt
from registry.ollama_store.models import Imported, Models, Tally, name_of
from registry.remotes.progress import progress_on
from storage.errors import NameInvalid
from storage.store import Store


@click.command("import-ollama")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--copy", "copies", is_flag=True, help="Copy every blob, also where a link to Ollama's file would do.")
@click.option("--replace", "replaces", is_flag=True, help="Let a model replace one of its name with other content.")
@with_config
def import_ollama(folder: Path, copies: bool, replaces: bool, **flags: object) -> int:
    """Take the models in DIR, an Ollama models folder (~/.ollama/models), into the store.

    Every blob is hashed. A file that belongs to whoever runs this, and that nobody else may write to, is linked if it
    lies on the store's filesystem, so it needs no space twice and stays when Ollama removes it; others are copied. DIR
    is only read. A model that lacks something, cannot be read or would go below a mirror is left out, and the status
    is 1. Import again to go on after a cut.
    """
    who = system_user()
    with open_store(flags) as store:
        try:
            with OllamaFolder.opened(folder) as opened:
                blobs = Blobs(store, opened, progress_on(), principal=who, may_link=not copies)
                run = _Run(store, Models(store, blobs, principal=who, replaces=replaces))
                for found in opened.models():
                    run.take(found)
        except FolderUnfit as error:
            raise click.ClickException(str(error)) from error
    click.echo(run.summary)
    return 1 if run.counts["refused"] else 0


class _Run:
    """A line for each model, and what they come to."""

    def __init__(self, store: Store, models: Models) -> None:
        self._store, self._models = store, models
        self.counts, self._total = Counter[str](), Tally()

    def take(self, found: ManifestFile | Skipped | Unreadable) -> None:
        if not isinstance(found, ManifestFile):
            self._say("skipped" if isinstance(found, Skipped) else "refused", found.where, found.why)
            return
        try:
            name = name_of(found)
        except NameInvalid:
            self._say("skipped", spelt(found.parts), "is no name that a model can have here")
            return
        try:
            imported = self._models.bring(name, found.raw)
        except ModelRefused as error:
            self._say("refused", f"{name.repository}:{name.tag}", str(error))
            return
        self._total += imported.tally
        kind = "already here" if imported.stored is None else "imported"
        self._say(kind, f"{imported.name.repository}:{imported.name.tag}", _counted(imported.tally))
        self._record(imported)

    @property
    def summary(self) -> str:
        counts = ", ".join(f"{self.counts[kind]} {kind}" for kind in ("imported", "already here", "refused", "skipped"))
        return f"models: {counts}; blobs: {_counted(self._total)}"

    def _say(self, kind: str, what: str, more: str) -> None:
        self.counts[kind] += 1
        click.echo(f"{kind}\t{what}\t{more}")

    def _record(self, imported: Imported) -> None:
        name, stored = imported.name, imported.stored
        if stored is None:
            return
        database, told = self._store.database, f"from Ollama's folder: {stored.digest}"
        leave(database, What.IMPORT_MODEL, repository=name.repository, reference=str(name.tag), detail=told)
        for tag, before in stored.replaced:
            if before != stored.digest:
                moved = f"from {before} to {stored.digest}"
                leave(database, What.TAG_MOVE, repository=name.repository, reference=str(tag), detail=moved)


def _counted(tally: Tally) -> str:
    return ", ".join(f"{tally.blobs[how]} {how.value} ({size_text(tally.sizes[how])})" for how in How)
