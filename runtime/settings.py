"""What an operator may set about answering requests; `registry/config.py` fills it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """max_body_bytes: of the JSON of one request.

    go_templates: whether Go templates make prompts; None leaves that to what each model's templates can do.
    """

    max_body_bytes: int = 64 * 1024**2
    go_templates: bool | None = None
