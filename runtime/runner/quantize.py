"""`python -m runtime.runner.quantize`: makes the weights of one model smaller, in a process of its own.

Standard input is a socket to whoever wants it done: settings come in as one frame; the name of each tensor when its
turn comes, then "done" or "failed", go out.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import QuantizeFailed
from runtime.messages import Message
from runtime.process import die_with_parent
from runtime.runner.limits import restrain
from runtime.runner.threads import compute_threads
from runtime.wire import Channel

_SETTINGS_S = 10.0
_REPORT_S = 30.0
_NICE = 10  # those who wait for answers go first; a model that is made is waited for anyway
_ROWS_BYTES = 64 * 1024**2  # of a tensor that is in memory at once
DEFAULT_ALIGNMENT = 32  # bytes: where tensors begin in a file that does not say
_LOG_CONTINUES, _LOG_ERROR = 5, 4
_TENSOR = re.compile(rb"\[ *\d+/ *\d+\] (.{1,63}?) +- \[", re.DOTALL)
_REASON = re.compile(r"^\w+: failed to quantize: ")
_STREAM_BROKE = "iostream error"  # all that the C++ library tells of a write that was refused
_PROBE = b"\0" * 1024**2


@dataclass(frozen=True, slots=True)
class QuantizeSettings(Message):
    """source, target: paths of files. file_type: llama.cpp's number for the level. most_written: bytes of the target.

    is_aligned: the source begins its tensors where llama.cpp will begin those of the target, as most files do.
    parent_pid: the process whose end is also ours.
    """

    source: str
    target: str
    file_type: int
    most_written: int
    is_aligned: bool
    parent_pid: int


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever wants us ends us
    channel = Channel(socket.socket(fileno=os.dup(0)))
    body = channel.receive(timeout_s=_SETTINGS_S)
    if body is None:
        return 1
    settings = QuantizeSettings.from_json(body)
    die_with_parent(settings.parent_pid, signal.SIGKILL)
    restrain(most_written=settings.most_written)
    os.nice(_NICE)
    try:
        run(settings, channel)
    except QuantizeFailed as error:
        channel.send({"event": "failed", "message": str(error)}, timeout_s=_REPORT_S)
        return 2
    channel.send({"event": "done"}, timeout_s=_REPORT_S)
    return 0


def run(settings: QuantizeSettings, channel: Channel) -> None:
    """Write the target. Raises QuantizeFailed with llama.cpp's own words."""
    import llama_cpp.llama_cpp as ll  # noqa: PLC0415  # llama.cpp starts on import: after the limits are set

    log = _Log(channel)
    callback = ll.llama_log_callback(log.take)  # kept for as long as C may call it
    ll.llama_log_set(callback, None)
    params = ll.llama_model_quantize_default_params()
    params.ftype = settings.file_type
    params.nthread = compute_threads()
    params.max_buf_size = _ROWS_BYTES
    if not settings.is_aligned:  # llama.cpp would copy the source's word on it, and write otherwise
        overrides = (ll.llama_model_kv_override * 2)()  # the second, without a key, ends the list
        first: Any = overrides[0]
        first.tag, first.key = ll.LLAMA_KV_OVERRIDE_TYPE_INT, b"general.alignment"
        first.value.val_i64 = DEFAULT_ALIGNMENT
        params.kv_overrides = overrides
    if ll.llama_model_quantize(settings.source.encode(), settings.target.encode(), params) != 0:
        if _STREAM_BROKE in log.last_error:
            raise QuantizeFailed(f"the result cannot be written: {_why_unwritable(Path(settings.target))}")
        raise QuantizeFailed(_REASON.sub("", log.last_error) or "llama.cpp does not say why")


class _Log:
    """What llama.cpp says: which tensor it is at is passed on, and its last error kept."""

    def __init__(self, channel: Channel) -> None:
        self.last_error = ""
        self._channel = channel
        self._level = 0

    def take(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUES else level
        if self._level == _LOG_ERROR:
            self.last_error = text.decode("utf-8", "replace").strip() or self.last_error
            return
        tensor = _TENSOR.match(text)
        if tensor is not None:
            self._tell(tensor[1].decode("utf-8", "replace"))

    def _tell(self, name: str) -> None:
        try:
            self._channel.send({"event": "tensor", "name": name}, timeout_s=_REPORT_S)
        except OSError:
            os._exit(1)  # nobody is there any more; an exception would not pass through C


def _why_unwritable(target: Path) -> str:
    """The system's words, which the C++ library drops: what it says to one who writes there now."""
    try:
        with target.open("ab", buffering=0) as file:
            file.write(_PROBE)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "the system does not say why"


if __name__ == "__main__":
    sys.exit(main())
