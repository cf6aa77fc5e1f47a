"""What the handlers of a request work with; put into the app by `registry/app.py`."""

from __future__ import annotations

from flask import current_app

from registry.config import Config
from registry.mirror.mirroring import Mirroring
from registry.mirror.mirrors import Mirrors
from registry.remotes.service import Remotes
from storage.store import Store


def store() -> Store:
    found = current_app.extensions["tonnage.store"]
    assert isinstance(found, Store)
    return found


def config() -> Config:
    found = current_app.extensions["tonnage.config"]
    assert isinstance(found, Config)
    return found


def remotes() -> Remotes:
    found = current_app.extensions["tonnage.remotes"]
    assert isinstance(found, Remotes)
    return found


def mirrors() -> Mirrors:
    found = current_app.extensions["tonnage.mirrors"]
    assert isinstance(found, Mirrors)
    return found


def mirroring() -> Mirroring:
    found = current_app.extensions["tonnage.mirroring"]
    assert isinstance(found, Mirroring)
    return found
