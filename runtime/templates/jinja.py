"""The one place where a Jinja chat template of a stranger is evaluated.

Templates run in a process of their own (`runtime.templates.renderer` starts it): the sandbox keeps them from our
objects, the process limits keep them from our memory and time. No check inside Python could do the latter, since one
expression can multiply strings, or nest shared lists, faster than any hook looks.
Spec: Hugging Face, "Writing a chat template"; Jinja, "Sandbox".
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.templates.errors import TemplateFailed

MAX_TEMPLATE_BYTES = 1024**2
MAX_OUTPUT_CHARS = 16 * 1024**2
MAX_MEMORY_BYTES = 1024**3  # of the rendering process, interpreter included
_ORPHAN_S = 60  # our starter kills us long before; this is for when it was killed itself
_GLOBALS = ("range", "dict", "namespace")  # of Jinja's own; lipsum and the like have no place in a prompt


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: marks the assistant's text for training; here it only prints its body."""

    tags = {"generation"}  # noqa: RUF012  # as Extension declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(source: str, variables: dict[str, object]) -> str:
    """`source` evaluated with `variables`. Raises TemplateFailed with one line."""
    if len(source.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
        raise TemplateFailed(f"template error: the template is larger than {MAX_TEMPLATE_BYTES} bytes")
    try:
        return _bounded(_compiled(source), variables)
    except TemplateFailed:
        raise
    except SecurityError:
        raise TemplateFailed("template error: the template reaches for something it may not use") from None
    except MemoryError:
        raise TemplateFailed("template error: the template needs too much memory", exhausted=True) from None
    except RecursionError:
        raise TemplateFailed("template error: the template calls itself too deeply") from None
    except Exception as error:  # whatever a stranger's expression can raise
        raise TemplateFailed(f"template error: {_one_line(error)}") from None


def _bounded(template: jinja2.Template, variables: dict[str, object]) -> str:
    pieces: list[str] = []
    length = 0
    for piece in template.generate(**variables):
        length += len(piece)
        if length > MAX_OUTPUT_CHARS:
            raise TemplateFailed(
                f"template error: the prompt is longer than {MAX_OUTPUT_CHARS} characters", exhausted=True
            )
        pieces.append(piece)
    return "".join(pieces)


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols, Generation]
    )
    kept = {name: environment.globals[name] for name in _GLOBALS}
    environment.globals.clear()
    environment.globals.update(kept, raise_exception=_raise_exception, strftime_now=_strftime_now)
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face defines it: no HTML escapes, text as it is."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object = "") -> None:
    raise TemplateFailed(f"template error: {_one_line(message)}")


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)


def _one_line(error: object) -> str:
    return " ".join(str(error)[:1000].split()) or type(error).__name__


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer one line of JSON with another until `requests` ends; the main loop of the rendering process."""
    for line in requests:
        signal.alarm(_ORPHAN_S)
        replies.write(_reply(json.loads(line)) + b"\n")
        replies.flush()
        signal.alarm(0)


def _reply(request: dict[str, Any]) -> bytes:
    try:
        text = render(request["template"], request["variables"])
        return json.dumps({"text": text}).encode()
    except TemplateFailed as error:
        return json.dumps({"error": str(error), "detail": error.detail}).encode()


def _confine() -> None:
    """From here on: no more memory than a prompt needs, no files, no core dump."""
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))


def main() -> None:
    """The rendering process: `renderer` starts it with pipes."""
    render("", {})
    _confine()
    serve(sys.stdin.buffer, sys.stdout.buffer)
