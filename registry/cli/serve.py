"""Commands that run a server or look after its installation."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from auth.audit import What
from auth.key_set import KeySet
from auth.published_keys import PublishedKeys
from auth.tokens import FIRST_ADMIN, AccessTokens
from migrations.run import upgrade
from registry.cli.traces import leave
from registry.config import Config, ConfigInvalid, load_config
from registry.server import CannotServe, make_folders
from registry.server import serve as run_server
from storage.db import Database
from storage.drivers.choose import check_bucket
from storage.errors import StorageError, StorageUnavailable

_SERVE_OPTIONS = (
    click.option("--listen", metavar="HOST:PORT", help="Where to listen (TONNAGE_LISTEN)."),
    click.option("--data", metavar="DIR", help="The data folder (TONNAGE_DATA)."),
    click.option("--database-url", metavar="URL", help="SQLAlchemy URL (TONNAGE_DATABASE_URL)."),
    click.option("--external-url", metavar="URL", help="How clients address this server (TONNAGE_EXTERNAL_URL)."),
    click.option("--node", metavar="NAME", help="Of one of several servers; else the host's (TONNAGE_NODE)."),
    click.option("--access", metavar="keyed|open", help="Who may write (TONNAGE_ACCESS)."),
    click.option("--workers", metavar="N", help="Web processes (TONNAGE_WORKERS)."),
    click.option("--threads", metavar="N", help="Threads of each (TONNAGE_THREADS)."),
    click.option("--limit-rate-down", metavar="RATE", help="Bytes a second from others (TONNAGE_LIMIT_RATE_DOWN)."),
    click.option("--limit-rate-up", metavar="RATE", help="Bytes a second to others (TONNAGE_LIMIT_RATE_UP)."),
    click.option("--mirror-high", metavar="SIZE", help="Mirrored blobs go above this (TONNAGE_MIRROR_HIGH)."),
    click.option("--mirror-low", metavar="SIZE", help="Until so much is left (TONNAGE_MIRROR_LOW)."),
    click.option("--cache-bytes", metavar="SIZE", help="Of local copies of a bucket's weights (TONNAGE_CACHE_BYTES)."),
    click.option("--memory-budget", metavar="SIZE", help="For loaded models (TONNAGE_MEMORY_BUDGET)."),
    click.option("--keep-alive", metavar="DURATION", help="Of idle models (OLLAMA_KEEP_ALIVE)."),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error (TONNAGE_LOG_LEVEL)."),
    click.option("--i-know", is_flag=True, default=None, help="Allow open access on a network address."),
)


def with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data` and `--database-url` for commands that work on the installation itself."""
    for option in _SERVE_OPTIONS[1:3]:
        command = option(command)
    return command


def config_of(**flags: object) -> Config:
    """The settings, or a one-line usage failure."""
    try:
        return load_config(flags)
    except ConfigInvalid as error:
        raise click.ClickException(str(error)) from error


def open_database(config: Config) -> Database:
    """The database with its schema up to date, for commands beside or without a running server."""
    _check_user(config)
    try:
        make_folders(config)
        upgrade(config.database_url)
    except (CannotServe, StorageError) as error:
        raise click.ClickException(str(error)) from error
    return Database(config.database_url)


@contextmanager
def opened_database(config: Config, *expected: type[Exception]) -> Iterator[Database]:
    """The database, for as long as a command works on it; what is expected to go wrong is one line."""
    refusals: tuple[type[Exception], ...] = (StorageError, *expected)
    database = open_database(config)
    try:
        yield database
    except refusals as error:
        raise click.ClickException(str(error)) from error
    finally:
        database.close()


def _check_user(config: Config) -> None:
    """Files that root makes are root's: the server, as another user, could neither read them nor write beside them."""
    with suppress(OSError):
        owner = config.run_path.stat().st_uid
        if os.geteuid() == 0 != owner:
            name = f"user {owner}"
            with suppress(KeyError):
                name = pwd.getpwuid(owner).pw_name
            raise click.ClickException(f"{config.data_path} is kept by {name}; run this as that user: sudo -u {name} …")


@click.command()
def serve(**flags: object) -> int:
    """Run the server: registry, mirror and runtime on one port."""
    config = config_of(**flags)
    try:
        check_bucket(config.bucket)
        return run_server(config, announce=click.echo, prepare=_prepare)
    except (CannotServe, StorageUnavailable) as error:
        raise click.ClickException(str(error)) from error


for _option in reversed(_SERVE_OPTIONS):
    serve = _option(serve)


def _prepare(config: Config) -> None:
    """Tell the other nodes what this one signs with; print the first token, if there has never been one."""
    database = Database(config.database_url, connections=1)
    try:
        PublishedKeys(database).publish(KeySet(config.keys_path).own)
        secret = AccessTokens(database).ensure_first_admin()
        if secret is not None:
            leave(database, What.TOKEN_CREATE, reference=FIRST_ADMIN, detail="first start")
    finally:
        database.close()
    if secret is not None:
        click.echo("First start. The admin token, shown this once:")
        click.echo(secret)


@click.command()
@with_config
def migrate(**flags: object) -> None:
    """Bring the database's schema up to date."""
    open_database(config_of(**flags)).close()
    click.echo("the schema is up to date")


@click.command()
@with_config
def doctor(**flags: object) -> int:
    """Check the installation and say what to fix."""
    config = config_of(**flags)
    findings = [_folder_finding(config), *_bucket_findings(config), *_tool_findings(), _runtime_finding()]
    for is_fine, line in findings:
        click.echo(f"{'ok  ' if is_fine else 'FIX '} {line}")
    return 0 if all(is_fine for is_fine, _ in findings) else 1


def _bucket_findings(config: Config) -> list[tuple[bool, str]]:
    if config.bucket is None:
        return []
    try:
        check_bucket(config.bucket)
    except StorageUnavailable as error:
        return [(False, str(error))]
    return [(True, f"the bucket {config.bucket.bucket} answers")]


def _folder_finding(config: Config) -> tuple[bool, str]:
    try:
        make_folders(config)
    except CannotServe as error:
        return False, str(error)
    free_gib = shutil.disk_usage(config.data_path).free / 2**30
    return free_gib > 1, f"data folder {config.data_path}, {free_gib:.1f} GiB free"


def _tool_findings() -> list[tuple[bool, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    sqlite_is_new = sqlite3.sqlite_version_info >= (3, 35)
    return [
        (sys.version_info >= (3, 11), f"Python {version}"),
        (sqlite_is_new, f"SQLite {sqlite3.sqlite_version}{'' if sqlite_is_new else ': 3.35 or newer is needed'}"),
    ]


def _runtime_finding() -> tuple[bool, str]:
    if importlib.util.find_spec("llama_cpp") is not None:
        return True, "the runtime is installed"
    compilers = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
    missing = "" if compilers else " (first a C++ compiler: Debian's package g++, or Xcode's command line tools)"
    source = Path(__file__).name and "pip install 'tonnage[runtime]'"
    return False, f"the runtime is not installed, models are stored but do not run: {source}{missing}"
