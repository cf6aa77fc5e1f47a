"""The object that /v1/responses answers with, and its items. Source: the Ollama API, "POST /v1/responses"."""

from __future__ import annotations

import time
from typing import Any

from runtime.api.answer import Whole
from runtime.api.openai.replies import arguments_text, new_id
from runtime.api.requests import Body
from runtime.messages import Done
from runtime.parsing.calls import ToolCall

JSON = dict[str, Any]


class ResponseBody:
    """One answer, which tells what it was asked along with what it says. Raises Refused for what cannot be repeated."""

    def __init__(self, model: str, asked: Body) -> None:
        self._head = {"id": new_id("resp_"), "object": "response", "created_at": int(time.time())}
        self._told = {"model": model, **_told(asked)}

    def begun(self) -> JSON:
        """The response before it says anything."""
        return {**self._head, "completed_at": None, "status": "in_progress", **self._told, "output": [], "usage": None}

    def completed(self, output: list[JSON], done: Done) -> JSON:
        """The response as it is in the end; that its tokens had run out does not show, as in the reference."""
        usage = {
            "input_tokens": done.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": done.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": done.prompt_tokens + done.tokens,
        }
        ended = {"completed_at": int(time.time()), "status": "completed"}
        return {**self._head, **ended, **self._told, "output": output, "usage": usage}


def _told(asked: Body) -> JSON:
    """What was asked, and what the API has in the place of what was not, or cannot be asked here."""
    return {
        "incomplete_details": None,
        "previous_response_id": None,
        "instructions": asked.raw("instructions"),
        "error": None,
        "tools": asked.objects("tools"),
        "tool_choice": asked.raw("tool_choice") or "auto",
        "truncation": asked.text("truncation") or "disabled",
        "parallel_tool_calls": asked.flag("parallel_tool_calls", True),
        "text": asked.mapping("text") or {"format": {"type": "text"}},
        "top_p": asked.raw("top_p"),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1.0 if asked.raw("temperature") is None else asked.raw("temperature"),
        "reasoning": asked.mapping("reasoning"),
        "max_output_tokens": asked.raw("max_output_tokens"),
        "max_tool_calls": None,
        "store": False,
        "background": asked.flag("background", False),
        "service_tier": "default",
        "metadata": asked.mapping("metadata") or {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def output_of(answer: Whole) -> list[JSON]:
    """Reasoning, then calls or one message."""
    thought = [reasoning(answer.thinking)] if answer.thinking else []
    if answer.calls:
        return thought + [function_call(call) for call in answer.calls]
    return [*thought, message(answer.content)]


def reasoning(text: str) -> JSON:
    """encrypted_content: the text again, for the client to send back with its next turn."""
    summary = [{"type": "summary_text", "text": text}]
    return {"id": new_id("rs_"), "type": "reasoning", "summary": summary, "encrypted_content": text}


def message(text: str) -> JSON:
    return {
        "id": new_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [output_text(text)],
    }


def output_text(text: str) -> JSON:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def function_call(call: ToolCall) -> JSON:
    return {
        "id": new_id("fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments_text(call),
    }
