"""What the parsers of answers refuse."""

from __future__ import annotations

from runtime.errors import RuntimeFailure


class CallInvalid(RuntimeFailure):
    """The model wrote a tool call that its own format forbids."""
