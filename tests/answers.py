"""Asking an engine in this process, and keeping what it says."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from runtime.messages import GenerateRequest
from runtime.options import SampleOptions
from runtime.runner.engine import Engine
from runtime.runner.sequence import Sequence
from runtime.structured.schema import constraint


class Recorder:
    """A sink that keeps all it is sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.is_congested = False
        self.is_gone = False

    def send(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    @property
    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["event"] == "piece")

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def reason(self) -> str:
        """Why the answer ended, or the error."""
        return str(self.last["reason"] if self.last["event"] == "done" else self.last["message"])

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        return [entry for event in self.events for entry in event.get("logprobs") or []]


def start(engine: Engine, request: GenerateRequest, sink: Recorder) -> Sequence:
    """Put a request in line."""
    sequence = engine.prepare(request, sink)
    engine.submit(sequence)
    return sequence


def ask(
    prompt: str,
    format: object = None,
    *,
    tokens: int = 200,
    unless: tuple[str, ...] = (),
    thought: tuple[str, str, bool] | None = None,
    top_logprobs: int | None = None,
    **options: Any,
) -> GenerateRequest:
    """A request as the API layer makes it, over the wire."""
    held = constraint(format, unless)
    sample = SampleOptions(**{"temperature": 1.0, "seed": 1, "num_predict": tokens, **options})
    asked = GenerateRequest(
        prompt, sample, format=held.to_json() if held else None, thought=thought, top_logprobs=top_logprobs,
        want_tokens=True,
    )  # fmt: skip
    return GenerateRequest.from_json(asked.to_json())


def run(engine: Engine, *requests: GenerateRequest) -> list[Recorder]:
    """All of them side by side, to their end."""
    sinks = [Recorder() for _ in requests]
    for request, sink in zip(requests, sinks, strict=True):
        start(engine, request, sink)
    finish(engine)
    return sinks


def finish(engine: Engine) -> None:
    """Let the engine do all it has to do."""
    for _ in range(50_000):
        if not engine.has_work:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")


def check(schema: dict[str, Any], answer: Recorder) -> bool:
    """Whether the answer came to its end; then it must be valid."""
    if answer.reason == "stop":
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer.text))
    else:
        assert answer.reason == "length"
    return answer.reason == "stop"
