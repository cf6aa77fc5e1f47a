"""`format`: "json" or a JSON Schema, checked and made plain for the runner that holds answers to it.

Source: the Ollama API, "Structured outputs"; JSON Schema 2020-12, and what drafts 4 to 2019-09 spell otherwise.
What cannot be held to is refused by name, never ignored. Annotations and unknown keywords say nothing about values.

Honoured: type (one or several), enum, const; properties, required, additionalProperties, patternProperties that do not
overlap, minProperties up to what `required` makes sure of, maxProperties; items, prefixItems, additionalItems,
minItems, maxItems; minLength, maxLength, pattern without look-around and back references, and the formats of `FORMATS`;
minimum, maximum, their exclusive forms as numbers or booleans, multipleOf; anyOf, allOf, oneOf whose branches cannot
hold at once; local "$ref" with siblings and recursion, $defs and definitions; true and false as schemas; nullable.
Refused: `REFUSED`, "$ref" to other documents or anchors, numbers beyond 2^53, control characters in fixed strings.
Narrower than the schema, so that answers are still valid: properties come in the order of the schema, strings are
written without \\u escapes, bounded numbers without exponents, white space between tokens is one blank or one line
break with an indent. A schema whose required properties recur without end never lets an answer end before its bound.
The limits keep the compiling of a hostile schema below a second; the runner has its own for what is left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from runtime.errors import FormatInvalid
from runtime.messages import Message
from runtime.structured import values
from runtime.structured.disjoint import are_disjoint

JSON = dict[str, Any]
MAX_BYTES = 128 * 1024  # of the schema's JSON text
MAX_DEPTH = 64  # schemas in schemas, references followed: the compiler recurses on a stack of 8 MiB
MAX_SCHEMAS = 2_000
MAX_STRING_RULES = 100  # patterns and formats
MAX_JOINED_PATTERNS = 6  # where schemas are combined: intersections of patterns grow exponentially
MAX_MULTIPLE = 10_000  # the least common multiple of all `multipleOf`: the compiler keeps a state for each remainder

REFUSED = frozenset({
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames",
    "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties",
    "$dynamicRef", "$recursiveRef", "extends", "disallow", "divisibleBy",
})  # fmt: skip
_HARMLESS: JSON = {"uniqueItems": False, "unevaluatedItems": True, "unevaluatedProperties": True}
_SINGLE = {"additionalProperties", "additionalItems"}
_LISTS = {"prefixItems", "anyOf", "oneOf", "allOf"}
_MAPS = {"properties", "patternProperties"}
_COMBINING = {"allOf", "anyOf", "oneOf", "$ref"}


@dataclass(frozen=True, slots=True)
class Constraint(Message):
    """What an answer must be.

    schema: as `constraint` made it plain.
    unless: an answer that begins with one of these is free, as that of a model that calls a tool instead; while some
    are given, the model may also end its answer before any content.
    """

    schema: JSON
    unless: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, body: JSON) -> Constraint:
        return cls(body["schema"], tuple(body.get("unless", ())))


def constraint(given: object, unless: Sequence[str] = ()) -> Constraint | None:
    """The `format` of a request; None where it is absent. Raises FormatInvalid."""
    if given is None or given == "":
        return None
    if given == "json":
        return Constraint({"type": "object"}, tuple(unless))
    if not isinstance(given, dict):
        quoted = json.dumps(json.dumps(given)[:100])
        raise FormatInvalid(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
    if len(json.dumps(given)) > MAX_BYTES:
        raise values.refusal(f"the schema is larger than {MAX_BYTES} bytes")
    return Constraint(_Document(given).plain(), tuple(unless))


class _Document:
    """One schema document: every schema in it is visited once, references included."""

    def __init__(self, root: JSON) -> None:
        self._root = root
        self._names: dict[str, str] = {}  # of `$ref` targets, by pointer
        self._definitions: dict[str, JSON | bool] = {}
        self._schemas = self._string_rules = 0
        self._patterns: set[str] = set()
        self._multiple = 1
        self._is_combined = False

    def plain(self) -> JSON:
        """The root with nothing but keywords that are honoured, and `$defs` with what it refers to."""
        plain = self._schema(self._root, 0)
        assert isinstance(plain, dict)
        if self._is_combined and len(self._patterns) > MAX_JOINED_PATTERNS:
            raise values.refusal(f"more than {MAX_JOINED_PATTERNS} patterns where schemas are combined")
        return {**plain, "$defs": self._definitions} if self._definitions else plain

    def _schema(self, given: Any, depth: int) -> JSON | bool:
        if isinstance(given, bool):
            return given
        if not isinstance(given, dict):
            raise values.refusal("a schema must be an object or a boolean")
        self._schemas += 1
        if depth > MAX_DEPTH:
            raise values.refusal(f"schemas are nested more than {MAX_DEPTH} deep")
        if self._schemas > MAX_SCHEMAS:
            raise values.refusal(f"more than {MAX_SCHEMAS} schemas")
        plain: JSON = {}
        for key, value in given.items():
            if key in REFUSED and _HARMLESS.get(key) is not value:
                raise values.refusal(f'the JSON Schema keyword "{key}" is not supported')
            self._take(plain, given, key, value, depth)
        self._check_together(plain)
        if given.get("nullable") is True:
            return {"anyOf": [plain, {"type": "null"}]}
        return plain

    def _take(self, plain: JSON, given: JSON, key: str, value: Any, depth: int) -> None:
        """Put what `key` says into `plain`; nothing where it says nothing about values."""
        if key == "items":
            many = isinstance(value, list)
            plain[key] = self._list(key, value, depth) if many else self._schema(value, depth + 1)
        elif key in _SINGLE:
            plain[key] = self._schema(value, depth + 1)
        elif key in _LISTS:
            plain[key] = self._list(key, value, depth)
        elif key in _MAPS:
            if not isinstance(value, dict):
                raise values.refusal(f'"{key}" must be an object')
            plain[key] = {name: self._schema(each, depth + 1) for name, each in value.items()}
            for pattern in value if key == "patternProperties" else ():
                self._count_pattern(values.pattern(key, pattern))
        elif key == "$ref":
            plain[key] = self._reference(value, depth)
        elif key in values.READERS and not (key == "format" and values.is_without_strings(given.get("type"))):
            plain[key] = values.READERS[key](key, value)
            self._count(key, plain[key])

    def _list(self, key: str, value: Any, depth: int) -> list[JSON | bool]:
        if not isinstance(value, list) or not value:
            raise values.refusal(f'"{key}" must be an array of schemas')
        return [self._schema(each, depth + 1) for each in value]

    def _reference(self, reference: Any, depth: int) -> str:
        """The name of a target under `$defs`, where it stands plain from now on."""
        if not isinstance(reference, str):
            raise values.refusal('"$ref" must be a string')
        if reference != "#" and not reference.startswith("#/"):
            raise values.refusal(f'"$ref" to {json.dumps(reference[:100])}: only "#" and "#/…" are followed')
        name = self._names.get(reference)
        if name is None:
            name = self._names[reference] = f"d{len(self._names)}"
            self._definitions[name] = self._schema(self._target(reference), depth + 1)
        return f"#/$defs/{name}"

    def _target(self, reference: str) -> Any:
        at: Any = self._root
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(at):
                at = at[int(key[:9])]
            elif isinstance(at, dict) and key in at:
                at = at[key]
            else:
                raise values.refusal(f'"$ref" to {json.dumps(reference[:100])} leads nowhere')
        return at

    def _check_together(self, plain: JSON) -> None:
        """Rules about several keywords of one schema."""
        values.settle_bounds(plain)
        self._is_combined |= "allOf" in plain or "patternProperties" in plain
        self._is_combined |= len(plain) > 1 and not _COMBINING.isdisjoint(plain)
        sure = len(set(plain.get("required", ())))
        if plain.get("minProperties", 0) > max(sure, 1):  # keys beside the required ones may come twice
            raise values.refusal('"minProperties" above the number of required properties is not supported')
        if "oneOf" in plain:
            if "anyOf" in plain:
                raise values.refusal('"oneOf" beside "anyOf" is not supported')
            if not are_disjoint(plain["oneOf"], self._definitions):
                raise values.refusal(
                    '"oneOf" is supported where no value fits two of its schemas: give them different types, or a '
                    'required property with different constants; else use "anyOf"'
                )
            plain["anyOf"] = plain.pop("oneOf")

    def _count(self, key: str, value: Any) -> None:
        if key == "pattern":
            self._count_pattern(value)
        elif key == "format":
            self._count_string_rule()
        elif key == "multipleOf":
            self._multiple = math.lcm(self._multiple, _significant(value))
            if self._multiple > MAX_MULTIPLE:
                raise values.refusal(f'"multipleOf": the values need more than {MAX_MULTIPLE} remainders together')

    def _count_pattern(self, pattern: str) -> None:
        self._patterns.add(pattern)
        self._count_string_rule()

    def _count_string_rule(self) -> None:
        self._string_rules += 1
        if self._string_rules > MAX_STRING_RULES:
            raise values.refusal(f"more than {MAX_STRING_RULES} patterns and formats")


def _significant(number: float) -> int:
    """The decimal digits of `number` as an integer, without zeros at the end: 0.025 → 25, 3000 → 3."""
    fraction = Fraction(str(number))
    digits = int(fraction * 10 ** (len(str(fraction.denominator)) + 20))
    while digits and digits % 10 == 0:
        digits //= 10
    return max(digits, 1)
