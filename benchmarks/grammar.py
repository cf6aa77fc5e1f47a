"""What holds answers to a JSON Schema: llama.cpp's grammars beside llguidance, by what they honour and what they cost.

    python benchmarks/grammar.py [--answers 200 --tokens 64]

The first table gives each keyword a value that fits and one that does not: "yes" where both are told apart, "refused"
where the schema is, "ignored" where the wrong value passes, "narrow" where the right one does not. The second is the
time of one step over 151,936 tokens: SmolLM2's, then joined pairs of them, in random answers. `--answers` asks SmolLM2
for answers to so many random schemas instead, and validates each that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import gguf  # noqa: E402
import llama_cpp.llama_cpp as ll  # noqa: E402
import numpy as np  # noqa: E402
from llama_cpp.llama_grammar import LlamaGrammar  # noqa: E402

from demo import smollm2  # noqa: E402
from runtime.errors import FormatInvalid  # noqa: E402
from runtime.runner.engine import Engine  # noqa: E402
from runtime.runner.grammar import Grammars  # noqa: E402
from runtime.runner.library import Log, Model, Vocabulary  # noqa: E402
from runtime.runner.settings import RunnerSettings  # noqa: E402
from runtime.structured.schema import constraint  # noqa: E402
from tests.answers import ask, check, run  # noqa: E402
from tests.json_schemas import some  # noqa: E402
from tests.tiny_gguf import byte_spelling  # noqa: E402

Schema = dict[str, Any]
TOKENS = 151_936
SELF = {"type": "object", "properties": {"a": {"$ref": "#/$defs/s"}}, "additionalProperties": False}
INTEGER = {"type": "integer"}
AB = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "type": "object"}
FEATURES: list[tuple[str, Schema, str, str]] = [
    ("properties", AB, '{"a":1,"b":"x"}', '{"a":"x"}'),
    ("required", {**AB, "required": ["b"]}, '{"a":1,"b":"x"}', '{"a":1}'),
    ("additionalProperties: false", {**AB, "additionalProperties": False}, '{"a":1}', '{"c":1}'),
    ("additionalProperties: schema", {"type": "object", "additionalProperties": INTEGER}, '{"c":1}', '{"c":null}'),
    ("additionalProperties: default", AB, '{"c":1}', "{"),
    ("patternProperties", {"type": "object", "patternProperties": {"^z": {"type": "null"}}}, '{"z1":null}', '{"z1":1}'),
    ("propertyNames", {"type": "object", "propertyNames": {"maxLength": 1}}, '{"a":1}', '{"ab":1}'),
    ("minProperties", {"type": "object", "minProperties": 1}, '{"a":1}', "{}"),
    ("items", {"type": "array", "items": {"type": "null"}}, "[null,null]", "[1]"),
    ("prefixItems", {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}]}, "[null,1]", "[1,null]"),
    ("minItems, maxItems", {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 2}, "[1]", "[1,2,3]"),
    ("uniqueItems", {"type": "array", "items": {"const": 1}, "uniqueItems": True}, "[1]", "[1,1]"),
    ("contains", {"type": "array", "contains": {"const": 1}}, "[1]", "[2]"),
    ("anyOf", {"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "true", "1"),
    ("oneOf, disjoint", {"oneOf": [{"type": "null"}, {"type": "boolean"}]}, "true", "1"),
    ("oneOf, overlapping", {"oneOf": [{"const": 1}, {"enum": [1, 2]}]}, "2", "1"),
    ("allOf of properties", {"allOf": [AB, {"required": ["b"]}]}, '{"b":"x"}', '{"a":1}'),
    ("allOf of ranges", {"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 5}]}, "4", "6"),
    ("enum, const", {"enum": ["a", 1, None, {"k": [True]}]}, '{"k":[true]}', '"b"'),
    ("$ref, recursive", {**SELF, "$defs": {"s": SELF}}, '{"a":{"a":{}}}', '{"a":{"b":1}}'),
    ("$ref with siblings", {"$ref": "#/$defs/n", "maximum": 5, "$defs": {"n": INTEGER}}, "4", "6"),
    ("type list with siblings", {"type": ["integer", "null"], "minimum": 3}, "null", "2"),
    ("minLength, maxLength", {"type": "string", "minLength": 2, "maxLength": 3}, '"ab"', '"a"'),
    ("pattern, anchored", {"type": "string", "pattern": "^[a-c]{2}$"}, '"ab"', '"ad"'),
    ("pattern, anywhere", {"type": "string", "pattern": "b+"}, '"abba"', '"a"'),
    ("format: date", {"type": "string", "format": "date"}, '"2024-02-29"', '"2024-13-01"'),
    ("format: email", {"type": "string", "format": "email"}, '"a@b.c"', '"a"'),
    ("minimum, maximum: integer", {"type": "integer", "minimum": -5, "maximum": 120}, "-5", "121"),
    ("minimum, maximum: number", {"type": "number", "minimum": 0, "maximum": 1}, "0.5", "1.5"),
    ("exclusive bounds", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, "0.25", "0"),
    ("multipleOf", {"type": "integer", "multipleOf": 7}, "21", "22"),
    ("not", {"type": "integer", "not": {"const": 1}}, "2", "1"),
    ("if, then, else", {"if": {"const": 1}, "then": False, "type": "integer"}, "2", "1"),
    ("dependentRequired", {**AB, "dependentRequired": {"a": ["b"]}}, '{"b":"x"}', '{"a":1}'),
    ("a repeated key", {**AB, "additionalProperties": {}}, '{"a":1}', '{"a":1,"\\u0061":"x"}'),
]  # fmt: skip
COSTS: list[tuple[str, Schema]] = [
    ("any object", {"type": "object"}),
    ("two fields", {**AB, "required": ["a", "b"], "additionalProperties": False}),
    ("a pattern", {"type": "string", "pattern": "^[a-z ]{1,300}$"}),
    ("500 words", {"enum": [f"word{i}" for i in range(500)]}),
]


class Gbnf:
    """One answer under a grammar of llama.cpp."""

    def __init__(self, schema: Schema, vocabulary: Any, size: int) -> None:
        """Raises ValueError where the schema cannot be converted, or the grammar not be read."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                text = LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)._grammar
        except Exception as error:
            raise ValueError(str(error)) from None
        self._sampler = ll.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise ValueError("the grammar cannot be read")
        self._candidates = np.zeros(size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._everything = np.arange(size)

    def allowed(self, tokens: Any = None) -> Any:
        ids = self._everything if tokens is None else np.array(tokens)
        candidates = self._candidates[: len(ids)]
        candidates["id"], candidates["logit"] = ids, 0
        pointer = ctypes.cast(candidates.ctypes.data, ctypes.POINTER(ll.llama_token_data))
        array = ll.llama_token_data_array(data=pointer, size=len(ids), selected=-1, sorted=False)
        ll.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return ids[candidates["logit"] == 0]

    def take(self, token: int) -> None:
        ll.llama_sampler_accept(self._sampler, token)


class Guided:
    """One answer under llguidance, as a runner has it."""

    def __init__(self, schema: Schema, grammars: Grammars) -> None:
        held = constraint(schema)
        assert held is not None
        self._matcher = grammars.matcher(held.schema, None)
        self.take = self._matcher.take

    def allowed(self, tokens: Any = None) -> Any:
        found = self._matcher.allowed()
        return found if tokens is None else np.intersect1d(found, tokens)


def passes(answer: Gbnf | Guided, text: str, byte_ids: dict[int, int], end: int) -> bool:
    for byte in text.encode():
        if not len(answer.allowed([byte_ids[byte]])):
            return False
        answer.take(byte_ids[byte])
    return bool(len(answer.allowed([end])))


def verdict(make: Callable[[Schema], Gbnf | Guided], feature: tuple[str, Schema, str, str], spell: Any) -> str:
    _, schema, fits, wrong = feature
    try:
        fitting, failing = make(schema), make(schema)
    except (ValueError, FormatInvalid):
        return "refused"
    return "ignored" if passes(failing, wrong, *spell) else "yes" if passes(fitting, fits, *spell) else "narrow"


def walk(answer: Gbnf | Guided, ends: set[int], steps: int = 100) -> list[float]:
    """Seconds of each step of a random answer, for its mask and its token."""
    taken, rng = [], random.Random(0)
    for _ in range(steps):
        start = time.perf_counter()
        allowed = answer.allowed()
        spent = time.perf_counter() - start
        token = int(rng.choice(allowed)) if len(allowed) else -1
        if token < 0 or token in ends:
            break
        start = time.perf_counter()
        answer.take(token)
        taken.append(spent + time.perf_counter() - start)
    return taken


@contextlib.contextmanager
def vocabulary_of(path: Path) -> Iterator[tuple[Any, Vocabulary]]:
    params = ll.llama_model_default_params()
    params.vocab_only = True
    model = ll.llama_model_load_from_file(str(path).encode(), params)
    yield ll.llama_model_get_vocab(model), Vocabulary(model)
    ll.llama_model_free(model)


def write_large(path: Path) -> None:
    """A header with `TOKENS` tokens and no tensors."""
    with vocabulary_of(smollm2.fetch()) as (_, small):
        pieces = [small.piece(token) for token in range(small.size)]
        controls = {token for token in range(small.size) if small.is_control(token)}
    parts, known, rng = [piece for piece in pieces if 1 < len(piece) < 9], set(pieces), random.Random(0)
    while len(pieces) < TOKENS:
        if (joined := rng.choice(parts) + rng.choice(parts)) not in known:
            pieces.append(joined)
            known.add(joined)
    spelling = byte_spelling()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["".join(spelling[byte] for byte in piece) for piece in pieces])
    writer.add_token_types([3 if token in controls else 1 for token in range(TOKENS)])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(path: Path) -> None:
    with vocabulary_of(path) as (raw, vocabulary):
        start = time.perf_counter()
        grammars = Grammars(vocabulary)
        grammars.matcher({"type": "null"}, None)
        print(f"llguidance reads the vocabulary once: {time.perf_counter() - start:.2f} s\n")
        byte_ids = {vocabulary.piece(token)[0]: token for token in range(1000) if len(vocabulary.piece(token)) == 1}
        spell = (byte_ids, vocabulary.end)
        print(f"{'keyword':32}{'llama.cpp':12}llguidance")
        for feature in FEATURES:
            gbnf = verdict(lambda schema: Gbnf(schema, raw, vocabulary.size), feature, spell)
            print(f"{feature[0]:32}{gbnf:12}{verdict(lambda schema: Guided(schema, grammars), feature, spell)}")
        print(f"\n{'ms a step: mean, worst':32}{'llama.cpp':20}llguidance")
        ends = {token for token in range(vocabulary.size) if vocabulary.is_end(token)}
        for name, schema in COSTS:
            rows = [np.array(walk(answer, ends)) * 1e3
                    for answer in (Gbnf(schema, raw, vocabulary.size), Guided(schema, grammars))]  # fmt: skip
            print(f"{name:32}" + "".join(f"{row.mean():8.2f} {row.max():8.2f}   " for row in rows))


def ask_smollm2(count: int, tokens: int) -> None:
    settings = RunnerSettings(path=str(smollm2.fetch()), socket="", context_length=512, parallel=8)
    engine = Engine(Model(settings, Log(), lambda _: None), settings)
    prompt = "<|im_start|>user\nDescribe a ship in JSON.<|im_end|>\n<|im_start|>assistant\n"
    schemas = some(count)
    answers = run(engine, *[ask(prompt, schema, tokens=tokens, seed=seed) for seed, schema in enumerate(schemas)])
    ended = sum(check(schema, answer) for schema, answer in zip(schemas, answers, strict=True))
    print(f"{len(schemas)} schemas, {ended} answers ended within {tokens} tokens, all of those valid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    if asked.answers:
        ask_smollm2(asked.answers, asked.tokens)
        return
    quiet = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(quiet, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.gguf"
        write_large(path)
        compare(path)


if __name__ == "__main__":
    main()
