"""Whether the client of a request is still there."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping


def watcher(environ: Mapping[str, object]) -> Callable[[], bool]:
    """A function that tells whether the client has closed its connection; always False where no socket is at hand.

    Looking waits for nothing and consumes nothing: the bytes of a next request stay where they are.
    """
    connection = environ.get("gunicorn.socket")
    if not isinstance(connection, socket.socket):
        return lambda: False

    poll = select.poll()
    poll.register(connection, select.POLLIN)

    def is_gone() -> bool:
        try:
            if not poll.poll(0):  # a socket with a time-out would wait in recv, whatever the flags say
                return False
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    return is_gone
