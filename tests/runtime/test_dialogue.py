"""How a request and its model speak with each other, without a runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.dialogue import Dialogue, Prompt
from runtime.model import load_model
from runtime.parsing.calls import Parsed
from storage.reference import ModelName
from storage.store import Store
from tests.stored_models import open_store, push_model
from tests.tiny_gguf import write_tiny_gguf

HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|channel|>final<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{{ reasoning_effort }}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}<|start|>assistant"
)
SAID = "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>Hello"


@pytest.fixture
def harmony(tmp_path: Path) -> Any:
    store: Store = open_store(tmp_path)
    weights = write_tiny_gguf(tmp_path / "t.gguf", chat_template=HARMONY)
    push_model(store, "oss", weights, config={"model_family": "gpt-oss"})
    return load_model(store, ModelName.parse("oss"))


@pytest.mark.parametrize("think", [None, False, True, "max"])
def test_channels_never_leak_whatever_was_asked_of_reasoning(harmony: Any, think: bool | str | None) -> None:
    reading = Dialogue(harmony, [], think).reading(Prompt("<|start|>assistant"))

    assert reading.parser.feed(SAID) == Parsed("why", "Hello")
    assert reading.parser.finish() == Parsed()
    assert "<|channel|>" in reading.special


def test_a_harmony_model_is_told_its_own_words(harmony: Any) -> None:
    tool = {"type": "function", "function": {"name": "get weather", "parameters": {}}}
    dialogue = Dialogue(harmony, [tool], "max")
    prompt = dialogue.render([{"role": "user", "content": "q"}])

    assert "highget_weather" in prompt
    reading = dialogue.reading(Prompt(prompt))
    reading.parser.feed("<|channel|>commentary to=functions.get_weather<|message|>{}")
    (call,) = reading.parser.finish().calls
    assert call.name == "get weather"


def test_a_forced_call_is_told_from_words_before_it(harmony: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    reading = Dialogue(harmony, [tool], None, [tool]).reading(Prompt("<|start|>assistant"))
    reading.parser.feed("<|channel|>commentary<|message|>I will.<|end|><|start|>assistant<|channel|>final<|message|>")
    reading.parser.feed('{"name":"f","arguments":{"a":1}}')

    end = reading.parser.finish()
    assert end.content == "I will."
    assert [(call.name, call.arguments) for call in end.calls] == [("f", {"a": 1})]


def test_a_format_leaves_room_for_reasoning_and_calls(harmony: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    held = Dialogue(harmony, [tool], True).constraint({"type": "object"})

    assert held is not None
    assert held.unless
    assert Dialogue(harmony, [], True).reading(Prompt("<|start|>assistant")).thought is not None
    primed = Prompt("<|start|>assistant<|channel|>final<|message|>")
    assert Dialogue(harmony, [], True).reading(primed).thought is None
