"""POST /api/create: from a request to a stored model. Source: the Ollama API, "POST /api/create"."""
