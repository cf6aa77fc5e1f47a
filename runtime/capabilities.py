"""What a model can do, told from its config, its weights and its templates.

Source: the Ollama API, "Capabilities".
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.gguf import Header

# parser of the config blob → (tools, thinking)
_PARSERS = {
    "qwen3": (True, False),
    "qwen3-thinking": (True, True),
    "qwen3.5": (True, True),
    "ornith": (True, True),
    "qwen3-coder": (True, False),
    "qwen3-vl-instruct": (True, False),
    "qwen3-vl-thinking": (True, True),
    "ministral": (True, False),
    "harmony": (True, True),
    "cogito": (True, True),
    "deepseek3": (True, True),
    "olmo3": (True, False),
    "olmo3-think": (False, True),
    "nemotron-3-nano": (True, True),
    "nemotron-3.5-nano": (True, True),
    "functiongemma": (True, False),
    "glm-4.7": (True, True),
    "glm-ocr": (True, False),
    "gemma4": (True, True),
    "gemma4-no-thinking": (True, False),
    "lfm2": (True, False),
    "lfm2-thinking": (False, True),
    "laguna": (True, True),
    "poolside-v1": (True, True),
    "cohere": (True, True),
    "glimmer": (True, True),
}
_TOOL_ANSWERS = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)
_CUTS_AT_CLOSE = ("content.split('</think>')", 'content.split("</think>")')


_POOLING_RANK = 4  # llama.cpp's number for "a classifier gives a score"


def of_weights(header: Header) -> list[str]:
    found = ["completion" if header.pooling_type is None else "embedding"]
    found += ["rerank"] if header.pooling_type == _POOLING_RANK else []
    return found + [kind for kind in ("vision", "audio") if header.number(f"{kind}.block_count") is not None]


def of_jinja(template: str) -> list[str]:
    found = ["tools"] if "tools" in template or "tool_call" in template else []
    has_pair = "<think>" in template and "</think>" in template
    cuts = any(text in template for text in _CUTS_AT_CLOSE)
    hides = "reasoning_content" in template or "<SPECIAL_12>" in template
    return [*found, "thinking"] if has_pair or (cuts and not hides) else found


def has_round_trip(template: str) -> bool:
    """Whether a Jinja template prints calls and what came back from them."""
    has_tools = "tools" in template or "tool_call" in template
    has_calls = "tool_calls" in template or "assistant_tool_call" in template
    return has_tools and has_calls and any(mark in template for mark in _TOOL_ANSWERS)


def of_parser(name: str, family: str) -> list[str]:
    tools, thinking = _PARSERS.get(name, (False, False))
    thinking = thinking or family in {"gptoss", "gpt-oss"}
    return [kind for kind, is_there in (("tools", tools), ("thinking", thinking)) if is_there]


def merged(*lists: Iterable[str]) -> list[str]:
    """In order of first mention, each once."""
    return list(dict.fromkeys(kind for kinds in lists for kind in kinds))
