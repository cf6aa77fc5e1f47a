"""Which template makes the prompt of a model. Source: the Ollama API, "Which template is used"."""

from __future__ import annotations

import re

from runtime.templates.chat import CHATML, ChatTemplate
from runtime.templates.errors import TemplateFailed

_ONLY_PROMPT = re.compile(r"\s*\{\{-?\s*\.Prompt\s*-?\}\}\s*")


def chat_template(jinja: ChatTemplate | None, go_template: str | None) -> ChatTemplate:
    """The template of a conversation: the one in the weights, or ChatML. Raises TemplateFailed."""
    if jinja is not None:
        return jinja
    _refuse(go_template)
    return ChatTemplate(CHATML)


def prompt_template(jinja: ChatTemplate | None, go_template: str | None) -> ChatTemplate | None:
    """The template of a single prompt; None when the model takes it as it is. Raises TemplateFailed."""
    if jinja is None:
        _refuse(go_template)
    return jinja


def _refuse(go_template: str | None) -> None:
    """A model whose only template is one that we cannot evaluate would be given a prompt it was not trained on."""
    if go_template is not None and not _ONLY_PROMPT.fullmatch(go_template):
        raise TemplateFailed("template error: Go templates are not evaluated by this server yet")
