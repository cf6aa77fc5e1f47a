"""What loading a model means: its options resolved, its slots counted, its memory summed. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from runtime.memory import DEFAULT_STEP, Setup, Sizes, fitting_layers, offloaded, sizes_of, with_offload
from runtime.messages import ModelSpec
from runtime.options import LoadOptions
from runtime.supervisor.settings import SupervisorSettings

_LEAST_CONTEXT = 4
_LEAST_SEEING_CONTEXT = 2048  # a picture takes hundreds of tokens
_MOST_PARALLEL = 8
_MOST_EMBEDDED = 256  # sequences of one step
_MOST_STATES = 16  # of models that remember a state of each
_LEAST_STEP = 32
_LOGITS_BYTES = 256 * 1024**2  # a step that embeds is cut so that its logits take no more
_EXACT_ATTENTION_BYTES = 512 * 1024**2
_MOST_BATCH = 8192  # tokens a step
_DEVICE_RESERVE = 512 * 1024**2  # what a driver takes for itself, and what nobody has told us of
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A runner to be, or that is.

    context_length: each sequence's. size: all bytes it takes; size_vram: those of them on accelerators. gpu_layers:
    how many layers those are, as llama.cpp counts them; negative is all. parts: what `size` is made of.
    """

    options: LoadOptions
    context_length: int
    parallel: int
    size: int
    size_vram: int = 0
    gpu_layers: int = -1
    parts: Sizes = field(default_factory=lambda: Sizes(0, 0, 0))


def plan_load(spec: ModelSpec, settings: SupervisorSettings) -> LoadPlan:
    """How `spec` is loaded under `settings`.

    Without a number from the operator, a model gets eight slots, halved until it fits half of the budget with all of
    them full, so that a second model of its kind still fits. Models that only embed have no use for slots: their
    inputs are packed into one batch.
    """
    context = context_length(spec, settings)
    options = bounded(spec.options, context)
    if spec.is_embedding:
        return _plan(spec, settings, options, context, 1)
    parallel = settings.num_parallel
    if parallel > 0:
        return _plan(spec, settings, options, context, parallel)
    parallel = _MOST_PARALLEL
    plan = _plan(spec, settings, options, context, parallel)
    while parallel > 1 and not _leaves_half(plan, settings):
        parallel //= 2
        plan = _plan(spec, settings, options, context, parallel)
    return plan


def describe(plan: LoadPlan) -> str:
    """What the plan takes, for a person: `3.0 GiB: weights 2.0 GiB, cache 0.8 GiB, buffers 0.2 GiB`."""
    parts = plan.parts
    pieces = {"weights": parts.weights, "cache": parts.cache, "buffers": parts.buffers}
    listed = ", ".join(f"{name} {size / _GIB:.1f} GiB" for name, size in pieces.items())
    lanes = f"{plan.parallel} x {plan.context_length} tokens"
    return f"{plan.size / _GIB:.1f} GiB: {listed}, for {lanes}"


def _plan(spec: ModelSpec, settings: SupervisorSettings, options: LoadOptions, context: int, parallel: int) -> LoadPlan:
    setup = setup_of(spec, settings, options, context, parallel)
    layers = gpu_layers(spec, settings, setup)
    sizes = sizes_of(with_offload(spec.memory, layers if settings.devices else 0), setup)
    vram = offloaded(spec.memory, setup, layers).total if settings.devices else 0
    if 0 < layers <= len(spec.memory.layers) and settings.devices:  # both sides compute, each in buffers of its own
        sizes = replace(sizes, buffers=2 * sizes.buffers)
    return LoadPlan(options, context, parallel, max(sizes.total, vram), vram, layers, sizes)


def setup_of(spec: ModelSpec, settings: SupervisorSettings, options: LoadOptions, context: int, parallel: int) -> Setup:
    """What the runner will ask llama.cpp for."""
    if spec.is_embedding:
        return _embedding_setup(spec, settings, options, context)
    return Setup(
        context=context,
        parallel=parallel,
        step_tokens=max(options.num_batch or DEFAULT_STEP, 2 * parallel),
        kv_cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention != "off",
        outputs=parallel,
    )


def _embedding_setup(spec: ModelSpec, settings: SupervisorSettings, options: LoadOptions, context: int) -> Setup:
    """At its largest: a model that reads its inputs whole has a step for the longest of them, while there is one."""
    need = spec.memory
    keeps = bool(need.kv_bytes_per_token or need.window_bytes_per_token or need.state_bytes)
    usual = min(max(options.num_batch, DEFAULT_STEP), _LOGITS_BYTES // (4 * max(need.vocabulary, 1)))
    usual = max(usual, _LEAST_STEP)
    step = usual if keeps else max(context, usual)
    cells = context + usual if keeps else step
    is_exact = (
        4 * need.heads * step * cells <= _EXACT_ATTENTION_BYTES
    )  # computed in full precision, without a fused kernel
    return Setup(
        context=cells,
        parallel=min(_MOST_STATES if need.state_bytes else _MOST_EMBEDDED, usual),
        step_tokens=step,
        kv_cache_type="f16" if is_exact else settings.kv_cache_type,
        flash_attention=not is_exact and settings.flash_attention != "off",
        embeds=True,
    )


def gpu_layers(spec: ModelSpec, settings: SupervisorSettings, setup: Setup) -> int:
    """How many layers go to accelerators, the output counted as one: as asked, else as many as fit."""
    if spec.options.num_gpu >= 0:
        return spec.options.num_gpu
    free = settings.vram_bytes - _DEVICE_RESERVE * len(settings.devices)
    return fitting_layers(spec.memory, setup, free) if free > 0 else 0


def _leaves_half(plan: LoadPlan, settings: SupervisorSettings) -> bool:
    """Whether a second model of this kind still fits."""
    is_on_host = plan.size - plan.size_vram <= settings.budget_bytes // 2
    return is_on_host and plan.size_vram <= max(settings.vram_bytes // 2, 0 if settings.devices else plan.size_vram)


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
    if spec.projector:
        wanted = max(wanted, _LEAST_SEEING_CONTEXT)
    return min(wanted, spec.trained_context) if spec.trained_context > 0 else wanted


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
