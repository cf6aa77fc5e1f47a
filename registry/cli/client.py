"""Commands that speak to a running server: push, pull, list, ps, run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from auth.errors import AuthError
from auth.keys import PrivateKey
from registry import config
from registry.cli.chat import answer_once, converse, read_piped_prompt
from registry.cli.tables import running_models, stored_models
from registry.remotes.api import Api
from registry.remotes.credentials import Authenticator
from registry.remotes.endpoint import RemoteRepository
from registry.remotes.errors import RemoteError
from registry.remotes.http import Origin, Outbound
from registry.remotes.package import build_package
from registry.remotes.progress import Progress, progress_on
from registry.remotes.pull import Pull, holds
from registry.remotes.push import Push
from registry.remotes.uploads import UploadNotes
from storage.errors import StorageError
from storage.reference import ModelName

_MAX_TOKEN = 16 * 1024
_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class _Connection:
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


def register(group: click.Group) -> None:
    for command in (push, pull, list_models, rm, ps, run):
        group.add_command(command)


def _connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every client command has."""
    for option in (
        click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate."),
        click.option("--ca-file", type=_FILE, help="PEM file of the authority that signed the server's certificate."),
        click.option("--token-file", type=_FILE, help="File with an access token, or USER:PASSWORD."),
        click.option("--server", metavar="URL", help="The server (TONNAGE_SERVER)."),
    ):
        command = option(command)
    return command


_key_option = click.option("--key", "key_path", type=_FILE, help="OpenSSH ed25519 key to identify with.")


@click.command()
@click.argument("file", type=_FILE)
@click.argument("name")
@click.option("--template", type=_FILE, help="File with the model's prompt template.")
@click.option("--system", default="", help="The model's system message.")
@click.option("--license", "licenses", type=_FILE, multiple=True, help="File with a licence; may be repeated.")
@_key_option
@_connects
def push(
    *,
    file: Path,
    name: str,
    template: Path | None,
    system: str,
    licenses: tuple[Path, ...],
    key_path: Path | None,
    **options: Any,
) -> None:
    """Push FILE, a GGUF model, as NAME (namespace/model:tag).

    An interrupted push goes on where it stopped when it is started again.
    """
    progress = progress_on()
    with _one_line_errors():
        model = ModelName.parse(name)
        _warn_of_tag(model, progress)
        connection = _connect(**options)
        key = None if connection.token else _identity(key_path, progress)
        bar = progress.bar("hashing", file.stat().st_size)
        package = build_package(file, template=template, system=system, licenses=licenses, hashed=bar.move)
        bar.close()
        remote = connection.repository(model, key, is_pushing=True)
        Push(remote, UploadNotes(config.client_settings().state_dir / "uploads"), progress).push(package, model.tag)
        progress.say(f"pushed {model} to {remote.home}")


@click.command()
@click.argument("name")
@click.option("-o", "--output", metavar="DIR|FILE", type=_FILE, help="Where to; ./MODEL-TAG.gguf when not given.")
@click.option("--force", is_flag=True, help="Replace an existing file that has other content.")
@_key_option
@_connects
def pull(name: str, output: Path | None, force: bool, key_path: Path | None, **options: Any) -> None:
    """Pull the weights of NAME (namespace/model:tag) into a file.

    An interrupted pull goes on where it stopped when it is started again.
    """
    progress = progress_on()
    with _one_line_errors():
        model = ModelName.parse(name)
        target = _target(output, model)
        connection = _connect(**options)
        key = None if connection.token else _known_identity(key_path)
        job = Pull(connection.repository(model, key, is_pushing=False), progress)
        layer = job.weights_layer(model.tag)
        if target.exists():
            progress.say(f"comparing {target}")
        if holds(target, layer):
            progress.say(f"{target} is up to date")
            return
        if target.exists() and not force:
            raise click.ClickException(f"{target} exists and has other content; choose another --output, or --force")
        job.fetch(layer, target)
        progress.say(f"pulled {model} into {target}")


@click.command("list")
@_connects
def list_models(**options: Any) -> None:
    """List the models that the server stores."""
    with _one_line_errors():
        click.echo(stored_models(_connect(**options).api.models("/api/tags"), datetime.now(UTC)))


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Give the space back at once, not at the server's next sweep.")
@_connects
def rm(names: tuple[str, ...], now: bool, **options: Any) -> None:
    """Delete the models NAMES from the server; layers that other models share stay."""
    with _one_line_errors():
        api = _connect(**options).api
        for name in names:
            api.delete(name, now=now)
            click.echo(f"deleted {name}")


@click.command()
@_connects
def ps(**options: Any) -> None:
    """List the models that are loaded."""
    with _one_line_errors():
        click.echo(running_models(_connect(**options).api.models("/api/ps"), datetime.now(UTC)))


@click.command()
@click.argument("name")
@click.argument("prompt", nargs=-1)
@click.option("--system", help="Instead of the model's own system message, for a single prompt.")
@click.option("--keep-alive", metavar="DURATION", help="How long the model stays loaded afterwards, e.g. 10m.")
@_connects
def run(name: str, prompt: tuple[str, ...], system: str | None, keep_alive: str | None, **options: Any) -> None:
    """Ask the model NAME: one PROMPT, what a pipe brings, or line by line on a terminal."""
    with _one_line_errors():
        api = _connect(**options).api
        asked = {"keep_alive": keep_alive} if keep_alive else {}
        is_piped = not sys.stdin.isatty()
        words = " ".join(prompt)
        if is_piped:  # `tonnage run m "Summarise:" < text` asks about the text
            words = "\n\n".join(filter(None, (words, read_piped_prompt().strip())))
        if words:
            answer_once(api, name, words, asked | ({"system": system} if system else {}))
        elif is_piped:
            raise click.UsageError("no prompt: give one as an argument or on stdin")
        else:
            converse(api, name, asked)


def _connect(*, server: str | None, token_file: Path | None, ca_file: Path | None, insecure: bool) -> _Connection:
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
    return _Connection(str(origin), Outbound(ca_file=ca_file, verify_tls=not insecure), _token(token_file))


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        text = file.read(_MAX_TOKEN).decode("ascii", "replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise click.ClickException(f"{path} holds no token: one line of printable ASCII is expected")
    return text


def _known_identity(path: Path | None) -> PrivateKey | None:
    """The key to read with: the one asked for, else the default one if there is one."""
    path = path or config.client_settings().key_path
    return PrivateKey.load(path) if path.exists() else None


def _identity(path: Path | None, progress: Progress) -> PrivateKey:
    """The key to write with; the default one is made at the first push."""
    if path is not None:
        return PrivateKey.load(path)
    path = config.client_settings().key_path
    if path.exists():
        return PrivateKey.load(path)
    key = PrivateKey.generate()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.save(path)
    progress.say(f"made a key: {path} ({key.public.fingerprint})")
    progress.say(f"the server's owner admits it by: tonnage key add NAMESPACE {path}.pub")
    return key


def _warn_of_tag(model: ModelName, progress: Progress) -> None:
    tag = model.tag.text.lower()
    if tag in {"local", "cloud"} or tag.endswith("-cloud"):
        progress.say(f"warning: the ollama client reads the tag {model.tag} as a place, and cannot pull this model")


def _target(output: Path | None, model: ModelName) -> Path:
    """Where the weights go. The parts of a model's name are no paths, so neither is the file name made of them."""
    name = f"{model.repository.text.rpartition('/')[2]}-{model.tag}.gguf"
    if output is None:
        return Path(name)
    return output / name if output.is_dir() else output


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Whatever stops a command becomes one line that says so."""
    try:
        yield
    except (RemoteError, AuthError, StorageError, config.ConfigInvalid) as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error
