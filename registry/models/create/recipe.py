"""What a request wants a model to be made of. Source: the Ollama API, "POST /api/create, current form"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from registry.models.blobs import parse_digest
from runtime.api.errors import Refused
from runtime.api.names import parse_name
from runtime.api.requests import Body
from storage.digest import Digest
from storage.reference import ModelName

JSON = dict[str, Any]
Files = tuple[tuple[str, Digest], ...]
"""Paths as the client has them, and what is in them."""

_MOST_FILES: Final = 1000
_LONGEST_PATH: Final = 1024
_LONGEST_WORD: Final = 256  # renderer, parser
_VERSION: Final = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,2}(?:[-+][0-9A-Za-z.+-]{1,100})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model to be. base: the stored model it begins as; empty texts and collections change nothing.

    quantize, draft_quantize: levels as they were asked for. warnings: what is told first.
    """

    target: ModelName
    base: ModelName | None = None
    files: Files = ()
    adapters: Files = ()
    draft: Files = ()
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: JSON = field(default_factory=dict)
    messages: tuple[JSON, ...] = ()
    quantize: str = ""
    draft_quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: JSON = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def digests(self) -> list[Digest]:
        """Every blob that must have been uploaded."""
        return [digest for _, digest in (*self.files, *self.adapters, *self.draft)]


def target_of(body: Body) -> ModelName:
    """Raises Refused."""
    return parse_name(body.text("model") or body.text("name"))


def level_of(body: Body) -> str:
    return body.text("quantize") or body.text("quantization")


def current_form(body: Body) -> Recipe:
    """Raises Refused for all that can be judged without looking at what is stored."""
    files, adapters, draft = (_files(body, key) for key in ("files", "adapters", "draft_files"))
    target = target_of(body)
    _check_remote_and_draft(body, draft)
    base = parse_name(body.text("from")) if body.text("from") else None
    if base is None and body.raw("files") is None:
        raise Refused(400, "neither 'from' or 'files' was specified")
    if base is None and not files:
        raise Refused(400, "no files provided to convert")
    return Recipe(
        target=target,
        base=base,
        files=() if base is not None else files,
        adapters=adapters,
        draft=draft,
        template=body.text("template"),
        system=body.text("system"),
        licenses=_licenses(body),
        parameters={key: each for key, each in (body.mapping("parameters") or {}).items() if each is not None},
        messages=tuple(_message(each) for each in body.objects("messages")),
        quantize=level_of(body),
        draft_quantize=body.text("draft_quantize"),
        renderer=_word(body, "renderer"),
        parser=_word(body, "parser"),
        requires=_version(body.text("requires")),
        info=body.mapping("info") or {},
    )


def _check_remote_and_draft(body: Body, draft: Files) -> None:
    if body.text("remote_host"):
        if draft:
            raise Refused(400, "DRAFT cannot be used with remote models")
        raise Refused(400, "remote models are not supported: this server runs only weights that it stores")
    if body.text("draft_quantize") and not draft:
        raise Refused(400, "--draft-quantize requires a DRAFT model")


def _files(body: Body, key: str) -> Files:
    given = body.mapping(key) or {}
    if len(given) > _MOST_FILES:
        raise Refused(400, f"{key} names {len(given)} files, and {_MOST_FILES} are the most of one model")
    if not all(map(_is_relative, given)):
        raise Refused(400, "file path must be relative")
    if not all(isinstance(digest, str) for digest in given.values()):
        raise Refused(400, "invalid digest format")
    return tuple((path, parse_digest(digest)) for path, digest in given.items())


def _is_relative(path: str) -> bool:
    """A path that stays in the folder it is read in."""
    return len(path) <= _LONGEST_PATH and not any(part in {"", ".", ".."} for part in path.split("/"))


def _licenses(body: Body) -> tuple[str, ...]:
    given = body.raw("license")
    texts = [given] if isinstance(given, str) else body.texts("license")
    return tuple(text for text in texts if text)


def _message(given: Mapping[str, object]) -> JSON:
    """As it will be stored; what it may carry beside its text stays as it came."""
    fields = Body(given)
    message: JSON = {"role": fields.text("role").lower(), "content": fields.text("content")}
    message |= {"thinking": fields.text("thinking")} if fields.text("thinking") else {}
    message |= {"images": fields.texts("images")} if fields.texts("images") else {}
    message |= {"tool_calls": fields.objects("tool_calls")} if fields.objects("tool_calls") else {}
    return message | {key: fields.text(key) for key in ("tool_name", "tool_call_id") if fields.text(key)}


def _word(body: Body, key: str) -> str:
    word = body.text(key)
    if len(word) > _LONGEST_WORD:
        raise Refused(400, f"{key} is longer than {_LONGEST_WORD} characters")
    return word


def _version(text: str) -> str:
    """Without its `v`."""
    match = _VERSION.fullmatch(text)
    if text and match is None:
        raise Refused(400, "requires must be a valid semver (e.g. 0.14.0)")
    return match[1] if match is not None else ""
