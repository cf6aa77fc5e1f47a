"""Commands for mirrors: repositories that are another registry's, fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from auth.audit import What
from registry.cli.serve import config_of, opened_database, with_config
from registry.cli.traces import leave
from registry.config import Config, ConfigInvalid, parse_duration
from registry.mirror.mirrors import SETTLE_S, Mirror, Mirrors, parse_mirror
from registry.mirror.schedule import LEAST_EVERY_S, Schedule
from registry.mirror.sync import Means, Sync, Synced
from registry.remotes.errors import RemoteError
from registry.remotes.service import Remotes
from registry.remotes.settings import read_token
from storage.db import Database
from storage.drivers.choose import open_driver
from storage.reference import RepositoryName
from storage.store import Store


@click.group()
def mirror() -> None:
    """Repositories that are another registry's, fetched when they are first asked for."""


@mirror.command("add")
@click.argument("prefix")
@click.argument("upstream")
@click.option("--ttl", metavar="DURATION", default="5m", show_default=True, help="How long a tag is believed.")
@click.option(
    "--allow", "patterns", metavar="PATTERN", multiple=True, help="repository[:tag] below PREFIX, with * and ?."
)
@click.option("--token-file", type=click.Path(path_type=Path), help="What UPSTREAM wants: a token, or user:password.")
@click.option(
    "--public",
    "is_public",
    is_flag=True,
    help="Let everybody pull, where the namespace is new; with a token, also where it is public.",
)
@click.option("--adopt", "adopts", is_flag=True, help="What is here below PREFIX came from UPSTREAM; keep it as such.")
@with_config
def add_mirror(
    prefix: str,
    upstream: str,
    *,
    ttl: str,
    patterns: tuple[str, ...],
    token_file: Path | None,
    is_public: bool,
    adopts: bool,
    **flags: object,
) -> None:
    """Let the repositories below PREFIX be those of UPSTREAM, `[http://]host[:port][/path]`.

    Without a path, a PREFIX that begins with a host (hf.co) stands for all of that registry, any other (library) for
    the same path there. Nothing can be pushed below PREFIX any more, and nothing may have been: what a removed mirror
    fetched counts as pushed too, and --adopt takes it back. It is then given up and fetched again like all the rest.

    A mirror of the same UPSTREAM that is there already gets the other options as they are given now.
    """
    with opened_database(config_of(**flags), RemoteError, ConfigInvalid) as database:
        found = parse_mirror(
            prefix,
            upstream,
            ttl_s=parse_duration("--ttl", ttl),
            patterns=patterns,
            token_path=token_file.absolute() if token_file is not None else None,
        )
        if found.ttl_s < 0:
            raise click.ClickException("--ttl must be a duration such as 5m; a very long one asks hardly ever")
        if found.token_path is not None:
            read_token(found.token_path)
        is_new = Mirrors(database).add(found, is_public=is_public, adopts=adopts, settle_s=SETTLE_S)
        detail = f"of {found}" if is_new else f"of {found}, changed"
        leave(database, What.MIRROR_CHANGE, namespace=found.prefix.namespace, reference=prefix, detail=detail)
    click.echo(f"{found.prefix} mirrors {found}" if is_new else f"{found.prefix} mirrors {found}: changed")


@mirror.command("list")
@with_config
def list_mirrors(**flags: object) -> None:
    """List the mirrors."""
    with opened_database(config_of(**flags), RemoteError, ConfigInvalid) as database:
        for each in Mirrors(database).list():
            admitted = ",".join(each.patterns) or "all"
            schedule = f"every {each.sync_every_s:.0f} s" if each.sync_every_s else "when asked for"
            click.echo(f"{each.prefix}\t{each}\tttl {each.ttl_s:.0f} s\t{admitted}\t{schedule}")


@mirror.command("remove")
@click.argument("prefix")
@with_config
def remove_mirror(prefix: str, **flags: object) -> None:
    """Stop mirroring below PREFIX; what was fetched stays, as if it had been pushed (`add --adopt` takes it back)."""
    with opened_database(config_of(**flags), RemoteError, ConfigInvalid) as database:
        Mirrors(database).remove(RepositoryName.parse(prefix))
        leave(
            database, What.MIRROR_CHANGE, namespace=RepositoryName(prefix).namespace, reference=prefix, detail="removed"
        )
    click.echo(f"removed {prefix}")


@mirror.command("sync")
@click.argument("prefixes", metavar="[PREFIX]...", nargs=-1)
@click.option("--allow", metavar="PATTERN", multiple=True, help="repository[:tag]: only those, this time.")
@click.option("--schedule", metavar="DURATION|off", help="Do not sync now; let the server do it so often, or never.")
@with_config
def sync_mirrors(prefixes: tuple[str, ...], allow: tuple[str, ...], schedule: str | None, **flags: object) -> int:
    """Bring all that the mirrors below each PREFIX admit up to date; without one, of every mirror.

    What fails is told, the rest goes on, and the status is 1. What the upstream does not list is what the patterns name
    in full, and what is here.
    """
    if schedule is not None and allow:
        raise click.UsageError("--allow is for one sync; a schedule follows the mirror's own patterns")
    config = config_of(**flags)
    with opened_database(config, RemoteError, ConfigInvalid) as database:
        mirrors = Mirrors(database)
        chosen = [mirrors.get(RepositoryName.parse(each)) for each in prefixes] if prefixes else mirrors.list()
        if schedule is not None:
            _set_schedule(database, chosen, schedule)
            return 0
        return _sync_now(config, database, chosen, allow)


def _set_schedule(database: Database, chosen: Sequence[Mirror], text: str) -> None:
    every_s = None if text == "off" else parse_duration("--schedule", text)
    if every_s is not None and every_s < LEAST_EVERY_S:
        raise click.ClickException(f"--schedule must be off, or a duration of at least {LEAST_EVERY_S:.0f} s")
    for each in chosen:
        Schedule(database).put(each.prefix, every_s)
        detail = "sync off" if every_s is None else f"sync every {every_s:.0f} s"
        leave(database, What.MIRROR_CHANGE, namespace=each.prefix.namespace, reference=str(each.prefix), detail=detail)
        click.echo(f"{each.prefix}: {detail}")


def _sync_now(config: Config, database: Database, chosen: Sequence[Mirror], allow: tuple[str, ...]) -> int:
    """The exit status."""
    store = Store(database, open_driver(config.data_path, config.bucket))
    means = Means.of(Remotes(config.remotes), store, most_bytes=config.mirror_low_bytes or None)
    total = Synced()
    for each in chosen:
        total += Sync(means, each, tell=click.echo, allow=allow).run()
    failed = f", {total.failures} failures" if total.failures else ""
    click.echo(f"{total.tags} tags up to date, fetched {total.blobs} blobs, {total.size} bytes{failed}")
    return 1 if total.failures else 0
