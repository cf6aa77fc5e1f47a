"""The store: one door to blobs, uploads, repositories and namespaces, and to what looks after them."""

from __future__ import annotations

from storage.blobs import Blobs
from storage.chunk_sums import ChunkSums
from storage.db import Database
from storage.drivers.protocol import Driver
from storage.gc import Collector
from storage.namespaces import Namespaces
from storage.repositories import Repositories
from storage.scrub import Scrubber
from storage.uploads import Uploads


class Store:
    """Rows in `database`, bytes with `driver`. Holds no state of its own: any number of processes may have one."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self.database = database
        self.driver = driver
        self.blobs = Blobs(database, driver)
        self.chunk_sums = ChunkSums(database, self.blobs)
        self.uploads = Uploads(database, driver)
        self.repositories = Repositories(database)
        self.namespaces = Namespaces(database)
        self.collector = Collector(database, driver)
        self.scrubber = Scrubber(database, driver)
