"""What every client command shares: the options that reach a server, and errors of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from auth.errors import AuthError
from auth.keys import PrivateKey
from registry import config
from registry.remotes.api import Api
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import RemoteError
from registry.remotes.http import Origin, Outbound
from registry.remotes.rate import Limits
from runtime.errors import ModelfileInvalid
from storage.errors import StorageError
from storage.reference import ModelName

FILE = click.Path(path_type=Path)
_MAX_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Connection:
    """How the options of a command reach its server."""

    server: str
    http: Outbound
    token: str | None

    @property
    def api(self) -> Api:
        return Api(self.http, self.server, self.token)

    def repository(self, name: ModelName, key: PrivateKey | None, *, is_pushing: bool) -> RemoteRepository:
        auth = Authenticator(self.http, key=key, token=self.token)
        return RemoteRepository(auth, self.server, name.repository, is_pushing=is_pushing)


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every client command has."""
    for option in (
        click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate."),
        click.option("--ca-file", type=FILE, help="PEM file of the authority that signed the server's certificate."),
        click.option("--token-file", type=FILE, help="File with an access token, or USER:PASSWORD."),
        click.option("--server", metavar="URL", help="The server (TONNAGE_SERVER)."),
    ):
        command = option(command)
    return command


def limits_rate(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--limit-rate`, for commands that move whole models."""
    option = click.option("--limit-rate", metavar="RATE", help="Bytes a second to move at most, such as 20M.")
    return option(command)


def connect(
    *,
    server: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    insecure: bool,
    limit_rate: str | None = None,
) -> Connection:
    """The connection that these options ask for. Raises RemoteError, ClickException, ConfigInvalid."""
    rate = config.parse_rate("--limit-rate", limit_rate) if limit_rate is not None else 0
    server = server or config.client_settings().server
    origin = Origin.of(server)
    if urlsplit(server)._replace(scheme="", netloc="").geturl() not in {"", "/"}:
        raise click.ClickException(f"{server[:200]} is no server URL; write {origin} without a path")
    if ca_file is not None and not ca_file.is_file():
        raise click.ClickException(f"there is no file {ca_file}")
    if insecure and origin.scheme == "https":
        click.echo(
            "warning: the server's certificate is not verified; anyone on the way can read and change this", err=True
        )
    http = Outbound(ca_file=ca_file, verify_tls=not insecure, limits=Limits.of(rate, rate))
    return Connection(str(origin), http, _token(token_file))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Whatever stops a command becomes one line that says so."""
    try:
        yield
    except (RemoteError, AuthError, StorageError, ModelfileInvalid, config.ConfigInvalid) as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        text = file.read(_MAX_TOKEN).decode("ascii", "replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise click.ClickException(f"{path} holds no token: one line of printable ASCII is expected")
    return text
