"""gc while clients push, over several web processes: what was answered 201 and not deleted can be pulled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from registry.config import Config
from storage.db import Database
from storage.store import Store
from tests.backends import driver_of
from tests.databases import url_of
from tests.registry.pushers import Pusher
from tests.server import running_server

PUSHERS, SWEEPERS, PUSHES = 4, 2, 12


def test_what_was_pushed_can_be_pulled_while_several_sweep(tmp_path: Path) -> None:
    environ = {"TONNAGE_ACCESS": "open", "TONNAGE_WORKERS": "3", "TONNAGE_THREADS": "8"}
    with running_server(tmp_path / "data", environ) as server:
        config = Config(data=str(server.data), database_url=url_of(server.data))
        done, swept = threading.Event(), list[int]()

        def sweep() -> None:
            store = Store(Database(config.database_url), driver_of(config.data_path))
            while not done.is_set():
                swept.append(store.collector.sweep().objects)
                done.wait(0.02)
            store.database.close()

        sweepers = [threading.Thread(target=sweep) for _ in range(SWEEPERS)]
        # one principal each: what two pushes of one principal hold together, a manifest of the first uses up
        tokens = [server.create_token(f"pusher{number}", "push", "delete") for number in range(PUSHERS)]
        pushers = [Pusher(server.host, token, number, pushes=PUSHES) for number, token in enumerate(tokens)]
        for thread in (*sweepers, *pushers):
            thread.start()
        deadline = time.monotonic() + 120
        for pusher in pushers:
            pusher.join(max(0.0, deadline - time.monotonic()))
        done.set()
        for thread in sweepers:
            thread.join(30)
        assert not any(thread.is_alive() for thread in (*sweepers, *pushers))
        assert [failure for pusher in pushers for failure in pusher.failures] == []
        assert len(swept) > 2 * SWEEPERS
