"""Conditional requests. Spec: RFC 9110 "Conditional Requests"."""

from __future__ import annotations

from flask import request

from storage.digest import Digest


def is_current(digest: Digest) -> bool:
    """Whether If-None-Match lists this very content; judged before Range."""
    listed = request.headers.get("If-None-Match")
    if listed is None:
        return False
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in listed.split(",")}
    return str(digest) in tags or "*" in tags
