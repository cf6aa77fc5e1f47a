"""push and pull: a model's weights between a file here and a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from auth.keys import PrivateKey
from registry import config
from registry.cli.connection import FILE, connect, connects, limits_rate, one_line_errors
from registry.remotes.package import build_package
from registry.remotes.progress import Progress, progress_on
from registry.remotes.pull import Pull, holds
from registry.remotes.push import Push
from registry.remotes.uploads import UploadNotes
from storage.reference import ModelName

_key_option = click.option("--key", "key_path", type=FILE, help="OpenSSH ed25519 key to identify with.")


@click.command()
@click.argument("file", type=FILE)
@click.argument("name")
@click.option("--template", type=FILE, help="File with the model's prompt template.")
@click.option("--system", default="", help="The model's system message.")
@click.option("--license", "licenses", type=FILE, multiple=True, help="File with a licence; may be repeated.")
@_key_option
@limits_rate
@connects
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
    with one_line_errors():
        model = ModelName.parse(name)
        _warn_of_tag(model, progress)
        connection = connect(**options)
        key = None if connection.token else _identity(key_path, progress)
        bar = progress.bar("hashing", file.stat().st_size)
        package = build_package(file, template=template, system=system, licenses=licenses, hashed=bar.move)
        bar.close()
        remote = connection.repository(model, key, is_pushing=True)
        Push(remote, UploadNotes(config.client_settings().state_dir / "uploads"), progress).push(package, model.tag)
        progress.say(f"pushed {model} to {remote.home}")


@click.command()
@click.argument("name")
@click.option("-o", "--output", metavar="DIR|FILE", type=FILE, help="Where to; ./MODEL-TAG.gguf when not given.")
@click.option("--force", is_flag=True, help="Replace an existing file that has other content.")
@_key_option
@limits_rate
@connects
def pull(name: str, output: Path | None, force: bool, key_path: Path | None, **options: Any) -> None:
    """Pull the weights of NAME (namespace/model:tag) into a file.

    An interrupted pull goes on where it stopped when it is started again.
    """
    progress = progress_on()
    with one_line_errors():
        model = ModelName.parse(name)
        target = _target(output, model)
        connection = connect(**options)
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
