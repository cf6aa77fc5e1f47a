"""`tonnage run`: one answer, or a conversation, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

import click

from registry.remotes.api import Api
from registry.remotes.errors import RemoteError
from registry.remotes.text import one_line, printable

MAX_PROMPT: Final = 16 * 1024 * 1024
_HELP: Final = "/bye ends, /clear forgets the conversation, /? shows this; Ctrl-C stops an answer"


def read_piped_prompt() -> str:
    """What a pipe brings on stdin. Raises ClickException when it is too long or no text."""
    raw = sys.stdin.buffer.read(MAX_PROMPT + 1)
    if len(raw) > MAX_PROMPT:
        raise click.ClickException(f"the prompt on stdin has more than {MAX_PROMPT} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise click.ClickException("the prompt on stdin is not UTF-8 text") from None


def answer_once(api: Api, model: str, prompt: str, options: dict[str, Any]) -> None:
    """Stream the answer to one prompt to stdout."""
    _Printer().print(api.stream("/api/generate", {"model": model, "prompt": prompt, **options}))
    click.echo()


def converse(api: Api, model: str, options: dict[str, Any]) -> None:
    """Read lines, stream answers, until the end of input or /bye. The model is loaded before the first line."""
    for _ in api.stream("/api/generate", {"model": model, **options}):
        pass
    click.echo(_HELP, err=True)
    messages: list[dict[str, str]] = []
    while (line := _read_line()) is not None:
        if line == "/bye":
            return
        if line in {"/?", "/help"}:
            click.echo(_HELP, err=True)
        elif line == "/clear":
            messages.clear()
        elif line.startswith("/"):
            click.echo(f"unknown command {one_line(line.split()[0])}; {_HELP}", err=True)
        elif line:
            _turn(api, model, messages, line, options)


def _turn(api: Api, model: str, messages: list[dict[str, str]], line: str, options: dict[str, Any]) -> None:
    """One question and its answer; an answer that failed leaves the conversation as it was."""
    printer = _Printer()
    messages.append({"role": "user", "content": line})
    try:
        printer.print(api.stream("/api/chat", {"model": model, "messages": messages, **options}))
    except KeyboardInterrupt:
        pass
    except RemoteError as error:
        messages.pop()
        click.echo(f"\ntonnage: {error}", err=True)
        return
    messages.append({"role": "assistant", "content": printer.text})
    click.echo("\n")


def _read_line() -> str | None:
    try:
        return input(">>> ").strip()
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None


class _Printer:
    """Streams text to stdout; thinking is shown to people, not to pipes, which want the answer alone."""

    def __init__(self) -> None:
        self.text = ""
        self._is_thinking = False
        self._shows_thinking = sys.stdout.isatty()

    def print(self, chunks: Iterable[dict[str, Any]]) -> None:
        for chunk in chunks:
            message = chunk.get("message")
            source = message if isinstance(message, dict) else chunk
            self._thinking(source.get("thinking"))
            self._answer(source.get("content" if source is message else "response"))

    def _thinking(self, piece: object) -> None:
        if not isinstance(piece, str) or not piece or not self._shows_thinking:
            return
        if not self._is_thinking:
            self._is_thinking = True
            click.echo("Thinking...")
        click.echo(printable(piece), nl=False)

    def _answer(self, piece: object) -> None:
        if not isinstance(piece, str) or not piece:
            return
        if self._is_thinking:
            self._is_thinking = False
            click.echo("\n...done thinking.\n")
        self.text += piece
        click.echo(printable(piece), nl=False)
        sys.stdout.flush()
