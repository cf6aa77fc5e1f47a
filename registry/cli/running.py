"""ps, run and stop: the models that a server has loaded."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from registry.cli.chat import answer_once, converse, read_piped_prompt
from registry.cli.connection import connect, connects, one_line_errors
from registry.cli.steps import follow
from registry.cli.tables import fetching_text, running_models
from registry.remotes.api import Api
from registry.remotes.errors import NotFound
from registry.remotes.progress import progress_on
from registry.remotes.text import one_line


@click.command()
@connects
def ps(**options: Any) -> None:
    """List the models that are loaded, and how far weights are that come from a bucket first."""
    with one_line_errors():
        models, fetching = connect(**options).api.running()
        click.echo(running_models(models, datetime.now(UTC)))
        for weights in fetching:
            click.echo(fetching_text(weights))


@click.command()
@click.argument("name")
@click.argument("prompt", nargs=-1)
@click.option("--system", help="Instead of the model's own system message, for a single prompt.")
@click.option("--keep-alive", metavar="DURATION", help="How long the model stays loaded afterwards, e.g. 10m.")
@connects
def run(name: str, prompt: tuple[str, ...], system: str | None, keep_alive: str | None, **options: Any) -> None:
    """Ask the model NAME: one PROMPT, what a pipe brings, or line by line on a terminal.

    A model that the server does not have is pulled by it first. One that embeds prints the vector of the prompt.
    """
    with one_line_errors():
        api = connect(**options).api
        asked = {"keep_alive": keep_alive} if keep_alive else {}
        is_piped = not sys.stdin.isatty()
        words = " ".join(prompt)
        if is_piped:  # `tonnage run m "Summarise:" < text` asks about the text
            words = "\n\n".join(filter(None, (words, read_piped_prompt().strip())))
        if not words and is_piped:
            raise click.UsageError("no prompt: give one as an argument or on stdin")
        if _embeds(_described(api, name)):
            if not words:
                raise click.UsageError("this model embeds texts: give one as an argument or on stdin")
            click.echo(json.dumps(api.embed(name, words, asked)))
        elif words:
            answer_once(api, name, words, asked | ({"system": system} if system else {}))
        else:
            converse(api, name, asked)


@click.command()
@click.argument("name")
@connects
def stop(name: str, **options: Any) -> None:
    """Unload the model NAME."""
    with one_line_errors():
        api = connect(**options).api
        try:
            api.show(name)
            api.unload(name)
        except NotFound:
            raise click.ClickException(f'couldn\'t find model "{one_line(name)}" to stop') from None


def _described(api: Api, name: str) -> dict[str, Any]:
    """What the server says of the model; it pulls one that it does not have. Raises NotFound."""
    try:
        return api.show(name)
    except NotFound as missing:
        try:
            follow(api.stream("/api/pull", {"model": name}), progress_on())
        except NotFound:  # the server pulls nothing
            raise missing from None
        return api.show(name)


def _embeds(shown: dict[str, Any]) -> bool:
    found = shown.get("capabilities")
    return isinstance(found, list) and "embedding" in found and "completion" not in found
