"""Answers held to a format, by a model of random weights: it has no sense that could hide a hole in the mask."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from demo import smollm2
from runtime.errors import InputInvalid
from runtime.runner.engine import Engine
from tests.answers import Recorder, ask, check, run, start
from tests.json_schemas import TREE, some

SHORT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"],
         "additionalProperties": False}  # fmt: skip
WORD = {"enum": ["red", "green", "blue"]}
HOSTILE: dict[str, dict[str, Any]] = {
    "long arrays of long arrays": {
        "type": "array", "minItems": 10**9,
        "items": {"type": "array", "maxItems": 10**9, "items": {"type": "string", "minLength": 10**9}},
    },
    "optional properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1_900)}},
    "alternatives": {"anyOf": [{"type": "array", "items": {"const": i}, "minItems": 2} for i in range(900)]},
    "intersections": {
        "allOf": [{"anyOf": [{"properties": {f"{c}{i}": {"const": 1}}} for c in "abc"]} for i in range(16)]
    },
    "repeats of repeats": {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    "optional repeats": {"type": "string", "pattern": "^" + "a?" * 250 + "$", "minLength": 1},
    "states": {"type": "string", "pattern": "^(a|b)*a(a|b){60}$", "minLength": 3},
    "joined patterns": {"allOf": [{"type": "string", "pattern": f"(a.{{20}}|b.{{1{i}}}c)*x"} for i in range(6)]},
    "remainders": {"type": "integer", "multipleOf": 9973, "minimum": -99_999_999, "maximum": 12_345_678_901},
    "formats": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string", "format": "uri", "minLength": 50} for i in range(100)},
    },
    "recursive intersections": {
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "$defs": {name: {"type": "array", "items": {"$ref": f"#/$defs/{name}"}} for name in "ab"},
    },
    "nothing fits": {"$ref": "#"},
}  # fmt: skip


def test_every_answer_of_random_weights_that_ends_is_valid(engine: Engine) -> None:
    schemas = some(100)

    answers = run(engine, *[ask("hello", schema, tokens=120, seed=seed) for seed, schema in enumerate(schemas)])

    ended = [check(schema, answer) for schema, answer in zip(schemas, answers, strict=True)]
    assert len(ended) == 100
    assert sum(ended) > len(ended) / 2


def test_every_answer_of_a_real_model_that_ends_is_valid(load: Callable[..., Engine]) -> None:
    """A few; benchmarks/grammar.py asks for as many as are wanted."""
    schemas = some(8)
    engine = load(smollm2.fetch(), num_thread=0)
    prompt = "<|im_start|>user\nDescribe a ship in JSON.<|im_end|>\n<|im_start|>assistant\n"

    answers = run(engine, *[ask(prompt, schema, tokens=64, seed=seed) for seed, schema in enumerate(schemas)])

    ended = [check(schema, answer) for schema, answer in zip(schemas, answers, strict=True)]
    assert any(ended)


def test_json_is_an_object(engine: Engine) -> None:
    answers = run(engine, *[ask("x", "json", seed=seed, tokens=400) for seed in range(8)])

    ended = [answer for answer in answers if check({"type": "object"}, answer)]
    assert ended
    assert all(answer.text.startswith("{") for answer in answers)


def test_recursion_is_followed(engine: Engine) -> None:
    answers = run(engine, *[ask("x", TREE, seed=seed) for seed in range(8)])

    assert any(check(TREE, answer) and json.loads(answer.text).get("left") for answer in answers)


def test_a_whole_answer_ends_without_an_end_token(engine: Engine) -> None:
    (answer,) = run(engine, ask("x", SHORT, temperature=0.0))

    assert answer.reason == "stop"
    assert answer.text.endswith("}")


def test_an_answer_that_is_cut_says_so(engine: Engine) -> None:
    (answer,) = run(engine, ask("x", {"type": "string", "minLength": 50}, tokens=5))

    assert answer.reason == "length"
    assert answer.events[-1]["tokens"] == 5


def test_a_model_that_repeats_itself_is_cut_and_does_not_claim_to_be_done(engine: Engine) -> None:
    (answer,) = run(engine, ask("x", {"type": "string", "pattern": "^a{300}$"}, tokens=400, temperature=0.0))

    assert answer.reason == "length"
    assert "aaa" in answer.text


def test_a_stop_string_ends_an_answer_as_ever(engine: Engine) -> None:
    (answer,) = run(engine, ask("x", {"const": "one two"}, stop=(" two",)))

    assert (answer.text, answer.reason) == ('"one', "stop")


def test_who_is_held_to_a_format_does_not_change_the_others(load: Callable[..., Engine]) -> None:
    free = [ask(prompt, seed=3, tokens=40) for prompt in ("hello world", "a", "in the world")]
    held = [ask("hello", schema, seed=5) for schema in (SHORT, TREE, WORD, "json")]
    engine = load()
    apart = [run(engine, request)[0].text for request in (*free, *held)]

    together = run(load(), *free, *held)

    assert [answer.text for answer in together] == apart


def test_a_seed_gives_the_same_answer_again_also_from_the_cache(engine: Engine) -> None:
    first, second = (run(engine, ask("hello " * 50, TREE, seed=11))[0] for _ in range(2))
    (other,) = run(engine, ask("hello " * 50, TREE, seed=12))

    assert first.text == second.text
    assert first.text != other.text


def test_samplers_see_allowed_tokens_only(engine: Engine) -> None:
    answers = [run(engine, ask("x", WORD, seed=seed, top_k=1))[0].text for seed in range(4)]

    assert len(set(answers)) == 1
    assert json.loads(answers[0]) in WORD["enum"]


def test_penalties_count_what_was_said(engine: Engine) -> None:
    schema = {"type": "string", "pattern": "^[ab]{40}$"}
    plain, penalised = run(
        engine,
        ask("x", schema, temperature=0.0, tokens=60),
        ask("x", schema, temperature=0.0, tokens=60, frequency_penalty=2.0),
    )

    assert abs(penalised.text.count("a") - 20) < abs(plain.text.count("a") - 20)


def test_log_probabilities_are_the_models_own(engine: Engine) -> None:
    (free,) = run(engine, ask("hello", tokens=1, top_logprobs=5))
    (held,) = run(engine, ask("hello", {"const": "x"}, top_logprobs=5))

    assert held.logprobs[0]["top_logprobs"] == free.logprobs[0]["top_logprobs"]
    assert "".join(entry["token"] for entry in held.logprobs) == '"x"'
    assert held.logprobs[0]["logprob"] < 0


def test_reasoning_that_the_prompt_opens_is_free_until_its_end(engine: Engine) -> None:
    """Random weights never print a tag: one of three letters comes soon enough."""
    answers = run(
        engine, *[ask("x", SHORT, thought=("<t>", "e", True), seed=seed, tokens=300, top_k=0) for seed in range(8)]
    )

    ended = [answer.text for answer in answers if answer.reason == "stop"]
    assert len(ended) > 4
    for text in ended:
        content = text.partition("e")[2]
        assert set(json.loads(content)) == {"n"}
    assert any(text.partition("e")[0] for text in ended)


def test_reasoning_may_be_opened_or_left_out(engine: Engine) -> None:
    answers = run(
        engine, *[ask("x", WORD, thought=("!", "e", False), seed=seed, tokens=300, top_k=0) for seed in range(30)]
    )

    texts = [answer.text.lstrip() for answer in answers if answer.reason == "stop"]
    reasoned = [text for text in texts if text.startswith("!")]
    assert reasoned
    assert len(reasoned) < len(texts)
    for text in texts:
        content = text.partition("e")[2] if text.startswith("!") else text
        assert json.loads(content) in WORD["enum"]


def test_a_closing_tag_may_have_a_gap(engine: Engine) -> None:
    answers = run(
        engine, *[ask("x", SHORT, thought=("", "a\0e", True), seed=seed, tokens=300, top_k=0) for seed in range(8)]
    )

    ended = [answer.text for answer in answers if answer.reason == "stop"]
    assert ended
    assert all(text.endswith("}") and set(json.loads(text[text.rindex("{") :])) == {"n"} for text in ended)


def test_another_kind_of_answer_is_free(engine: Engine) -> None:
    answers = run(engine, *[ask("x", WORD, unless=("!",), seed=seed, tokens=40, top_k=0) for seed in range(30)])

    free = [answer.text for answer in answers if answer.text.lstrip().startswith("!")]
    held = [answer.text for answer in answers if not answer.text.lstrip().startswith("!")]
    assert free
    assert held
    assert any(len(text) > 20 for text in free)
    assert all(json.loads(text) in WORD["enum"] for text in held)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_costs_a_bounded_time(engine: Engine, name: str) -> None:
    """Others are served by the same process: none of its steps may take long."""
    (answer,), slowest = _timed(engine, ask("x", HOSTILE[name], tokens=60))

    assert slowest < 2.0
    assert answer.reason in {"stop", "length"} or answer.reason.startswith("invalid format: ")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#"}, "no answer can be"),
        ({"allOf": [{"type": "null"}, {"type": "string"}]}, "incompatible types"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "unsatisfiable"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "minimum"),
        ({"type": "string", "pattern": "["}, "regex"),
        ({"patternProperties": {"^a": {}, "b$": {"type": "null"}}, "type": "object"}, "disjoint"),
        ({"properties": {"a": {}}, "maxProperties": 1, "type": "object"}, "maxProperties"),
    ],
)
def test_what_the_engine_refuses_is_an_error_before_any_text(engine: Engine, schema: Any, reason: str) -> None:
    bad, good = run(engine, ask("x", schema), ask("x", SHORT, seed=2))

    assert [event["kind"] for event in bad.events] == ["FormatInvalid"]
    assert bad.reason.startswith("invalid format: ")
    assert reason.lower() in bad.reason.lower()
    assert check(SHORT, good)


def test_a_refused_format_gives_its_slot_back(load: Callable[..., Engine]) -> None:
    engine = load(parallel=1)

    answers = run(engine, ask("x", {"$ref": "#"}), ask("x", {"$ref": "#"}), ask("x", SHORT))

    assert [answer.events[-1]["event"] for answer in answers] == ["error", "error", "done"]


def test_a_broken_constraint_is_refused(engine: Engine) -> None:
    broken = ask("x", SHORT)
    object.__setattr__(broken, "format", {"no": "schema"})

    with pytest.raises((InputInvalid, KeyError)):
        start(engine, broken, Recorder())


def _timed(engine: Engine, request: Any) -> tuple[list[Recorder], float]:
    sink, slowest = Recorder(), 0.0
    start(engine, request, sink)
    for _ in range(200):
        if not engine.has_work:
            return [sink], slowest
        began = time.perf_counter()
        engine.step()
        slowest = max(slowest, time.perf_counter() - began)
    raise AssertionError("the engine does not come to an end")
