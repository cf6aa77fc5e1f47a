"""How each family of models writes reasoning and tool calls, as data. Source: the Ollama API, "Built-in parsers"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from runtime.parsing.brace_calls import brace_reader
from runtime.parsing.json_calls import (
    DEEPSEEK_SEPARATOR,
    KIMI_SEPARATOR,
    read_deepseek,
    read_json,
    read_kimi,
    read_mistral,
)
from runtime.parsing.python_calls import read_python
from runtime.parsing.splitter import Dialect, Opening, Section
from runtime.parsing.xml_calls import read_arg_pairs, read_functions

_THINK = ("<think>", "</think>")
_PLAIN_NAME = re.compile(r"[\w.-]+")
_MAX_NAMED = 128  # sections that begin with a tool's name; more tools than that are found by their tags alone


def _deepseek(words: str) -> str:
    """A special token as DeepSeek spells it."""
    return "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>"


def _bare_functions(names: Sequence[str]) -> tuple[Section, ...]:
    """Qwen3-Coder often forgets the outer tag."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)][:_MAX_NAMED]
    return tuple(Section(f"<function={name}>", "</function>", read_functions, keeps_tags=True) for name in plain)


def _bare_python(names: Sequence[str]) -> tuple[Section, ...]:
    """A list of calls without tags, where the answer begins with it."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)][:_MAX_NAMED]
    return tuple(Section(f"[{name}(", ")]", read_python, keeps_tags=True, only_first=True) for name in plain)


_JSON = Section("<tool_call>", "</tool_call>", read_json)
_FUNCTIONS = Section("<tool_call>", "</tool_call>", read_functions, whole_ends=("</function>", "}"))
_ARG_PAIRS = Section("<tool_call>", "</tool_call>", read_arg_pairs, whole_ends=("</arg_value>",))

_QWEN3 = Dialect(_THINK, (_JSON,), is_strict=True, calls_end_thinking=True)
_CODER = Dialect(sections=(_FUNCTIONS,), named=_bare_functions, dropped=("</tool_call>",))
_QWEN35 = replace(_CODER, thinking=_THINK, calls_end_thinking=True, opening=Opening.THINKING, thinks_by_default=True)
_GLM = Dialect(
    _THINK,
    (_ARG_PAIRS,),
    tokens=("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    opening=Opening.THINKING,
    thinks_by_default=True,
    calls_end_thinking=True,
)
_GEMMA4 = Dialect(
    ("<|channel>thought", "<channel|>"),
    (Section("<|tool_call>", "<tool_call|>", brace_reader('<|"|>')),),
    tokens=("<|channel>", '<|"|>'),
    thinks_anywhere=True,
)
_DEEPSEEK3 = Dialect(
    _THINK,
    (Section(_deepseek("tool call begin"), _deepseek("tool call end"), read_deepseek),),
    begins_calls=(_deepseek("tool calls begin"),),
    dropped=(_deepseek("tool calls end"),),
    tokens=(DEEPSEEK_SEPARATOR,),
    opening=Opening.THINKING,
)
_LFM2 = Dialect(
    _THINK,
    (Section("<|tool_call_start|>", "<|tool_call_end|>", read_python),),
    named=_bare_python,
)
_MINISTRAL = Dialect(
    ("[THINK]", "[/THINK]"),
    (Section("[TOOL_CALLS]", "", read_mistral),),
    tokens=("[ARGS]", "[CALL_ID]"),
    thinks_anywhere=True,
    is_closed=True,
)

PARSERS: dict[str, Dialect] = {  # by the names that a model's config gives them
    "qwen3": _QWEN3,
    "qwen3-thinking": replace(_QWEN3, opening=Opening.THINKING, thinks_by_default=True),
    "qwen3-vl-instruct": _QWEN3,
    "qwen3-vl-thinking": replace(_QWEN3, opening=Opening.ALWAYS),
    "qwen3-coder": _CODER,
    "qwen3.5": _QWEN35,
    "ornith": replace(_QWEN35, thinks_by_default=False),
    "nemotron-3-nano": _QWEN35,
    "nemotron-3.5-nano": _QWEN35,
    "gemma4": _GEMMA4,
    "gemma4-no-thinking": _GEMMA4,
    "functiongemma": Dialect(
        sections=(Section("<start_function_call>", "<end_function_call>", brace_reader("<escape>")),),
        tokens=("<escape>",),
    ),
    "ministral": _MINISTRAL,
    "deepseek3": _DEEPSEEK3,
    "cogito": _DEEPSEEK3,
    "glm-4.7": _GLM,
    "glm-ocr": replace(_GLM, opening=Opening.CONTENT),
    "laguna": replace(_GLM, thinks_by_default=False),
    "poolside-v1": replace(_GLM, thinks_by_default=False),
    "lfm2": _LFM2,
    "lfm2-thinking": _LFM2,
    "cohere": Dialect(
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        (Section("<|START_ACTION|>", "<|END_ACTION|>", read_json),),
        dropped=("<|START_TEXT|>", "<|END_TEXT|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        thinks_by_default=True,
        thinks_anywhere=True,
    ),
    "olmo3": Dialect(
        sections=(Section("<function_calls>", "</function_calls>", read_python),),
    ),
    "olmo3-think": Dialect(_THINK, opening=Opening.ALWAYS),
}

PROBED: dict[str, Dialect] = {  # formats that only a template shows; those above are shown by templates too
    "kimi": Dialect(
        _THINK,
        (Section("<|tool_call_begin|>", "<|tool_call_end|>", read_kimi),),
        begins_calls=("<|tool_calls_section_begin|>",),
        dropped=("<|tool_calls_section_end|>",),
        tokens=(KIMI_SEPARATOR,),
    ),
    "python": Dialect(_THINK, named=_bare_python),
}


def shown_tokens(dialect: Dialect) -> tuple[str, ...]:
    """The special tokens that have to be text before the dialect can be read."""
    sections = (tag for section in dialect.sections for tag in (section.open, section.close))
    tags = (*(dialect.thinking or ()), *sections, *dialect.begins_calls, *dialect.dropped)
    # a tag may be a token and a word after it, as Gemma's is
    whole = (tag for tag in tags if tag and not any(tag.startswith(token) for token in dialect.tokens))
    return tuple(dict.fromkeys((*whole, *dialect.tokens)))
