"""Rendering in processes of their own, so that a hostile template costs its request and nothing else."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, LifoQueue

from runtime.templates.errors import RendererBusy, TemplateFailed

RENDER_S = 5.0  # a prompt of a million tokens takes half a second
MAX_REPLY_BYTES = 128 * 1024**2  # 16 Mi characters, each at most \uXXXX in JSON, with room
_PROCESSES = 2
_START = "import json,sys; sys.path[:]=json.loads(sys.argv[1]); from runtime.templates.jinja import main; main()"


class _Process:
    """One rendering process, started on first use, replaced after it has been killed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: bytes, deadline: float) -> dict[str, object]:
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self._start()
        try:
            line = self._exchange(request, deadline)
        except BaseException:
            self.close()  # the answer of this request must never meet the next one
            raise
        reply: dict[str, object] = json.loads(line)
        return reply

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        if self._owner == os.getpid():  # after a fork it is the parent's child, still in use there
            child.kill()
            child.wait()

    def _start(self) -> None:
        self.close()
        self._child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-S", "-c", _START, json.dumps([path or str(Path.cwd()) for path in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},  # nothing of ours: a template has no business with the settings
            bufsize=0,
        )
        self._owner = os.getpid()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)

    def _exchange(self, request: bytes, deadline: float) -> bytes:
        """Write `request` and read one line, both without blocking past `deadline`."""
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        out, back = self._child.stdin.fileno(), self._child.stdout.fileno()
        unsent, received = memoryview(request), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(back, selectors.EVENT_READ)
            selector.register(out, selectors.EVENT_WRITE)
            while not received.endswith(b"\n"):
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if not ready:
                    raise TemplateFailed("template error: the template takes too long", exhausted=True)
                for key, _ in ready:
                    if key.fd == out:
                        unsent = unsent[_send(out, unsent) :]
                        if not unsent:
                            selector.unregister(out)
                    else:
                        received += _receive(back)
                if len(received) > MAX_REPLY_BYTES:
                    raise TemplateFailed("template error: the prompt is too long")
        return bytes(received)


def _send(pipe: int, unsent: memoryview) -> int:
    try:
        return os.write(pipe, unsent[: 1024**2])
    except BrokenPipeError:
        raise TemplateFailed("template error: the rendering process has ended", exhausted=True) from None


def _receive(pipe: int) -> bytes:
    data = os.read(pipe, 1024**2)
    if not data:  # ended by its limits in C code, where no MemoryError could be raised
        raise TemplateFailed("template error: the rendering process has ended", exhausted=True)
    return data


_idle: LifoQueue[_Process] = LifoQueue()
for _ in range(_PROCESSES):
    _idle.put(_Process())


def render(template: str, variables: dict[str, object], *, timeout_s: float = RENDER_S) -> str:
    """`template` evaluated with `variables` (JSON values). Raises TemplateFailed, RendererBusy.

    Either comes within about `timeout_s`.
    """
    try:
        request = json.dumps({"template": template, "variables": variables}).encode() + b"\n"
    except RecursionError:
        raise TemplateFailed("template error: the messages are nested too deeply", exhausted=True) from None
    deadline = time.monotonic() + timeout_s
    try:
        process = _idle.get(timeout=timeout_s)
    except Empty:
        raise RendererBusy("too many templates are being rendered: try again") from None
    try:
        reply = process.ask(request, deadline)
    finally:
        _idle.put(process)
    if "text" not in reply:
        detail = reply.get("detail")
        raise TemplateFailed(str(reply["error"]), **detail if isinstance(detail, dict) else {})
    return str(reply["text"])


@atexit.register
def close() -> None:
    """End the idle rendering processes; the next request starts new ones."""
    for process in list(_idle.queue):
        process.close()
