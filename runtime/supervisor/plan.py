"""What loading a model means: its options resolved, its slots counted, its memory summed. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from runtime.messages import ModelSpec
from runtime.options import LoadOptions
from runtime.supervisor.settings import SupervisorSettings

_LEAST_CONTEXT = 4
_MOST_PARALLEL = 8
_MOST_BATCH = 8192  # tokens a step
_CACHE_SHARE = {"f16": 1.0, "q8_0": 34 / 64, "q4_0": 18 / 64}  # bytes of a block of 32 numbers, against f16


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A runner to be, or that is. `context_length` is each sequence's, `size` all bytes it takes."""

    options: LoadOptions
    context_length: int
    parallel: int
    size: int


def plan_load(spec: ModelSpec, settings: SupervisorSettings) -> LoadPlan:
    """How `spec` is loaded under `settings`.

    Without a number from the operator, a model gets eight slots, halved until it fits half of the budget with all of
    them full, so that a second model of its kind still fits. Models that only embed have no use for slots: their
    inputs are packed into one batch.
    """
    context = context_length(spec, settings)
    options = bounded(spec.options, context)
    if spec.is_embedding:
        return LoadPlan(options, context, 1, size_of(spec, settings, context, 1))
    parallel = settings.num_parallel
    if parallel <= 0:
        parallel = _MOST_PARALLEL
        while parallel > 1 and size_of(spec, settings, context, parallel) > settings.budget_bytes // 2:
            parallel //= 2
    return LoadPlan(options, context, parallel, size_of(spec, settings, context, parallel))


def bounded(options: LoadOptions, context: int) -> LoadOptions:
    """The options with what costs memory or threads cut to what can be of use: they come from clients and layers."""
    return replace(
        options,
        num_batch=min(options.num_batch, context, _MOST_BATCH),
        num_thread=min(options.num_thread, os.cpu_count() or 1),
    )


def context_length(spec: ModelSpec, settings: SupervisorSettings) -> int:
    """The window of one sequence: as asked, else the default; never more than the model was trained for."""
    wanted = max(spec.options.num_ctx if spec.options.num_ctx > 0 else settings.context_length, _LEAST_CONTEXT)
    return min(wanted, spec.trained_context) if spec.trained_context > 0 else wanted


def size_of(spec: ModelSpec, settings: SupervisorSettings, context: int, parallel: int) -> int:
    """Bytes of weights, cache and buffers."""
    cache = spec.memory.kv_bytes_per_token * context * parallel * _CACHE_SHARE.get(settings.kv_cache_type, 1.0)
    return spec.memory.weights_bytes + int(cache) + spec.memory.compute_bytes


def is_compatible(loaded: LoadPlan, wanted: LoadPlan) -> bool:
    """Whether a runner loaded one way answers a request for another: what the request leaves open matches anything."""
    have, want = loaded.options, wanted.options
    return (
        loaded.context_length == wanted.context_length
        and want.num_thread == have.num_thread
        and want.num_batch in {0, have.num_batch}
        and want.num_gpu in {-1, have.num_gpu}
        and want.main_gpu in {None, have.main_gpu}
        and want.use_mmap in {None, have.use_mmap}
    )
