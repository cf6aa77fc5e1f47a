"""What the ollama client asks a server before anything else. Source: the Ollama API, "/" and "/api/version"."""

from __future__ import annotations

from flask import Blueprint, Response

from runtime.api.replies import one_object

# Tools switch features on by this number: it is the version of the dialect that we speak, not ours. A plain x.y.z:
# the client compares it with its own.
DIALECT_VERSION = "0.33.0"

bp = Blueprint("about", __name__)


@bp.get("/")
def root() -> Response:
    """The client's heartbeat."""
    return Response("Ollama is running", content_type="text/plain; charset=utf-8")


@bp.get("/api/version")
def version() -> Response:
    return one_object({"version": DIALECT_VERSION})


@bp.get("/api/status")
def status() -> Response:
    """There is no cloud behind this server."""
    return one_object({"cloud": {"disabled": True, "source": "env"}})
