"""create: a model of a Modelfile and the files it names, made on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from registry.cli.connection import FILE, connect, connects, limits_rate, one_line_errors
from registry.cli.sources import Sources, find_sources
from registry.cli.steps import follow
from registry.remotes.blob_sender import send_files
from registry.remotes.progress import progress_on
from runtime.modelfile import MAX_BYTES, Modelfile, parse, parse_bytes
from storage.digest import Digest
from storage.reference import ModelName


@click.command()
@click.argument("name")
@click.option("-f", "--file", "path", type=FILE, help="The Modelfile; ./Modelfile when not given, else *.gguf here.")
@click.option("-q", "--quantize", "level", metavar="LEVEL", help="Quantise the weights, e.g. to q4_K_M.")
@limits_rate
@connects
def create(name: str, path: Path | None, level: str | None, **options: Any) -> None:
    """Make the model NAME on the server, of a Modelfile.

    FROM names a GGUF file here, a folder of them, or a model that the server stores; what the server lacks is sent.
    """
    progress = progress_on()
    with one_line_errors():
        ModelName.parse(name)
        modelfile, folder = _read(path)
        for warning in modelfile.warnings:
            progress.say(warning)
        sources = find_sources(modelfile, folder)
        api = connect(**options).api
        sent = send_files(api, sources.paths, progress)
        body = {"model": name, **_said(modelfile), **_made_of(sources, sent), "quantize": level}
        follow(api.stream("/api/create", {key: value for key, value in body.items() if value}), progress)


def _read(path: Path | None) -> tuple[Modelfile, Path]:
    """The Modelfile, and the folder that its paths begin at. Raises ModelfileInvalid, OSError."""
    if path is None:
        path = Path("Modelfile")
        if not path.exists():
            return parse("FROM ."), Path()
    with path.open("rb") as file:
        return parse_bytes(file.read(MAX_BYTES + 1)), path.parent


def _said(modelfile: Modelfile) -> dict[str, object]:
    return {
        "template": modelfile.template,
        "system": modelfile.system,
        "renderer": modelfile.renderer,
        "parser": modelfile.parser,
        "requires": modelfile.requires,
        "parameters": modelfile.parameters,
        "license": list(modelfile.licenses),
        "messages": list(modelfile.messages),
    }


def _made_of(sources: Sources, sent: dict[Path, Digest]) -> dict[str, object]:
    parts = {"files": sources.files, "adapters": sources.adapters, "draft_files": sources.draft}
    named = {field: {key: str(sent[path]) for key, path in files.items()} for field, files in parts.items()}
    return {"from": sources.name, **named}
