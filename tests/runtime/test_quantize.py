"""Weights made smaller: the levels, the process that does it, and what is left when it fails."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gguf import GGUFReader

from runtime import quantizer
from runtime.errors import LevelUnsupported, QuantizeFailed, RequestCancelled
from runtime.gguf import Header, Tensor, read_header
from runtime.quantize import check_source, parse_level, quantize
from runtime.supervisor.lease import never
from tests.full_gguf import write_full_gguf
from tests.supervised import Supervised, answer, is_alive, request, spec_of
from tests.tiny_gguf import write_tiny_gguf

SUPPORTED = "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"


def header(path: Path) -> Header:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


def ignore(_done: int, _total: int) -> None:
    """A `progress` that nobody looks at."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_full_gguf(tmp_path / "source.gguf")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 30 MB, which takes long enough to be disturbed."""
    return write_full_gguf(tmp_path_factory.mktemp("large") / "source.gguf", width=1024)


@pytest.mark.parametrize(
    ("text", "level"),
    [("q8_0", "Q8_0"), ("Q4_K", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("Q4_k_s", "Q4_K_S"), ("f16", "F16"), ("bf16", "BF16"),
     ("F32", "F32")],
)  # fmt: skip
def test_a_level_is_known_in_any_case(text: str, level: str) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize(
    ("text", "shown"),
    [("q4_0", "Q4_0"), ("", ""), ("Q8_0 ", "Q8_0"), ("q8\n0", "Q8 0"), ("x" * 500, "X" * 63 + "…")],
)
def test_another_level_is_refused_by_name(text: str, shown: str) -> None:
    with pytest.raises(LevelUnsupported) as refused:
        parse_level(text)
    assert str(refused.value) == f"unsupported quantization type {shown} - {SUPPORTED}"


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_full_precision_is_named(tmp_path: Path, kind: str) -> None:
    assert check_source(header(write_full_gguf(tmp_path / "full.gguf", kind))) == kind


@pytest.mark.parametrize(
    ("file_type", "types", "found"),
    [
        (1, ("F32", "F16"), "F16"),
        (0, ("F16", "F16", "F32"), "F32"),  # its own word, where that is true of some
        (7, ("F16", "F16", "F32"), "F16"),  # a word that no tensor bears out
        (None, ("BF16", "F32", "BF16", "I32"), "BF16"),
        (1, ("F16", "Q8_0"), None),
        (7, ("Q8_0", "F32"), None),
        (1, ("I32",), None),
        (1, (), None),
    ],
)
def test_what_the_tensors_are_decides_what_may_be_quantized(
    file_type: int | None, types: tuple[str, ...], found: str | None
) -> None:
    tensors = tuple(Tensor(str(number), (32,), kind, 0, 64) for number, kind in enumerate(types))
    told = {} if file_type is None else {"general.file_type": file_type}
    stored = Header(3, told, tensors, 0)

    if found is not None:
        assert check_source(stored) == found
        return
    with pytest.raises(LevelUnsupported, match=r"^quantization is only supported for F16, BF16 and F32 models$"):
        check_source(stored)


@pytest.mark.parametrize(
    ("kind", "width", "level", "types"),
    [
        ("F16", 64, "Q8_0", {"Q8_0": 16}),
        ("F16", 256, "Q4_K_M", {"Q4_K": 13, "Q6_K": 3}),
        ("BF16", 256, "Q4_K_S", {"Q4_K": 13, "Q5_K": 2, "Q6_K": 1}),
        ("F16", 64, "Q4_K_M", {"Q5_0": 13, "Q8_0": 3}),  # rows that no K-quant fits get what comes nearest
        ("F16", 48, "Q8_0", {"F16": 16}),  # and rows that nothing fits stay as they are
        ("F32", 64, "F16", {"F16": 16}),
        ("F16", 64, "BF16", {"BF16": 16}),
        ("F16", 64, "F32", {"F32": 16}),
    ],
)
def test_matrices_get_the_type_of_the_level(
    tmp_path: Path, kind: str, width: int, level: str, types: dict[str, int]
) -> None:
    source, target = write_full_gguf(tmp_path / "source.gguf", kind, width=width), tmp_path / "target.gguf"
    before = source.read_bytes()

    quantize(source, target, level, progress=ignore, is_cancelled=never)

    made = header(target)
    matrices = [tensor for tensor in made.tensors if len(tensor.dims) > 1]
    assert made.file_type == level
    assert Counter(tensor.type for tensor in matrices) == types
    assert {tensor.name for tensor in made.tensors} == {tensor.name for tensor in header(source).tensors}
    assert source.read_bytes() == before


@pytest.mark.parametrize("alignment", [64, 4096, 16])
def test_another_alignment_moves_no_number(tmp_path: Path, source: Path, alignment: int) -> None:
    other = write_full_gguf(tmp_path / "other.gguf", alignment=alignment)
    made = [tmp_path / name for name in ("a", "b")]

    for read, written in zip((source, other), made, strict=True):
        quantize(read, written, "Q8_0", progress=ignore, is_cancelled=never)

    ours, theirs = ({tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors} for path in made)
    assert header(other).data_offset % alignment == 0
    assert ours == theirs


@pytest.mark.parametrize(("width", "level"), [(64, "Q8_0"), (256, "Q4_K_M")])
def test_the_result_answers(shared: Supervised, tmp_path: Path, width: int, level: str) -> None:
    source, target = write_full_gguf(tmp_path / "source.gguf", width=width), tmp_path / f"{level}.gguf"
    quantize(source, target, level, progress=ignore, is_cancelled=never)

    with shared.client.lease(spec_of(target)) as lease:
        _, done = answer(lease, request("hello", tokens=4))

    assert done.tokens == 4


def test_progress_is_told_in_bytes_of_the_source(tmp_path: Path, source: Path) -> None:
    told: list[tuple[int, int]] = []

    quantize(
        source, tmp_path / "t", "Q8_0", progress=lambda done, total: told.append((done, total)), is_cancelled=never
    )

    tensors = header(source).tensors
    total = sum(tensor.size for tensor in tensors)
    assert len(told) == len(tensors) + 1
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert told == sorted(set(told))


def _child() -> int:
    """The process that quantises for us."""
    found = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if _reads(stat).rpartition(")")[2].split()[1:2] == [str(os.getpid())]
        and "runtime.runner.quantize" in _reads(stat.with_name("cmdline"))
    ]
    (pid,) = found
    return pid


def _reads(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class AtFirst:
    """A `progress` that does something to the process, once it has begun to write."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self._act = act
        self.pid = 0
        self.at = 0.0

    def __call__(self, _done: int, _total: int) -> None:
        if not self.pid:
            self.pid = _child()
            self._act(self.pid)
            self.at = time.monotonic()


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def test_who_gives_up_is_done_with_at_once(tmp_path: Path, large: Path) -> None:
    target, stopped = tmp_path / "t", AtFirst(_stop)

    with pytest.raises(RequestCancelled):
        quantize(large, target, "Q4_K_M", progress=stopped, is_cancelled=lambda: bool(stopped.pid))

    assert time.monotonic() - stopped.at < 0.5
    assert not is_alive(stopped.pid)
    assert not target.exists()


def test_one_waits_for_the_other_and_may_give_up(tmp_path: Path, large: Path, source: Path) -> None:
    waiting = tmp_path / "waiting"
    refused: list[RequestCancelled] = []

    def come_second(pid: int) -> None:
        _stop(pid)
        until = time.monotonic() + 0.3
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(
                quantize, source, waiting, "Q8_0", progress=ignore, is_cancelled=lambda: time.monotonic() > until
            )
            with pytest.raises(RequestCancelled) as error:
                second.result(5)
        refused.append(error.value)
        os.kill(pid, signal.SIGCONT)

    quantize(large, tmp_path / "t", "Q8_0", progress=AtFirst(come_second), is_cancelled=never)
    quantize(source, waiting, "Q8_0", progress=ignore, is_cancelled=never)

    assert len(refused) == 1
    assert (tmp_path / "t").exists()


def test_a_process_that_dies_is_a_failure_and_leaves_nothing(tmp_path: Path, large: Path) -> None:
    target = tmp_path / "t"
    killed = AtFirst(lambda pid: os.kill(pid, signal.SIGKILL))

    with pytest.raises(QuantizeFailed, match=r"^quantization failed: its process was ended by SIGKILL$"):
        quantize(large, target, "Q4_K_M", progress=killed, is_cancelled=never)

    assert not target.exists()


def test_an_abort_of_llama_cpp_is_told_with_its_last_words(tmp_path: Path) -> None:
    source, target = write_full_gguf(tmp_path / "source.gguf", layers=0), tmp_path / "t"

    with pytest.raises(QuantizeFailed, match=r"^quantization failed: its process was ended by SIGABRT: .*GGML_ASSERT"):
        quantize(source, target, "Q8_0", progress=ignore, is_cancelled=never)

    assert not target.exists()


def test_silence_ends_it(tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer, "_SILENT_S", 0.3)
    target, stopped = tmp_path / "t", AtFirst(_stop)

    with pytest.raises(QuantizeFailed, match=r"^quantization failed: nothing was done for 0\.3 s$"):
        quantize(large, target, "Q4_K_M", progress=stopped, is_cancelled=never)

    assert not is_alive(stopped.pid)
    assert not target.exists()


def test_a_system_that_refuses_to_write_says_why(tmp_path: Path, large: Path) -> None:
    target = tmp_path / "t"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, before[1]))
    try:
        with pytest.raises(QuantizeFailed) as refused:
            quantize(large, target, "Q8_0", progress=ignore, is_cancelled=never)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert str(refused.value) == "quantization failed: the result cannot be written: File too large"
    assert not target.exists()


def test_a_place_that_is_none_is_not_named(tmp_path: Path, source: Path) -> None:
    with pytest.raises(QuantizeFailed) as refused:
        quantize(source, tmp_path / "none" / "t", "Q8_0", progress=ignore, is_cancelled=never)

    told = str(refused.value)
    assert told == "quantization failed: the result cannot be written: No such file or directory"


def test_what_was_quantized_before_is_refused_in_words(tmp_path: Path) -> None:
    source, target = write_tiny_gguf(tmp_path / "small.gguf"), tmp_path / "t"

    with pytest.raises(QuantizeFailed, match=r"^quantization failed: requantizing from type q\w+ is disabled$"):
        quantize(source, target, "Q8_0", progress=ignore, is_cancelled=never)

    assert not target.exists()


def test_numbers_that_are_none_are_refused_in_words(tmp_path: Path, source: Path) -> None:
    stored = header(source)
    raw = bytearray(source.read_bytes())
    matrix = next(tensor for tensor in stored.tensors if tensor.name == "blk.0.ffn_up.weight")
    start = stored.data_offset + matrix.offset
    raw[start : start + matrix.size] = b"\xff" * matrix.size  # not a number, each of them
    source.write_bytes(raw)

    with pytest.raises(
        QuantizeFailed, match=r"^quantization failed: tensor 'blk\.0\.ffn_up\.weight' has invalid data$"
    ):
        quantize(source, tmp_path / "t", "Q8_0", progress=ignore, is_cancelled=never)


def test_the_process_is_given_two_files_and_nothing_else(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONNAGE_SECRET", "hidden")
    seen: dict[str, object] = {}

    def look(pid: int) -> None:
        _stop(pid)
        place = Path(f"/proc/{pid}")
        seen["environment"] = _reads(place / "environ")
        seen["files"] = {int(path.name): str(path.readlink()) for path in (place / "fd").iterdir()}
        seen["status"] = _reads(place / "status")
        seen["limits"] = [line.split() for line in _reads(place / "limits").splitlines()]
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(QuantizeFailed):
        quantize(large, tmp_path / "target.gguf", "Q4_K_M", progress=AtFirst(look), is_cancelled=never)

    assert "TONNAGE" not in str(seen["environment"])
    files = seen["files"]
    assert isinstance(files, dict)
    sockets = {name for name in files.values() if name.startswith("socket:")}
    assert len(sockets) == 1
    named = {name for name in files.values() if name.startswith("/") and name[:5] != "/dev/" and "deleted" not in name}
    assert named <= {str(large), str(tmp_path / "target.gguf")}
    assert "NoNewPrivs:\t1" in str(seen["status"])
    limits = seen["limits"]
    assert isinstance(limits, list)
    (most,) = [int(line[3]) for line in limits if line[:3] == ["Max", "file", "size"]]
    assert large.stat().st_size < most < 3 * large.stat().st_size
