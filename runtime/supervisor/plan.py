"""What loading a model means: its options resolved, its slots counted, its memory summed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from runtime.memory import DEFAULT_STEP, Setup, Sizes, fitting_layers, offloaded, sizes_of, with_offload
from runtime.messages import ModelSpec
from runtime.options import LoadOptions
from runtime.runner.threads import compute_threads
from runtime.supervisor.settings import SupervisorSettings

_LEAST_CONTEXT = 4
_LEAST_SEEING_CONTEXT = 2048  # a picture takes hundreds of tokens
_MOST_PARALLEL = 8
_MOST_EMBEDDED = 256  # sequences of one step
_MOST_STATES = 16  # of models that remember a state of each
_LEAST_STEP = 32
_LOGITS_BYTES = 256 * 1024**2  # a step that embeds is cut so that its logits take no more
_EXACT_ATTENTION_BYTES = 512 * 1024**2
# Tokens of a step, which everyone on a runner waits for: one client's word must neither freeze the others for seconds
# (nor make the runner seem to hang) nor cut their prompts into crumbs. An accelerator is through with 2048 in no time.
_LEAST_BATCH, _MOST_BATCH, _MOST_BATCH_ON_DEVICES = 64, 512, 2048
_ENCODED_BYTES = 256 * 1024**2  # of images that a runner with a projector keeps
_DEVICE_RESERVE = 512 * 1024**2  # what a driver takes for itself, and what nobody has told us of
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A runner to be, or that is.

    context_length: each sequence's. size: all bytes it takes; size_vram: those of them on accelerators. gpu_layers:
    how many layers those are, as llama.cpp counts them; negative is all. parts: what `size` is made of.
    uncounted, uncounted_vram: what a runner that is ready does not tell of them: its projector, which keeps a log of
    its own, and what only comes with use. grows: what it tells then is the least of its life, and `size` the most.
    """

    options: LoadOptions
    context_length: int
    parallel: int
    size: int
    size_vram: int = 0
    gpu_layers: int = -1
    parts: Sizes = field(default_factory=lambda: Sizes(0, 0, 0))
    uncounted: int = 0
    uncounted_vram: int = 0
    grows: bool = False


def plan_load(spec: ModelSpec, settings: SupervisorSettings) -> LoadPlan:
    """How `spec` is loaded under `settings`.

    Without a number from the operator, a model gets eight slots, halved until it fits half of the budget with all of
    them full, so that a second model of its kind still fits. Models that only embed have no use for slots: their
    inputs are packed into one batch. A vocabulary alone takes what it takes.
    """
    if spec.vocabulary_of:
        size = spec.memory.compute_bytes
        return LoadPlan(spec.options, spec.trained_context, 1, size, parts=Sizes(size, 0, 0), grows=True)
    context = context_length(spec, settings)
    options = bounded(spec.options, context, has_devices=bool(settings.devices))
    if spec.is_embedding:
        return replace(_plan(spec, settings, options, context, 1), grows=True)
    parallel = settings.num_parallel if settings.num_parallel > 0 else _MOST_PARALLEL
    plan = _plan(spec, settings, options, context, parallel)
    while settings.num_parallel <= 0 and parallel > 1 and not _leaves_half(plan, settings):
        parallel //= 2
        plan = _plan(spec, settings, options, context, parallel)
    return _with_reserve(plan, spec, settings)


def describe(plan: LoadPlan) -> str:
    """What the plan takes, for a person: `3.0 GiB: weights 2.0 GiB, cache 0.8 GiB, buffers 0.2 GiB`."""
    parts = plan.parts
    pieces = {"weights": parts.weights, "cache": parts.cache, "buffers": parts.buffers}
    if parts.reserve:
        pieces["reserve"] = parts.reserve
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
    seeing = spec.memory.projector_bytes
    return LoadPlan(
        options, context, parallel, max(sizes.total, vram), vram, layers, sizes,
        uncounted=seeing, uncounted_vram=seeing if vram else 0,
    )  # fmt: skip


def _with_reserve(plan: LoadPlan, spec: ModelSpec, settings: SupervisorSettings) -> LoadPlan:
    """The plan of a model that generates, with room for what comes with use: a context that embeds, made for the first
    text to be embedded and kept, and encoded images.

    The context takes some 0.3 GiB for a model of 135 million parameters and 1.2 GiB for one of 8 billion, at 4096
    tokens: too much to be counted nowhere, and too much to give up lanes for, which serve every request, while few
    models that generate are ever asked to embed. So lanes are chosen without it, it takes no more than is left beside
    a second model of its kind, or else of the budget, and nothing is refused for its sake.
    """
    need = spec.memory
    layers = plan.gpu_layers if settings.devices else 0
    setup = _embedding_setup(spec, settings, plan.options, plan.context_length)
    sizes, there = sizes_of(need, setup), offloaded(need, setup, layers)
    here = sizes.cache - there.cache + (sizes.buffers if layers <= len(need.layers) else 0)
    if spec.projector:
        here += _ENCODED_BYTES
    here = min(here, _left(plan.size - plan.size_vram, settings.budget_bytes))
    vram = min(there.cache + there.buffers, _left(plan.size_vram, settings.vram_bytes))
    return replace(
        plan,
        size=plan.size + here + vram,
        size_vram=plan.size_vram + vram,
        parts=replace(plan.parts, reserve=here + vram),
        uncounted=plan.uncounted + here + vram,
        uncounted_vram=plan.uncounted_vram + vram,
    )


def _left(taken: int, budget: int) -> int:
    """What is left of the half of the budget that one model may have, or of all of it."""
    half = budget // 2
    return half - taken if taken <= half else max(budget - taken, 0)


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


def bounded(options: LoadOptions, context: int, *, has_devices: bool) -> LoadOptions:
    """The options cut to what can be of use: they come from clients and layers. What is negative is left open."""
    most_batch = _MOST_BATCH_ON_DEVICES if has_devices and options.num_gpu != 0 else _MOST_BATCH
    batch = max(min(options.num_batch, context, most_batch), _LEAST_BATCH)
    return replace(
        options,
        num_batch=batch if options.num_batch > 0 else 0,
        num_gpu=max(options.num_gpu, -1),
        main_gpu=None if options.main_gpu is not None and options.main_gpu < 0 else options.main_gpu,
        num_thread=min(options.num_thread, compute_threads()) if options.num_thread > 0 else 0,
    )


def context_length(spec: ModelSpec, settings: SupervisorSettings) -> int:
    """The window of one sequence: as asked, else the default; never more than the model was trained for."""
    wanted = max(spec.options.num_ctx if spec.options.num_ctx > 0 else settings.context_length, _LEAST_CONTEXT)
    if spec.projector:
        wanted = max(wanted, _LEAST_SEEING_CONTEXT)
    return min(wanted, spec.trained_context) if spec.trained_context > 0 else wanted


def is_compatible(loaded: LoadPlan, wanted: LoadPlan) -> bool:
    """Whether a runner loaded one way answers a request for another.

    num_batch, num_gpu, main_gpu and use_mmap match anything where the request leaves them open. A context left open is
    the default's length, and threads left open are the server's choice: they match what was loaded so, and no other.
    Source: the Ollama API, "When a request forces a reload".
    """
    have, want = loaded.options, wanted.options
    return (
        loaded.context_length == wanted.context_length
        and want.num_thread == have.num_thread
        and want.num_batch in {0, have.num_batch}
        and want.num_gpu in {-1, have.num_gpu}
        and want.main_gpu in {None, have.main_gpu}
        and want.use_mmap in {None, have.use_mmap}
    )
