"""The store: one door to blobs, uploads, repositories and namespaces, and to what looks after them."""

from __future__ import annotations

from storage.blobs import Blobs
from storage.chunk_sums import ChunkSums
from storage.db import Database
from storage.direct import Direct
from storage.drivers.protocol import Driver
from storage.gc import Collector
from storage.local_copies.copies import LocalCopies
from storage.local_files import LocalFiles
from storage.namespaces import Namespaces
from storage.repositories import Repositories
from storage.scrub import Scrubber
from storage.uploads import Uploads


class Store:
    """Rows in `database`, bytes with `driver`. Holds no state of its own: any number of processes may have one."""

    def __init__(self, database: Database, driver: Driver, copies: LocalCopies | None = None) -> None:
        """copies: of the driver's bytes, where these are no files and some process has to map them."""
        self.database = database
        self.driver = driver
        self.blobs = Blobs(database, driver)
        self.files = LocalFiles(database, self.blobs, copies)
        self.chunk_sums = ChunkSums(database, self.blobs)
        self.uploads = Uploads(database, driver)
        self.direct = Direct(database, driver)
        self.repositories = Repositories(database)
        self.namespaces = Namespaces(database)
        self.collector = Collector(database, driver)
        self.scrubber = Scrubber(database, driver)
