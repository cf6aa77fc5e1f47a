"""A Modelfile as a value: what it says, typed and counted. Source: the Ollama API, "Modelfile"."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from runtime.errors import ModelfileInvalid
from runtime.modelfile.grammar import Command, commands
from runtime.modelfile.parameters import DEPRECATED, parameter

MAX_BYTES: Final = 4 * 1024**2  # a system text and some licences, each of which may have 1 MiB as a layer

_NUMBER = r"(?:0|[1-9][0-9]*)"
_LABEL = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_SEMVER = re.compile(
    rf"v?(?P<version>{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}"
    rf"(?:-{_LABEL}(?:\.{_LABEL})*)?(?:\+{_BUILD}(?:\.{_BUILD})*)?)?)?)"
)
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says.

    sources: the arguments of FROM, at least one, none empty; a name, a path or `@sha256:…`, as written.
    template, system: None when not said at all; "" when said to be empty.
    parameters: int, float or bool by option; `stop` is a list of texts. requires: a version without `v`, or "".
    messages: `role` and `content` each. warnings: a line for each deprecated parameter that was dropped.
    """

    sources: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    draft: str = ""
    template: str | None = None
    system: str | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    licenses: tuple[str, ...] = ()
    messages: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def parse_bytes(raw: bytes, *, ignored: Collection[str] = ()) -> Modelfile:
    """The file as it lies on a disk: UTF-8, or what its byte order mark says. Raises ModelfileInvalid."""
    if len(raw) > MAX_BYTES:
        raise ModelfileInvalid(f"the Modelfile has more than {MAX_BYTES} bytes")
    for mark, encoding in _ENCODINGS:
        if raw.startswith(mark):
            return parse(_decode(raw[len(mark) :], encoding), ignored=ignored)
    return parse(_decode(raw, "utf-8"), ignored=ignored)


def parse(text: str, *, ignored: Collection[str] = ()) -> Modelfile:
    """What `text` says; parameters named in `ignored` are dropped, whatever their value.

    Raises ModelfileInvalid in the reference's words. Takes time in proportion to the length of `text`.
    """
    if len(text) > MAX_BYTES:
        raise ModelfileInvalid(f"the Modelfile has more than {MAX_BYTES} characters")
    said = list(commands(text.removeprefix("\ufeff")))
    sources = tuple(filter(None, _values(said, "from")))
    if not sources:
        raise ModelfileInvalid("no FROM line")
    kept = [each for each in said if each.name == "parameter" and each.subject not in ignored]
    return Modelfile(
        sources=sources,
        adapters=tuple(_values(said, "adapter")),
        draft=_last(said, "draft") or "",
        template=_last(said, "template"),
        system=_last(said, "system"),
        renderer=_last(said, "renderer") or "",
        parser=_last(said, "parser") or "",
        requires=_version(_last(said, "requires")),
        parameters=_parameters(each for each in kept if each.subject not in DEPRECATED),
        licenses=tuple(_values(said, "license")),
        messages=tuple({"role": each.subject, "content": each.value} for each in said if each.name == "message"),
        warnings=tuple(
            f"warning: parameter {each.subject} is deprecated" for each in kept if each.subject in DEPRECATED
        ),
    )


def _decode(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        raise ModelfileInvalid(f"the Modelfile is not {encoding[:6].upper()} text") from None


def _values(said: Iterable[Command], name: str) -> list[str]:
    return [each.value for each in said if each.name == name]


def _last(said: Iterable[Command], name: str) -> str | None:
    return next(reversed(_values(said, name)), None)


def _version(text: str | None) -> str:
    if text is None:
        return ""
    match = _SEMVER.fullmatch(text)
    if match is None:
        raise ModelfileInvalid("requires must be a valid semver (e.g. 0.14.0)")
    return match["version"]


def _parameters(said: Iterable[Command]) -> dict[str, object]:
    """By name: lists grow with every line, of anything else the last one holds."""
    found: dict[str, object] = {}
    for each in said:
        value, held = parameter(each.subject, each.value), found.get(each.subject)
        if isinstance(held, list) and isinstance(value, list):
            held.extend(value)
        else:
            found[each.subject] = value
    return found
