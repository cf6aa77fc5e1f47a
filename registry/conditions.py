"""Conditional requests. Spec: RFC 9110 "Conditional Requests"."""

from __future__ import annotations

from flask import request

from storage.digest import Digest
from storage.manifests import TagCondition


def tag_condition() -> TagCondition | None:
    """What If-Match and If-None-Match ask of the tag that a push is about to move; None if they ask nothing."""
    if_match, if_none_match = (_listed(request.headers.get(name)) for name in ("If-Match", "If-None-Match"))
    if if_match is None and if_none_match is None:
        return None
    return TagCondition(one_of=if_match, none_of=if_none_match)


def _listed(header: str | None) -> frozenset[str] | None:
    return None if header is None else frozenset(_bare(tag) for tag in header.split(","))


def _bare(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')


def is_current(digest: Digest) -> bool:
    """Whether If-None-Match lists this very content; judged before Range."""
    tags = _listed(request.headers.get("If-None-Match"))
    return tags is not None and not tags.isdisjoint((str(digest), "*"))
