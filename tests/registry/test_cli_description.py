"""Models and their making, as a person reads of them on a terminal."""

from __future__ import annotations

import pytest

from registry.cli.description import description
from registry.cli.steps import follow
from registry.remotes.errors import RemoteError
from registry.remotes.progress import Bar

SHOWN = {
    "details": {"family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.embedding_length": 4096,
        "tokenizer.ggml.tokens": ["a", "b", "c", "d"],
        "tokenizer.ggml.merges": None,
    },
    "capabilities": ["completion", "tools"],
    "projector_info": {"general.architecture": "clip", "clip.vision.embedding_length": 1024},
    "parameters": 'stop                           "<|start of turn|>"\ntemperature                    0.7',
    "tensors": [{"name": "output.weight", "type": "Q6_K", "shape": [4096, 128256]}],
    "system": "One.\n\nTwo.\nThree.",
    "license": "MIT\nCopyright",
    "requires": "0.14.0",
}


def test_a_model_in_sections() -> None:
    assert description(SHOWN, is_whole=False) == (
        """  Model
    architecture        llama
    parameters          8.0B
    context length      131072
    embedding length    4096
    quantization        Q4_K_M
    requires            0.14.0

  Capabilities
    completion
    tools

  Projector
    architecture        clip
    embedding length    1024

  Parameters
    stop           "<|start of turn|>"
    temperature    0.7

  System
    One.
    Two.
    ...

  License
    MIT
    Copyright"""
    )


def test_a_whole_model() -> None:
    lines = [line.split(None, 1) for line in description(SHOWN, is_whole=True).splitlines()]

    assert ["tokenizer.ggml.tokens", '["a", "b", "c", …] (4)'] in lines
    assert ["tokenizer.ggml.merges", "null"] in lines
    assert ["output.weight", "Q6_K    [4096, 128256]"] in lines
    assert ["Three."] in lines


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"details": 5, "model_info": [], "capabilities": {}, "tensors": ["x"], "parameters": 1, "system": None},
        {"details": {"family": ["x"]}, "model_info": {"general.architecture": {"a": 1}}, "tensors": [{}]},
        {"system": "\x1b[2J", "license": "\x07\n\n", "capabilities": [None, {"x": 1}]},
    ],
)
def test_hostile_answers_are_shown_as_well_as_can_be(shown: dict[str, object]) -> None:
    assert "\x1b" not in description(shown, is_whole=True)


class Heard:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[HeardBar] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def bar(self, label: str, total: int) -> Bar:
        self.bars.append(HeardBar(label, total))
        return self.bars[-1]


class HeardBar:
    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.positions: list[int] = []
        self.is_open = True

    def move(self, position: int) -> None:
        self.positions.append(position)

    def close(self) -> None:
        self.is_open = False


def test_steps_with_a_digest_are_bars_and_others_lines() -> None:
    heard, zeros = Heard(), "0" * 19

    follow(
        [
            {"status": "parsing GGUF"},
            {"status": "parsing GGUF"},
            {"status": "quantizing F16 model to Q4_K_M", "digest": zeros, "total": 10},
            {"status": "quantizing F16 model to Q4_K_M", "digest": zeros, "total": 10, "completed": 10},
            {"status": "validating GGUF model", "digest": zeros, "total": 5, "completed": 99},
            {"status": "writing\x1b[2J manifest"},
            {"status": "success"},
            {"status": None, "digest": 5, "total": "x"},
        ],
        heard,
    )

    assert heard.lines == ["parsing GGUF", "writing[2J manifest", "success"]
    assert [(bar.label, bar.total, bar.positions, bar.is_open) for bar in heard.bars] == [
        ("quantizing F16 model to Q4_K_M", 10, [0, 10], False),
        ("validating GGUF model", 5, [5], False),
    ]


def test_bars_are_closed_when_the_steps_fail() -> None:
    heard = Heard()

    def steps():
        yield {"status": "pulling 0123", "digest": "sha256:0123", "total": 10}
        raise RemoteError("cut")

    with pytest.raises(RemoteError, match="cut"):
        follow(steps(), heard)

    assert [bar.is_open for bar in heard.bars] == [False]
