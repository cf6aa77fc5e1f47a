"""The inference routes of the OpenAI dialect, and their refusals. Source: the Ollama API, "Endpoints"."""

from __future__ import annotations

from flask import Blueprint

from runtime.api.openai.chat import chat_completions
from runtime.api.openai.completions import completions
from runtime.api.openai.embeddings import embeddings
from runtime.api.openai.errors import refusal
from runtime.api.openai.responses import responses
from runtime.api.openai.transcriptions import transcriptions
from runtime.api.rerank import rerank_v1
from runtime.errors import RuntimeFailure
from storage.errors import StorageError

bp = Blueprint("openai", __name__)
bp.add_url_rule("/v1/chat/completions", view_func=chat_completions, methods=["POST"])
bp.add_url_rule("/v1/completions", view_func=completions, methods=["POST"])
bp.add_url_rule("/v1/embeddings", view_func=embeddings, methods=["POST"])
bp.add_url_rule("/v1/responses", view_func=responses, methods=["POST"])
bp.add_url_rule("/v1/rerank", view_func=rerank_v1, methods=["POST"])
bp.add_url_rule("/v1/audio/transcriptions", view_func=transcriptions, methods=["POST"])
bp.register_error_handler(RuntimeFailure, refusal)
bp.register_error_handler(StorageError, refusal)
