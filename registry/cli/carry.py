"""export, import and inventory: models carried to where no network reaches, straight between stores and files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

import click

from auth.audit import What
from auth.errors import AuthError
from auth.keys import MAX_LINE, PublicKey, is_fingerprint
from registry.carry.errors import CarryError
from registry.carry.importer import Importer
from registry.carry.inventory import digests_in, inventory_lines, write_inventory
from registry.carry.layout import ModelAt
from registry.carry.plan import Plan
from registry.carry.reader import opened
from registry.carry.selection import chosen
from registry.carry.signature import Trust
from registry.carry.writer import ArchiveWriter
from registry.cli.serve import config_of, with_config
from registry.cli.store import open_store, readable
from registry.cli.traces import leave
from registry.remotes.identity import FILE_NAME, server_identity
from registry.remotes.progress import progress_on
from storage.db import Database
from storage.errors import StorageError
from storage.reference import ModelName
from storage.repositories import StoredManifest

_FILE: Final = click.Path(path_type=Path)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE.tar", type=_FILE, required=True, help="Where to.")
@click.option(
    "--since", "since", metavar="FILE", type=_FILE, multiple=True,
    help="Leave out the blobs in this inventory or earlier archive; may be repeated.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an existing file.")
@with_config
def export(names: tuple[str, ...], output: Path, since: tuple[Path, ...], force: bool, **flags: object) -> None:
    """Write models into one archive, an OCI image layout signed by this server.

    NAME is a model, or a pattern such as 'namespace/*' for every tag that fits. An export that was ended goes on where
    it stopped when it is started again. The other side brings it in by: tonnage import FILE.tar
    """
    if output.is_dir():
        raise click.ClickException(f"{output} is a folder; name a file as --output")
    if os.path.lexists(output) and not force:
        raise click.ClickException(f"{output} exists; choose another --output, or --force")
    progress = progress_on()
    with _one_line_errors(), open_store(flags) as store:
        key = server_identity(config_of(**flags).keys_path)
        models = chosen(store.repositories, names)
        plan = Plan.of(store, models)
        plan.leave_out(chain.from_iterable(map(digests_in, since)))
        written = ArchiveWriter(store, plan, key, progress).write(output, replaces=force)
        for at in models:
            _trace(store.database, What.EXPORT_MODEL, at, f"to {output.name}")
    left = f", {plan.left_out} blobs left out" if since else ""
    kept = f", {readable(written.kept)} of it from an earlier run" if written.kept else ""
    progress.say(f"exported {_models(len(models))} into {output}: {readable(written.size)}{kept}{left}")
    progress.say(f"signed by {key.public.fingerprint}; elsewhere: tonnage import --trust {key.public.fingerprint} FILE")


@click.command("import")
@click.argument("file", metavar="FILE.tar", type=_FILE)
@click.option("--trust", metavar="FINGERPRINT|PUBKEY_FILE", multiple=True, help="Whose archives to take.")
@click.option("--any-signer", is_flag=True, help="Take it whoever signed it, or if nobody did.")
@click.option("--as", "name", metavar="NAME", help="What to call the only model of the archive.")
@with_config
def import_models(file: Path, trust: tuple[str, ...], any_signer: bool, name: str | None, **flags: object) -> int:
    """Bring in the models of an archive that `tonnage export` or another tool for OCI image layouts has written.

    What is here already is not read again; an import that was ended goes on where it stopped. A tag that names another
    model is moved, as by a pull: an older archive, which stays signed, moves it back. Nothing is put below a mirror.
    """
    progress = progress_on()
    with _one_line_errors(), opened(file) as archive:
        into = None if name is None else _place(name)
        signed = _trust(trust, any_signer, config_of(**flags).keys_path).admit(archive.signer)
        progress.say(f"{file}: {_models(len(archive.models))}, {signed}")
        with open_store(flags) as store:

            def tell(at: ModelAt, stored: StoredManifest) -> None:
                before = [old for _, old in stored.replaced if old != stored.digest]
                progress.say(f"imported {at}" + "".join(f", which named {old} until now" for old in before))
                _trace(store.database, What.IMPORT_MODEL, at, f"{stored.digest} from {file.name}, {signed}")
                for old in before:
                    _trace(store.database, What.TAG_MOVE, at, f"from {old} to {stored.digest}")

            brought = Importer(store, archive, progress, tell).run(into)
    refused = f", refused {brought.refused}" if brought.refused else ""
    progress.say(f"imported {_models(brought.models)}{refused}")
    return 1 if brought.refused else 0


@click.command()
@click.option("-o", "--output", metavar="FILE", type=_FILE, default="-", help="Where to.")
@with_config
def inventory(output: Path, **flags: object) -> None:
    """List the digest of every blob here, for `tonnage export --since` where models are carried from."""
    with _one_line_errors(), open_store(flags) as store:
        lines = inventory_lines(store.database)
        if str(output) != "-":
            write_inventory(output, lines)
            return
        for line in lines:
            click.echo(line)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (CarryError, AuthError, StorageError) as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the disk'}: {error.strerror}") from error


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"


def _place(name: str) -> ModelAt:
    model = ModelName.parse(name)
    return ModelAt(model.repository, model.tag)


def _trust(named: Iterable[str], any_signer: bool, keys_path: Path) -> Trust:
    """Whom to believe; this server itself, if it has ever needed a key."""
    own = server_identity(keys_path).public.fingerprint if (keys_path / FILE_NAME).exists() else None
    return Trust(own, frozenset(map(_fingerprint, named)), any_signer)


def _fingerprint(text: str) -> str:
    if is_fingerprint(text):
        return text
    try:
        with Path(text).open("rb") as file:
            line = file.read(MAX_LINE + 1).decode("utf-8", "replace")
    except OSError as error:
        raise CarryError(f"--trust {text} is no fingerprint, and as a key file: {error.strerror}") from error
    return PublicKey.parse(line).fingerprint


def _trace(database: Database, what: What, at: ModelAt, detail: str) -> None:
    leave(database, what, repository=at.repository, reference=str(at.tag), detail=detail)
