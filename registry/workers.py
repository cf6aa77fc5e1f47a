"""The web processes: gunicorn, told everything by its parent over standard input.

Run as `python -m registry.workers`. Source: gunicorn "Settings".
"""

from __future__ import annotations

import gc
import json
import logging
import sys
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from registry.app import after_fork, create_app
from registry.config import GRACE_S, Config
from runtime.process import die_with_parent

_REQUEST_LINE_MAX = 8190  # a push may name a hundred tags
_HEADER_MAX = 16380  # bearer tokens grow with their scopes


class WebApplication(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with settings from us alone: no configuration file, no command line, no environment."""

    def __init__(self, config: Config, listener_fd: int) -> None:
        self._config, self._listener_fd = config, listener_fd
        super().__init__()

    def load_config(self) -> None:
        for name, value in _settings(self._config, self._listener_fd).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        app = create_app(self._config)
        # What lives as long as the process is not looked at by every later collection, nor copied by the fork.
        gc.collect()
        gc.freeze()
        return app


def _settings(config: Config, listener_fd: int) -> dict[str, Any]:
    return {
        "bind": f"fd://{listener_fd}",
        "workers": config.workers,
        "worker_class": "registry.patience.PatientWorker",
        "threads": config.threads,
        "worker_connections": max(1000, config.threads * 2),
        "preload_app": True,  # one import for all workers; the app opens nothing before the fork
        "post_fork": lambda _server, worker: _start_worker(worker),
        "graceful_timeout": GRACE_S,
        "timeout": 60,  # gthread beats from its own loop, so this kills only a worker that is stuck altogether
        "keepalive": 30,
        "limit_request_line": _REQUEST_LINE_MAX,
        "limit_request_field_size": _HEADER_MAX,
        "http_parser": "auto",
        "forwarded_allow_ips": "",  # whose word counts is decided in auth/access.py alone
        "control_socket_disable": True,
        "loglevel": config.log_level,
        "accesslog": "-" if config.log_level == "debug" else None,
        "access_log_format": "%(h)s %(m)s %(U)s %(s)s %(B)s bytes %(D)s us",  # no query: it may carry a signature
    }


def _start_worker(worker: Any) -> None:
    die_with_parent(worker.ppid)
    after_fork(worker.app.wsgi())


def main() -> None:
    told = json.loads(sys.stdin.buffer.readline())
    config = Config.from_json(told["config"])
    die_with_parent(told["parent"])
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    WebApplication(config, told["listener_fd"]).run()


if __name__ == "__main__":
    main()
