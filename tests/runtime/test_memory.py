"""What the header says a model takes, beside what llama.cpp says it took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import smollm2
from runtime.cache_layers import layer_caches, window
from runtime.gguf import Header, Tensor, read_header
from runtime.memory import Setup, estimate_memory, fitting_layers, offloaded, sizes_of
from runtime.messages import MemoryNeed
from tests.gguf_variants import VARIANTS, write_variant
from tests.tiny_gguf import write_tiny_gguf

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 0.10
MEASURE = """
import json, sys
from runtime.runner.library import Context, Log, Model
from runtime.runner.settings import RunnerSettings
for line in sys.stdin:
    asked = json.loads(line)
    setup = asked["setup"]
    context, parallel, embeds = setup["context"], setup["parallel"], setup["embeds"]
    settings = RunnerSettings(
        asked["path"], "", context, parallel, num_gpu=0, kv_cache_type=setup["kv_cache_type"],
        flash_attention=None if setup["flash_attention"] else False,
    )
    log = Log()
    model = Model(settings, log, lambda _: None)
    made = Context(
        model, cells=max(context, setup["step_tokens"]) if embeds else context * parallel, sequences=parallel,
        step_tokens=setup["step_tokens"], threads=1, settings=settings, embeds=embeds, pooling=int(embeds),
    )
    print(json.dumps([log.host_bytes, log.device_bytes]), flush=True)
    made.close()
"""


@pytest.fixture(scope="module")
def measure() -> Iterator[Callable[[Path, Setup], int]]:
    """Loads a model as a runner does, in one process for all, and tells the bytes that llama.cpp reports."""
    child = subprocess.Popen(
        [sys.executable, "-c", MEASURE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    asked, told = child.stdin, child.stdout

    def load(path: Path, setup: Setup) -> int:
        print(json.dumps({"path": str(path), "setup": asdict(setup)}), file=asked, flush=True)
        host, device = json.loads(told.readline())
        assert device == 0
        return int(host)

    with child:
        yield load
        asked.close()


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a model by its name, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("memory")

    def path_of(name: str) -> Path:
        path = folder / f"{name}.gguf"
        if name == "smollm2":
            return smollm2.fetch()
        if not path.exists():
            if name in VARIANTS:
                write_variant(path, VARIANTS[name])
            else:
                write_tiny_gguf(path, arch="bert" if name == "bert" else "llama")
        return path

    return path_of


def close_to(estimate: int, measured: int) -> bool:
    return abs(estimate - measured) <= TOLERANCE * measured


SETUPS = [
    Setup(512),
    Setup(4096),
    Setup(4096, parallel=4),
    Setup(16_384, parallel=2, kv_cache_type="q8_0"),
    Setup(4096, parallel=8, kv_cache_type="q4_0"),
    Setup(1000, parallel=3, step_tokens=2048),
    Setup(8192, flash_attention=False),
]


@pytest.mark.parametrize("setup", SETUPS, ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_an_estimate_is_near_what_llama_cpp_takes(
    name: str, setup: Setup, models: Callable[[str], Path], measure: Callable[[Path, Setup], int]
) -> None:
    path, setup = models(name), replace(setup, outputs=setup.parallel)

    estimate = sizes_of(estimate_memory(header_of(path)), setup).total

    assert close_to(estimate, measure(path, setup))


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
@pytest.mark.parametrize("context", [512, 2048])
@pytest.mark.parametrize("parallel", [1, 8])
def test_so_it_is_for_whole_models(
    name: str, context: int, parallel: int, models: Callable[[str], Path], measure: Callable[[Path, Setup], int]
) -> None:
    path, setup = models(name), Setup(context, parallel, outputs=parallel)

    assert close_to(sizes_of(estimate_memory(header_of(path)), setup).total, measure(path, setup))


@pytest.mark.parametrize("kv_cache_type", ["q8_0", "q4_0"])
def test_so_it_is_for_a_real_model_with_a_smaller_cache(
    kv_cache_type: str, models: Callable[[str], Path], measure: Callable[[Path, Setup], int]
) -> None:
    path, setup = models("smollm2"), Setup(2048, 4, kv_cache_type=kv_cache_type, outputs=4)

    assert close_to(sizes_of(estimate_memory(header_of(path)), setup).total, measure(path, setup))


@pytest.mark.parametrize("context", [512, 2048])
def test_a_model_that_embeds_also_takes_room_for_logits_that_come_with_the_first_input(
    context: int, models: Callable[[str], Path], measure: Callable[[Path, Setup], int]
) -> None:
    path, setup = models("bert"), Setup(context, 1, step_tokens=context, embeds=True)
    need = estimate_memory(header_of(path))
    logits = 4 * need.vocabulary * (context - 1)

    assert close_to(sizes_of(need, setup).total, measure(path, setup) + logits)


def header(arch: str, layers: int = 4, **keys: object) -> Header:
    """A model of 8 heads of 16 numbers, 2 of them kept. keys: with `__` for a dot."""
    told = {"block_count": layers, "embedding_length": 128, "attention.head_count": 8, "attention.head_count_kv": 2}
    told |= {key.replace("__", "."): value for key, value in keys.items()}
    metadata = {f"{arch}.{key}": value for key, value in told.items()} | {"general.architecture": arch}
    return Header(3, metadata, (), 0)  # type: ignore[arg-type]  # a dict of fewer types


FULL = 2 * 2 * (16 + 16)  # bytes a token and layer
W, F = (0, FULL), (FULL, 0)
KEPT = [
    pytest.param(header("llama"), [F] * 4, id="llama"),
    pytest.param(header("qwen2", attention__sliding_window=64), [F] * 4, id="a window that is not used"),
    pytest.param(header("gemma3", 7, attention__sliding_window=64), [W] * 5 + [F, W], id="gemma3"),
    pytest.param(header("gemma3", 3), [F] * 3, id="gemma3 without a window"),
    pytest.param(header("gemma2"), [W, F] * 2, id="gemma2 has a window by default"),
    pytest.param(header("gpt-oss", attention__sliding_window=128), [W, F] * 2, id="gpt-oss"),
    pytest.param(header("cohere2", attention__sliding_window=128), [W, W, W, F], id="cohere2"),
    pytest.param(header("laguna", attention__sliding_window=64), [F, W, W, W], id="the first one sees all"),
    pytest.param(
        header("gemma3", attention__sliding_window=64, attention__sliding_window_pattern=2), [W, F] * 2, id="a period"
    ),
    pytest.param(
        header("gemma4", attention__sliding_window=64, attention__sliding_window_pattern=[True, False, True, False]),
        [W, F] * 2,
        id="a list",
    ),
    pytest.param(
        header(
            "gemma4", attention__sliding_window=64, attention__sliding_window_pattern=[1, 0, 1, 0],
            attention__shared_kv_layers=2,
        ),
        [W, F, (0, 0), (0, 0)],
        id="shared with earlier layers",
    ),
    pytest.param(header("bert"), [(0, 0)] * 4, id="nothing is kept"),
    pytest.param(header("llama", attention__head_count_kv=[2, 0, 2, 0]), [F, (0, 0)] * 2, id="heads of each layer"),
    pytest.param(header("llama", attention__key_length=32), [(2 * 2 * (32 + 16), 0)] * 4, id="long keys"),
    pytest.param(header("mamba", ssm__state_size=16), [(0, 0)] * 4, id="only states"),
    pytest.param(header("qwen3next"), [(0, 0)] * 3 + [F], id="every fourth layer attends"),
    pytest.param(header("glm4", nextn_predict_layers=1), [F] * 3 + [(0, 0)], id="no cache for predictions"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "kept"), KEPT)
def test_each_layer_keeps_what_its_architecture_says(told: Header, kept: list[tuple[int, int]]) -> None:
    assert [(cache.kv, cache.window_kv) for cache in layer_caches(told)] == kept


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (header("mamba", ssm__inner_size=256, ssm__state_size=16, ssm__conv_kernel=4), 4 * (3 * 256 + 16 * 256)),
        (
            header("mamba2", ssm__inner_size=256, ssm__state_size=8, ssm__conv_kernel=4, ssm__group_count=2),
            4 * (3 * (256 + 32) + 8 * 256),
        ),
        (header("rwkv7", wkv__head_size=64), 4 * 128 * (2 + 64)),
        (header("rwkv6qwen2", wkv__head_size=64, token_shift_count=1), 4 * 128 * 65),
        (header("lfm2", shortconv__l_cache=3, attention__head_count_kv=[0, 2, 0, 2]), 4 * 128 * 2),
        (header("kimi-linear", kda__head_dim=16, ssm__conv_kernel=4, attention__head_count_kv=0), 4 * 128 * (9 + 16)),
    ],
)
def test_recurrent_layers_keep_a_state_of_fixed_size(told: Header, state: int) -> None:
    caches = layer_caches(told)

    assert caches[0].state == state
    assert not any(cache.state and cache.kv for cache in caches)


def test_a_window_is_what_the_header_or_the_architecture_says() -> None:
    assert window(header("gemma3", attention__sliding_window=1024)) == 1024
    assert window(header("llama4", attention__sliding_window=512)) == 8192
    assert window(header("llama4", attention__sliding_window=0)) == 0
    assert window(header("llama", attention__sliding_window=512)) == 0


def model_of(layers: int, each: int, kv: int = 1024) -> MemoryNeed:
    rows = tuple((each, 0, kv, 0, 0) for _ in range(layers))
    return MemoryNeed(each * (layers + 2), kv * layers, 0, layers=rows, output_bytes=each)


@given(
    layers=st.integers(1, 80), each=st.integers(1, 2**28), free=st.integers(0, 2**34), context=st.integers(256, 2**15)
)
def test_as_many_layers_go_to_devices_as_fit_and_no_more(layers: int, each: int, free: int, context: int) -> None:
    need, setup = model_of(layers, each), Setup(context)

    count = fitting_layers(need, setup, free)

    assert 0 <= count <= layers + 1
    assert offloaded(need, setup, count).total <= free
    assert count == layers + 1 or offloaded(need, setup, count + 1).total > free


@given(
    context=st.integers(1, 2**17), parallel=st.integers(1, 16), more=st.integers(0, 2**14),
    kind=st.sampled_from(["f16", "q8_0", "q4_0"]), flash=st.booleans(),
)  # fmt: skip
def test_more_tokens_and_lanes_never_take_less(context: int, parallel: int, more: int, kind: str, flash: bool) -> None:
    need = estimate_memory(header("gemma3", 7, attention__sliding_window=512))

    one = sizes_of(need, Setup(context, parallel, kv_cache_type=kind, flash_attention=flash))
    longer = sizes_of(need, Setup(context + more, parallel, kv_cache_type=kind, flash_attention=flash))
    wider = sizes_of(need, Setup(context, parallel + 1, kv_cache_type=kind, flash_attention=flash))

    assert one.cache <= longer.cache
    assert one.buffers <= longer.buffers
    assert one.cache <= wider.cache


@given(st.dictionaries(st.sampled_from([
    "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.sliding_window", "attention.sliding_window_pattern", "ssm.inner_size", "expert_used_count",
    "feed_forward_length", "nextn_predict_layers", "full_attention_interval", "attention.shared_kv_layers",
]), st.one_of(st.integers(-5, 2**64 - 1), st.booleans(), st.lists(st.integers(-1, 2**40), max_size=9), st.text())),
    st.sampled_from(["llama", "gemma3", "gemma3n", "gemma4", "jamba", "mamba", "qwen3next", "nemotron_h", "lfm2"]),
)  # fmt: skip
def test_no_header_breaks_the_estimate(told: dict[str, object], arch: str) -> None:
    metadata = {f"{arch}.{key}": value for key, value in told.items()} | {"general.architecture": arch}

    need = estimate_memory(Header(3, metadata, (), 0))  # type: ignore[arg-type]

    assert sizes_of(need, Setup(4096)).total >= 0


def test_an_estimate_survives_the_wire() -> None:
    need = estimate_memory(header("gemma3", 7, attention__sliding_window=512))

    assert sizes_of(MemoryNeed.from_json(json.loads(json.dumps(need.to_json()))), Setup(4096)) == sizes_of(
        need, Setup(4096)
    )


def test_a_projector_is_counted() -> None:
    tensor = Tensor("v.patch_embd.weight", (1024,), "F32", 0, 4096)
    sight = Header(3, {"general.architecture": "clip"}, (tensor,), 0)

    need = estimate_memory(header("llama"), sight)

    assert need.projector_bytes >= 4096
    for layers, there in ((0, 0), (1, need.projector_bytes), (5, need.projector_bytes)):
        blind = offloaded(replace(need, projector_bytes=0), Setup(512), layers)
        assert offloaded(need, Setup(512), layers).total - blind.total == there
