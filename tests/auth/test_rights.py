from __future__ import annotations

import pytest

from auth.policy import Right
from auth.rights import RIGHTS, right_of


@pytest.mark.parametrize(
    ("method", "route", "right"),
    [
        ("GET", "/v2/", Right.PING),
        ("HEAD", "blob", Right.PULL),
        ("DELETE", "blob", Right.DELETE),
        ("PUT", "manifest", Right.PUSH),
        ("DELETE", "upload", Right.PUSH),
        ("POST", "/api/generate", Right.INFER),
        ("POST", "/api/blobs/<digest>", Right.MANAGE),
        ("GET", "/v1/models/<path:model>", Right.READ_MODELS),
        ("GET", "/static/<path:filename>", None),
        ("GET", "/api/generate", None),
        ("POST", "/api/unknown", None),
        ("POST", "blob", None),
    ],
)
def test_routes_have_the_right_of_the_table_or_none(method, route, right):
    assert right_of(method, route) is right


def test_nothing_that_changes_bytes_or_models_is_public():
    harmless = {"token", "/v2/token"}
    public = {
        route for (method, route), right in RIGHTS.items() if right is Right.PUBLIC and method not in ("GET", "HEAD")
    }

    assert public <= harmless


def test_every_right_of_the_registry_is_used():
    assert set(RIGHTS.values()) >= set(Right) - {Right.LOGIN, Right.ADMIN}
