"""The door of /api/create: who may, what is wanted, and how the answer is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response, request

from auth.access import Right, current_gate
from registry.mirrored import check_not_mirrored
from registry.models.create.build import Build
from registry.models.create.legacy import read_recipe
from registry.models.create.recipe import Recipe
from registry.models.names import as_stored
from registry.models.progress import told
from registry.models.pull import pull_model
from registry.models.staging import Staging
from runtime.api.disconnect import watcher
from runtime.api.errors import Refused
from runtime.api.replies import refusal
from runtime.api.requests import read_body
from runtime.errors import RuntimeFailure
from storage.errors import StorageError
from storage.reference import ModelName

JSON = dict[str, Any]
_MAX_BODY: Final = 16 * 2**20

bp = Blueprint("models_create", __name__)
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)


@bp.post("/api/create")
def create() -> Response:
    """A model of what was uploaded or is stored already, under whatever name; one that was there is replaced."""
    body = read_body(_MAX_BODY)
    streams = body.flag("stream", True)
    recipe = read_recipe(body)
    current_gate().check(Right.MANAGE, (recipe.target.repository, "push"))
    check_not_mirrored(recipe.target.repository)
    if recipe.base is not None:
        current_gate().check(Right.MANAGE, (recipe.base.repository, "pull"))
    recipe, staging = replace(recipe, target=as_stored(recipe.target)), Staging.of_caller()
    _check_uploaded(recipe, staging)
    is_gone = watcher(request.environ)
    build = Build(recipe, staging, pull=partial(_pull, is_gone), is_gone=is_gone)
    return told(build.lines(), streams=streams)


def _check_uploaded(recipe: Recipe, staging: Staging) -> None:
    """Raises Refused."""
    for digest in dict.fromkeys(recipe.digests):
        if staging.find(digest) is None:
            raise Refused(400, f'blob "{digest}" not found')


def _pull(is_gone: Callable[[], bool], name: ModelName) -> Iterator[JSON]:
    """The steps of bringing a missing model here, but for the last word: that is the create's own. Raises Refused."""
    if not current_gate().may_manage(name.repository, "push"):
        raise Refused(404, f"model '{name.display}' not found")
    lines = pull_model(name.full, insecure=False, is_gone=is_gone)
    with closing(lines):
        yield from (line for line in lines if line != {"status": "success"})
