"""A Modelfile in a request, as clients up to 0.5.4 send it. Source: the Ollama API, "POST /api/create, legacy form"."""

from __future__ import annotations

from typing import Final

from registry.models.blobs import parse_digest
from registry.models.create.recipe import Files, Recipe, current_form, level_of, target_of
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.requests import Body
from runtime.modelfile import LEGACY_PARAMETERS, parse
from storage.digest import Digest
from storage.reference import ModelName

_INVALID: Final = "invalid model name"
_MOST_SOURCES: Final = 1000


def read_recipe(body: Body) -> Recipe:
    """What the request wants, in whichever form; where it speaks both, the current one counts.

    Raises Refused, ModelfileInvalid.
    """
    is_current = bool(body.text("from")) or body.raw("files") is not None
    is_legacy = body.raw("modelfile") is not None or body.raw("path") is not None
    return _legacy_form(body) if is_legacy and not is_current else current_form(body)


def _legacy_form(body: Body) -> Recipe:
    target, text = target_of(body), body.text("modelfile")
    if not text and body.text("path"):
        raise Refused(400, "a Modelfile on the server's own disk is not read: send its text as 'modelfile'")
    if not text:
        raise Refused(400, "path or Modelfile are required")
    said = parse(text, ignored=LEGACY_PARAMETERS)
    base, files = _sources(said.sources)
    return Recipe(
        target=target,
        base=base,
        files=files,
        adapters=tuple((f"adapter-{number}", _uploaded(each)) for number, each in enumerate(said.adapters)),
        draft=(("draft", _uploaded(said.draft)),) if said.draft else (),
        template=said.template or "",
        system=said.system or "",
        licenses=tuple(each for each in said.licenses if each),
        parameters=said.parameters,
        messages=tuple(dict(each) for each in said.messages),
        quantize=level_of(body),
        renderer=said.renderer,
        parser=said.parser,
        requires=said.requires,
        warnings=said.warnings,
    )


def _sources(arguments: tuple[str, ...]) -> tuple[ModelName | None, Files]:
    """Of FROM lines: one stored model at most, and blobs. Raises Refused."""
    if len(arguments) > _MOST_SOURCES:
        raise Refused(400, f"the Modelfile has more than {_MOST_SOURCES} FROM lines")
    names: list[ModelName] = []
    files: list[tuple[str, Digest]] = []
    for number, argument in enumerate(arguments):
        name = _name(argument)
        if name is not None:
            names.append(name)
        else:
            files.append((f"from-{number}", _uploaded(argument)))
    if len(names) > 1:
        raise Refused(400, "a model begins as one stored model at most")
    return (names[0] if names else None), tuple(files)


def _name(argument: str) -> ModelName | None:
    try:
        return parse_name(argument)
    except Refused as error:
        if str(error) == _INVALID:
            return None
        raise


def _uploaded(argument: str) -> Digest:
    """`@` and the digest of an uploaded blob; anything else would be a file of this server. Raises Refused."""
    if not argument.startswith("@"):
        raise Refused(400, f"invalid model reference: {argument[:500]}")
    return parse_digest(argument.removeprefix("@"))
