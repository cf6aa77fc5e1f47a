"""From messages to the prompt text, through the Jinja chat template that a model's weights carry.

Source: the Ollama API, "Jinja path". Templates disagree about what they are given; where one fails, the forms that
others expect are tried before the failure is reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.templates.errors import TemplateFailed
from runtime.templates.renderer import render

JSON = dict[str, Any]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


_PLACE = "\ue000prefill\ue001"  # stands for a text that the template's own might contain


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Jinja chat templates and the two tokens that templates ask for by name."""

    source: str
    bos_token: str = ""
    eos_token: str = ""
    for_tools: str | None = None  # a second template, for conversations with tools

    def render(self, messages: Sequence[JSON], tools: Sequence[JSON], think: bool | str | None) -> str:
        """The prompt that the model continues. Raises TemplateFailed.

        messages: in the wire form of /api/chat. think: None leaves the choice to the template; a string is a level.
        """
        variables = self._variables(tools, think)
        source = self.for_tools if tools and self.for_tools else self.source
        prefill = _prefill(messages)
        variables["add_generation_prompt"] = not prefill
        forms = [_wire_form(message) for message in messages]
        if not prefill:
            return _first_success(source, forms, variables)
        forms[-1]["content"] = _PLACE
        text = _first_success(source, forms, variables)
        end = text.rfind(_PLACE)
        if end >= 0:
            return text[:end] + prefill
        variables["add_generation_prompt"] = True  # the template rewrites what it prints: begin the turn ourselves
        return _first_success(source, [_wire_form(message) for message in messages[:-1]], variables) + prefill

    def render_whole(self, messages: Sequence[JSON], tools: Sequence[JSON], *, add_generation_prompt: bool) -> str:
        """All of `messages`, the last one finished like the others. Raises TemplateFailed."""
        variables = self._variables(tools, None) | {"add_generation_prompt": add_generation_prompt}
        source = self.for_tools if tools and self.for_tools else self.source
        return _first_success(source, [_wire_form(message) for message in messages], variables)

    def _variables(self, tools: Sequence[JSON], think: bool | str | None) -> JSON:
        variables: JSON = {"tools": list(tools) or None, "tool_choice": "auto" if tools else None}
        variables |= {"bos_token": self.bos_token, "eos_token": self.eos_token}
        if think is not None:
            variables["enable_thinking"] = bool(think)
        if isinstance(think, str):
            variables["reasoning_effort"] = think
        return variables


def _first_success(source: str, messages: list[JSON], variables: JSON) -> str:
    """The text of the first form of `messages` that the template accepts; the first failure if it accepts none."""
    failure: TemplateFailed | None = None
    doubtful: str | None = None
    for form in _forms(messages):
        try:
            text = render(source, variables | {"messages": form})
        except TemplateFailed as error:
            failure = failure or error
            if error.detail.get("exhausted"):
                break  # another form would cost as much again
            continue
        if not _prints_python(form, text):
            return text
        doubtful = text
    if doubtful is None:
        raise failure or TemplateFailed("template error: nothing to render")
    return doubtful


def _forms(messages: list[JSON]) -> Iterator[list[JSON]]:
    """`messages` as most templates want them, then as others do."""
    yield messages
    if any("tool_calls" in message for message in messages):
        yield [_with_text_arguments(message) for message in messages]
    yield [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]
    folded = _without_system(messages)
    others: list[list[JSON]] = [messages]
    for form in (folded, _joined(messages), _joined(folded)):
        if form not in others:
            others.append(form)
            yield form


def _prints_python(form: list[JSON], text: str) -> bool:
    """Whether the template printed arguments as Python writes a dict: it expects them as JSON text."""
    arguments = [call["function"]["arguments"] for message in form for call in message.get("tool_calls", ())]
    return any(isinstance(given, dict) and given and str(given) in text for given in arguments) and not any(
        isinstance(given, dict) and given and json.dumps(given, ensure_ascii=False) in text for given in arguments
    )


def _wire_form(message: JSON) -> JSON:
    """A message of /api/chat under the names that chat templates know. What it lacks stays undefined."""
    form: JSON = {"role": message["role"], "content": message.get("content", "")}
    if message.get("thinking"):
        form |= {"reasoning_content": message["thinking"], "thinking": message["thinking"]}
    if message.get("tool_calls"):
        form["tool_calls"] = [call | {"type": "function"} for call in message["tool_calls"]]
    for key, known_as in (("tool_name", "name"), ("tool_call_id", "tool_call_id")):
        if message.get(key):
            form[known_as] = message[key]
    return form


def _with_text_arguments(message: JSON) -> JSON:
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append(call | {"function": call["function"] | {"arguments": arguments}})
    return message | {"tool_calls": calls}


def _without_system(messages: list[JSON]) -> list[JSON]:
    """For templates that know no system role: its text goes before the first user message."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    for index, message in enumerate(rest):
        if system and message["role"] == "user":
            rest[index] = message | {"content": f"{system}\n\n{message['content']}"}
            return rest
    return messages


def _joined(messages: list[JSON]) -> list[JSON]:
    """For templates that want roles to take turns: neighbours of one role are one message, save for tools."""
    joined: list[JSON] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if last.get("role") != message["role"] or message["role"] == "tool" or "tool_calls" in last | message:
            joined.append(message)
        else:
            texts = (last["content"], message["content"])
            joined[-1] = last | message | {"content": "\n\n".join(text for text in texts if text)}
    return joined


def _prefill(messages: Sequence[JSON]) -> str:
    """The beginning of the answer, when the client gave one."""
    last = messages[-1] if messages else {}
    return str(last.get("content", "")) if last.get("role") == "assistant" and not last.get("tool_calls") else ""
