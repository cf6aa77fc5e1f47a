"""What the template renderer refuses."""

from __future__ import annotations

from runtime.errors import RuntimeFailure


class TemplateFailed(RuntimeFailure):
    """The template does not parse, refuses the messages, or asks for more time or memory than a template may have.

    Of the last kind `detail` says `exhausted`: another try would cost as much again.
    """


class RendererBusy(RuntimeFailure):
    """Every renderer is at work for somebody else; that says nothing of the template."""


class TemplateInvalid(TemplateFailed):
    """The text is no template: it does not parse, whatever it would be given. `detail` may name the `line`."""
