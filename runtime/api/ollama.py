"""The inference routes of the Ollama dialect, and their refusals. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from auth.access import current_gate
from runtime.api.chat import chat
from runtime.api.durations import local_time
from runtime.api.embed import embed, embeddings
from runtime.api.generate import generate
from runtime.api.replies import one_object, refusal
from runtime.api.rerank import rerank
from runtime.api.serving import store, supervisor
from runtime.api.tokens import detokenize, tokenize
from runtime.errors import RuntimeFailure
from runtime.messages import Loaded
from storage.errors import StorageError
from storage.local_copies.copies import UnderWay
from storage.reference import ModelName

bp = Blueprint("ollama", __name__)


@bp.get("/api/ps")
def ps() -> Response:
    """The loaded models that the caller may see, the one that stays longest first.

    While weights are on their way from a bucket, `fetching` tells how far they are, in the words of a pull.
    """
    loaded = sorted(supervisor().ps(), key=lambda model: -model.expires_at)
    body: dict[str, Any] = {"models": [shown for shown in map(_shown, loaded) if shown is not None]}
    fetching = [shown for shown in map(_on_its_way, store().files.under_way()) if shown is not None]
    return one_object(body | ({"fetching": fetching} if fetching else {}))


def _shown(model: Loaded) -> dict[str, Any] | None:
    """A runner under the first of its names that the caller may see; one runner serves all that share its weights."""
    named = zip(
        model.names or (model.name,),
        model.digests or (model.digest,),
        model.named_details or (model.details,),
        strict=False,
    )
    visible = (each for each in named if current_gate().may_see(ModelName.parse(each[0]).repository))
    name, digest, details = next(visible, (None, None, None))
    if name is None:
        return None
    return {
        "name": name,
        "model": name,
        "size": model.size,
        "digest": digest,
        "details": details,
        "expires_at": local_time(model.expires_at),
        "size_vram": model.size_vram,
        "context_length": model.context_length,
    }


def _on_its_way(copy: UnderWay) -> dict[str, Any] | None:
    """A copy in the making, with a repository that holds the blob and that the caller may see."""
    seen = next(filter(current_gate().may_see, store().blobs.holders(copy.digest)), None)
    if seen is None:
        return None
    return {"repository": str(seen), "digest": str(copy.digest), "total": copy.total, "completed": copy.completed}


bp.add_url_rule("/api/generate", view_func=generate, methods=["POST"])
bp.add_url_rule("/api/chat", view_func=chat, methods=["POST"])
bp.add_url_rule("/api/embed", view_func=embed, methods=["POST"])
bp.add_url_rule("/api/embeddings", view_func=embeddings, methods=["POST"])
bp.add_url_rule("/api/rerank", view_func=rerank, methods=["POST"])
bp.add_url_rule("/api/tokenize", view_func=tokenize, methods=["POST"])
bp.add_url_rule("/api/detokenize", view_func=detokenize, methods=["POST"])
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)
