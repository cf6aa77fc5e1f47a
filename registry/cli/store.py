"""Commands that look after the stored bytes, beside a running server or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from registry.cli.serve import config_of, opened_database, with_config
from registry.config import ConfigInvalid, parse_size
from storage.drivers.choose import open_driver
from storage.gc import Swept
from storage.store import Store

_MAX_SWEEPS = 1000


@contextmanager
def open_store(flags: dict[str, object]) -> Iterator[Store]:
    """The store that `--data` and `--database-url` name; what it refuses is one line."""
    config = config_of(**flags)
    with opened_database(config) as database:
        yield Store(database, open_driver(config.data_path, config.bucket))


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed now, and remove nothing.")
@click.option("--orphans", is_flag=True, help="Also bytes of which no row has told for two days, after a crash.")
@with_config
def gc(dry_run: bool, orphans: bool, **flags: object) -> None:
    """Remove blobs that no manifest lists and no push under way relies on; clients may push meanwhile.

    A server does it by itself every few minutes. Do not use --orphans after restoring an old database: it removes what
    only the newer one knows.
    """
    with open_store(flags) as store:
        if dry_run:
            click.echo(f"would remove {_counted(store.collector.candidates())}")
            return
        if orphans:
            click.echo(f"found {store.collector.adopt_orphans()} orphans")
        total = Swept()
        for _ in range(_MAX_SWEEPS):
            swept = store.collector.sweep()
            total += swept
            if swept == Swept():
                break
        click.echo(f"removed {_counted(total)}")


@click.command()
@click.option("--rate", metavar="SIZE", default="100M", help="Bytes to read in a second; 100M unless told otherwise.")
@with_config
def scrub(rate: str, **flags: object) -> int:
    """Read every blob again; report and quarantine what is no longer what its digest says.

    What is quarantined is kept, but served no more: push the model again and it is whole.
    """
    try:
        bytes_a_second = parse_size("--rate", rate)
    except ConfigInvalid as error:
        raise click.UsageError(str(error)) from error
    if bytes_a_second < 1:
        raise click.UsageError("--rate must be at least one byte")
    objects = size = problems = 0
    with open_store(flags) as store:
        for checked in store.scrubber.run(rate=bytes_a_second):
            objects, size = objects + 1, size + checked.size
            if checked.problem is not None:
                problems += 1
                click.echo(f"{checked.problem.value}\t{','.join(map(str, checked.digests))}\t{checked.key}")
    click.echo(f"read {objects} objects, {readable(size)}; {problems} with a problem")
    return 1 if problems else 0


def _counted(swept: Swept) -> str:
    return f"{swept.objects} objects, {readable(swept.size)}, and {swept.links} links"


def readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
