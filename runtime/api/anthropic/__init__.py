"""The Anthropic dialect, translated into /api/chat and back. Source: the Ollama API, "POST /v1/messages"."""
