"""What the handlers of a request work with; put into the app by `registry/app.py`."""

from __future__ import annotations

from typing import TypeVar

from flask import current_app

from registry.config import Config
from registry.mirror.mirroring import Mirroring
from registry.mirror.mirrors import Mirrors
from registry.remotes.service import Remotes
from storage.store import Store

T = TypeVar("T")


def store() -> Store:
    return _extension("tonnage.store", Store)


def config() -> Config:
    return _extension("tonnage.config", Config)


def remotes() -> Remotes:
    return _extension("tonnage.remotes", Remotes)


def mirrors() -> Mirrors:
    return _extension("tonnage.mirrors", Mirrors)


def mirroring() -> Mirroring:
    return _extension("tonnage.mirroring", Mirroring)


def _extension(name: str, kind: type[T]) -> T:
    found = current_app.extensions[name]
    assert isinstance(found, kind)
    return found
