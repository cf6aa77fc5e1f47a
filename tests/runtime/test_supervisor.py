"""Leases of loaded models, and the life and death of the processes behind them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import (
    InputInvalid,
    LoadFailed,
    ModelTooLarge,
    PromptTooLong,
    QueueFull,
    RequestCancelled,
)
from runtime.messages import Done, GenerateRequest, Piece
from runtime.options import SampleOptions
from runtime.wire import Channel
from tests.supervised import (
    ENDLESS,
    Supervised,
    answer,
    eventually,
    is_alive,
    request,
    runner_pid,
    spec_of,
)
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "bert.gguf", arch="bert")


def test_a_lease_loads_the_model_and_answers(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)) as lease:
        text, done = answer(lease, request("hello world"))

        assert lease.context_length == 512
        assert lease.load_ns > 0
        assert len(text) > 10
        assert (done.reason, done.tokens, done.prompt_tokens) == ("length", 32, 2)


def test_ps_tells_what_is_loaded(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny), keep_alive_s=3600):
        (loaded,) = shared.client.ps()

    assert (loaded.name, loaded.size_vram, loaded.context_length) == ("tiny", 0, 512)
    assert loaded.size > tiny.stat().st_size  # as counted by the runner: the cache and buffers too
    assert loaded.expires_at == pytest.approx(time.time() + 3600, abs=60)
    assert is_alive(loaded.pid)


def test_sockets_are_for_their_owner_alone(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)):
        sockets = [path for path in shared.run_dir.iterdir() if path.is_socket()]

        assert len(sockets) >= 2
        assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def test_a_runner_inherits_nothing_of_the_environment(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)):
        raw = Path(f"/proc/{runner_pid(shared.client)}/environ").read_bytes()

    assert {line.split(b"=")[0] for line in raw.split(b"\0") if line} == {
        b"PATH", b"LANG", b"PYTHONPATH", b"GOMP_SPINCOUNT", b"GGML_NO_BACKTRACE"
    }  # fmt: skip


def test_tokens_there_and_back(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)) as lease:
        tokens = lease.tokenize("hello <|im_start|>é")

        assert lease.detokenize(tokens) == "hello <|im_start|>é"
        assert lease.count("hello <|im_start|>é") == len(tokens)
        with pytest.raises(InputInvalid):
            lease.detokenize([10**6])


def test_many_leases_stream_at_once_and_answer_as_alone(shared: Supervised, tiny: Path) -> None:
    prompts = [f"{number} hello the world" for number in range(8)]

    def ask(prompt: str) -> str:
        with shared.client.lease(spec_of(tiny)) as lease:
            return answer(lease, request(prompt, tokens=64))[0]

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, prompts))

    assert together == alone


def test_embeddings_of_models_that_embed_and_of_those_that_generate(shared: Supervised, tiny: Path, bert: Path) -> None:
    for spec in (spec_of(tiny), spec_of(bert, embeds=True)):
        with shared.client.lease(spec) as lease:
            embeddings = lease.embed(["hello", "world " * 2000, ""])

            assert [len(vector) for vector in embeddings.vectors] == [64] * 3
            assert sum(number * number for number in embeddings.vectors[0]) == pytest.approx(1)
            assert embeddings.prompt_tokens > 512
            with pytest.raises(PromptTooLong):
                lease.embed(["world " * 2000], truncate=False)
            assert lease.embed([]).vectors == []


def test_refusals_reach_the_client(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny)) as lease:
        too_long = GenerateRequest("x" * 600, SampleOptions(), truncate=False)
        with pytest.raises(PromptTooLong):
            answer(lease, too_long)
        with pytest.raises(InputInvalid):
            answer(lease, GenerateRequest("", SampleOptions(), context=(-1,)))
        assert answer(lease, request("hello", tokens=1))[1].tokens == 1


def test_closing_a_stream_frees_its_slot(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(num_parallel=1).client
    with client.lease(spec_of(tiny)) as lease:
        endless = lease.generate(ENDLESS)
        assert isinstance(next(endless), Piece)

        endless.close()  # type: ignore[attr-defined]

        began = time.monotonic()
        assert answer(lease, request("hello", tokens=2))[1].tokens == 2
        assert time.monotonic() - began < 1


def test_a_client_that_is_gone_ends_its_stream(shared: Supervised, tiny: Path) -> None:
    gone_at = time.monotonic() + 0.3
    with shared.client.lease(spec_of(tiny)) as lease, pytest.raises(RequestCancelled):
        for _ in lease.generate(ENDLESS, is_cancelled=lambda: time.monotonic() > gone_at):
            assert time.monotonic() < gone_at + 0.5


def test_models_with_the_same_weights_share_a_runner(shared: Supervised, tiny: Path) -> None:
    with shared.client.lease(spec_of(tiny, name="first")), shared.client.lease(spec_of(tiny, name="second")):
        assert len(shared.client.ps()) == len({loaded.pid for loaded in shared.client.ps()})
        assert "second" not in [loaded.name for loaded in shared.client.ps()]


def test_other_load_options_load_anew_after_running_streams(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start().client
    first = client.lease(spec_of(tiny))
    stream = first.generate(request("hello", tokens=500, temperature=1.0))
    next(stream)
    pid = runner_pid(client)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(client.lease, spec_of(tiny, num_ctx=128))
        assert isinstance(list(stream)[-1], Done)
        assert not second.done()
        first.close()

        with second.result(10) as lease:
            assert lease.context_length == 128
            assert runner_pid(client) != pid
            assert not is_alive(pid)


@pytest.mark.parametrize(("keep_alive_s", "stays"), [(0, False), (0.3, False), (-1, True), (None, True)])
def test_keep_alive(start: Callable[..., Supervised], tiny: Path, keep_alive_s: float | None, stays: bool) -> None:
    client = start().client
    with client.lease(spec_of(tiny), keep_alive_s):
        pid = runner_pid(client)
        time.sleep(0.4)  # longer than the keep-alive: a model in use stays
        assert is_alive(pid)

    assert eventually(lambda: not client.ps(), within_s=1.0) is not stays
    assert eventually(lambda: is_alive(pid) is stays)


def test_keep_alive_sticks_until_another_is_asked_for(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(keep_alive_s=1).client
    for keep_alive_s in (3600, None):
        with client.lease(spec_of(tiny), keep_alive_s):
            pass
        assert client.ps()[0].expires_at == pytest.approx(time.time() + 3600, abs=30)

    with client.lease(spec_of(tiny), -1):
        assert client.ps()[0].expires_at > time.time() + 100 * 365 * 86400


def test_unloading_an_idle_model_ends_it_now(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start().client
    client.lease(spec_of(tiny)).close()
    pid = runner_pid(client)

    assert client.unload("tiny.gguf")
    assert not client.ps()
    assert not is_alive(pid)
    assert not client.unload("tiny.gguf")


def test_unloading_a_busy_model_waits_for_its_stream(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start().client
    with client.lease(spec_of(tiny)) as lease:
        stream = lease.generate(request("hello", tokens=200))
        next(stream)

        assert client.unload("tiny.gguf")

        assert client.ps()[0].expires_at < time.time()
        assert isinstance(list(stream)[-1], Done)
    assert eventually(lambda: not client.ps())


def test_the_budget_evicts_idle_models(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(memory_budget_bytes=2**30).client
    for name in ("a", "b", "a"):
        client.lease(spec_of(tiny, identity=name, name=name)).close()
    kept = next(loaded.size for loaded in client.ps() if loaded.name == "a")

    with client.lease(spec_of(tiny, identity="c", name="c", size=2**30 - kept)):
        assert sorted(loaded.name for loaded in client.ps()) == ["a", "c"]  # b was not used for longer


def test_a_model_beyond_the_budget_is_refused_at_once(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(memory_budget_bytes=2**30).client

    with pytest.raises(ModelTooLarge, match=r"4\.0 GiB.*1\.0 GiB"):
        client.lease(spec_of(tiny, size=4 * 2**30))


def test_a_full_queue_refuses(start: Callable[..., Supervised], tiny: Path) -> None:
    running = start(max_loaded=1, max_queue=1)
    with running.client.lease(spec_of(tiny, identity="a")):
        waiting = Channel.connect(str(running.run_dir / "supervisor.sock"), timeout_s=5)
        waiting.send({"op": "lease", "spec": spec_of(tiny, identity="b").to_json(), "keep_alive": None})
        assert waiting.receive(timeout_s=5) == {"event": "queued"}

        with pytest.raises(QueueFull, match=r"^server busy, please try again\.  maximum pending requests exceeded$"):
            running.client.lease(spec_of(tiny, identity="c"))
        waiting.close()


def _after(seconds: float) -> Callable[[], bool]:
    """True once so much time has passed."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def test_who_gives_up_waiting_leaves_the_queue(start: Callable[..., Supervised], tiny: Path) -> None:
    client = start(max_loaded=1, max_queue=1).client
    with client.lease(spec_of(tiny, identity="a")):
        for _ in range(3):
            with pytest.raises(RequestCancelled):
                client.lease(spec_of(tiny, identity="b"), is_cancelled=_after(0.15))

    with client.lease(spec_of(tiny, identity="b")) as lease:
        assert answer(lease, request("hello", tokens=1))[1].tokens == 1


def test_a_file_that_is_no_model_fails_its_own_load_only(shared: Supervised, tiny: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + os.urandom(4096))
    with shared.client.lease(spec_of(tiny)) as lease:
        with pytest.raises(LoadFailed, match="unable to load model"):
            shared.client.lease(spec_of(garbage))

        assert answer(lease, request("hello", tokens=1))[1].tokens == 1
    assert "garbage" not in [loaded.name for loaded in shared.client.ps()]


def test_a_load_that_takes_too_long_fails(start: Callable[..., Supervised], tiny: Path) -> None:
    with pytest.raises(LoadFailed, match="timed out"):
        start(load_timeout_s=0.001).client.lease(spec_of(tiny))
