"""Asking an embedder in this process."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from runtime.runner.embed_job import EmbedJob
from runtime.runner.embedding import Embedder
from tests.answers import Recorder

Vectors = NDArray[np.float32]


def ask(embedder: Embedder, inputs: list[str], *, truncate: bool = True) -> tuple[EmbedJob, Recorder]:
    sink = Recorder()
    job = embedder.job(inputs, sink, truncate=truncate)
    embedder.submit(job)
    return job, sink


def finish(embedder: Embedder, most: int = 500) -> None:
    for _ in range(most):
        if not embedder.has_work:
            return
        assert embedder.step()
    raise AssertionError("the embedder does not come to an end")


def vectors(sink: Recorder) -> Vectors:
    assert sink.last["event"] == "done", sink.last
    rows = [
        np.frombuffer(base64.b64decode(event["data"]), "<f4").reshape(-1, event["width"]) for event in sink.events[:-1]
    ]
    return np.concatenate(rows)


def embed(embedder: Embedder, inputs: list[str]) -> Vectors:
    _, sink = ask(embedder, inputs)
    finish(embedder)
    return vectors(sink)
