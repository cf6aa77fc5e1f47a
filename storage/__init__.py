"""Bytes and rows: knows nothing of HTTP, of who asks, or of models that run."""
