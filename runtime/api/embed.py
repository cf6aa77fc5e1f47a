"""POST /api/embed, and /api/embeddings for old clients. Source: the Ollama API, "POST /api/embed"."""

from __future__ import annotations

import math
import time
from typing import Any

from flask import Response

from runtime.api.errors import Refused
from runtime.api.replies import one_object
from runtime.api.serving import TRY_PULLING, Call
from runtime.messages import Embeddings

JSON = dict[str, Any]


def embed() -> Response:
    """A unit vector for each input, in their order; without input the model is only loaded."""
    call = Call.from_request()
    inputs = _inputs(call.body.raw("input"))
    dimensions = call.body.integer("dimensions")
    model = call.find_model(TRY_PULLING)
    if not inputs:
        call.load_only(model)
        return one_object({"model": call.model_name, "embeddings": []})
    lease, _ = call.lease(model)
    load_ns = time.monotonic_ns() - call.started_ns
    with lease:
        found = lease.embed(inputs, call.body.flag("truncate", True), is_cancelled=call.is_cancelled)
    vectors = [_cut(vector, dimensions) for vector in found.vectors]
    return one_object({"model": call.model_name, "embeddings": vectors} | _statistics(call, load_ns, found))


def embeddings() -> Response:
    """The vector of one prompt, as clients before /api/embed ask for it."""
    call = Call.from_request()
    if not call.model_name.strip():
        raise Refused(400, "model is required")
    prompt = call.body.text("prompt")
    model = call.find_model(TRY_PULLING)
    if not prompt:
        call.load_only(model)
        return one_object({"embedding": []})
    lease, _ = call.lease(model)
    with lease:
        found = lease.embed([prompt], True, is_cancelled=call.is_cancelled)
    return one_object({"embedding": found.vectors[0]})


def _inputs(value: object) -> list[str]:
    """The texts to embed. An empty text alone is no input; in a list it is one."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refused(400, "invalid input type")
    return value


def _cut(vector: list[float], dimensions: int) -> list[float]:
    """The first `dimensions` components, at unit length again; the whole vector when that makes no sense."""
    if not 0 < dimensions < len(vector):
        return vector
    kept = vector[:dimensions]
    norm = max(math.sqrt(sum(component * component for component in kept)), 1e-12)
    return [component / norm for component in kept]


def _statistics(call: Call, load_ns: int, found: Embeddings) -> JSON:
    total_ns = time.monotonic_ns() - call.started_ns
    figures = {"total_duration": total_ns, "load_duration": load_ns, "prompt_eval_count": found.prompt_tokens}
    return {key: figure for key, figure in figures.items() if figure}
