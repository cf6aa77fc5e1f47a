"""list, show, cp and rm: the models that a server stores."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from registry.cli.connection import connect, connects, one_line_errors
from registry.cli.description import description
from registry.cli.tables import stored_models
from registry.remotes.errors import RemoteError
from registry.remotes.text import printable

_PARTS = ("license", "modelfile", "parameters", "system", "template")


@click.command("list")
@connects
def list_models(**options: Any) -> None:
    """List the models that the server stores."""
    with one_line_errors():
        click.echo(stored_models(connect(**options).api.models("/api/tags"), datetime.now(UTC)))


@click.command()
@click.argument("name")
@click.option("--license", "part", flag_value="license", help="Its licences alone.")
@click.option("--modelfile", "part", flag_value="modelfile", help="A Modelfile that makes it again.")
@click.option("--parameters", "part", flag_value="parameters", help="Its parameters alone.")
@click.option("--system", "part", flag_value="system", help="Its system message alone.")
@click.option("--template", "part", flag_value="template", help="Its prompt template alone.")
@click.option("-v", "--verbose", is_flag=True, help="All metadata and tensors too.")
@connects
def show(name: str, part: str | None, verbose: bool, **options: Any) -> None:
    """Describe the model NAME, or print one part of it."""
    with one_line_errors():
        shown = connect(**options).api.show(name, verbose=verbose)
    if part is None:
        click.echo(description(shown, is_whole=verbose))
    else:
        text = shown.get(part)
        click.echo(printable(text) if isinstance(text, str) else "")


@click.command()
@click.argument("source")
@click.argument("destination")
@connects
def cp(source: str, destination: str, **options: Any) -> None:
    """Give the model SOURCE the second name DESTINATION; the bytes are shared."""
    with one_line_errors():
        connect(**options).api.copy(source, destination)
        click.echo(f"copied {source} to {destination}")


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Give the space back at once, not at the server's next sweep.")
@connects
def rm(names: tuple[str, ...], now: bool, **options: Any) -> None:
    """Delete the models NAMES from the server; layers that other models share stay."""
    with one_line_errors():
        api = connect(**options).api
        for name in names:
            with suppress(RemoteError):  # one that cannot run, or that we may not run, can be deleted all the same
                api.show(name)
                api.unload(name)
            api.delete(name, now=now)
            click.echo(f"deleted {name}")
