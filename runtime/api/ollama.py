"""The inference routes of the Ollama dialect, and their refusals. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

from flask import Blueprint, Response

from auth.access import current_gate
from runtime.api.chat import chat
from runtime.api.durations import local_time
from runtime.api.embed import embed, embeddings
from runtime.api.generate import generate
from runtime.api.replies import one_object, refusal
from runtime.api.serving import supervisor
from runtime.errors import RuntimeFailure
from storage.errors import StorageError
from storage.reference import ModelName

bp = Blueprint("ollama", __name__)


@bp.get("/api/ps")
def ps() -> Response:
    """The loaded models that the caller may see, the one that stays longest first."""
    visible = [model for model in supervisor().ps() if current_gate().may_see(ModelName.parse(model.name).repository)]
    loaded = sorted(visible, key=lambda model: -model.expires_at)
    models = [
        {
            "name": model.name,
            "model": model.name,
            "size": model.size,
            "digest": model.digest,
            "details": model.details,
            "expires_at": local_time(model.expires_at),
            "size_vram": model.size_vram,
            "context_length": model.context_length,
        }
        for model in loaded
    ]
    return one_object({"models": models})


bp.add_url_rule("/api/generate", view_func=generate, methods=["POST"])
bp.add_url_rule("/api/chat", view_func=chat, methods=["POST"])
bp.add_url_rule("/api/embed", view_func=embed, methods=["POST"])
bp.add_url_rule("/api/embeddings", view_func=embeddings, methods=["POST"])
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)
