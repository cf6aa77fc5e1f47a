"""What a runner is told, once, by the supervisor that starts it. No secrets, no database: a path and sizes."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.messages import Message


@dataclass(frozen=True, slots=True)
class RunnerSettings(Message):
    """One loaded model. 0 or None leaves the choice to the runner.

    path: the weights, already checked; offset: where in it they begin. more_paths: the files that go on where it
    ends. adapters: LoRA adapters to be added to them, already checked too. socket: where requests are answered.
    context_length: tokens a sequence may span. parallel: sequences decoded side by side, each with a full window.
    num_batch: the most tokens of one step. kv_cache_type: "f16", "q8_0" or "q4_0".
    projector: the file that turns images into embeddings, already checked; empty without one.
    vocabulary_only: load no weights, and tell tokens only.
    parent_pid: the process whose end is also the runner's.
    """

    path: str
    socket: str
    context_length: int
    parallel: int = 1
    num_batch: int = 0
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    is_embedding: bool = False
    projector: str = ""
    vocabulary_only: bool = False
    parent_pid: int = 0
    more_paths: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    offset: int = 0
