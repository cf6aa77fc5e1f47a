"""`format`: what is honoured, what is refused by name, and what hostile schemas cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.errors import FormatInvalid
from runtime.structured import schema
from runtime.structured.schema import Constraint, constraint
from tests.json_schemas import TREE

REF_CHAIN = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(200)} | {"d200": {}}
TAGGED = [
    {"$ref": "#/$defs/cat"},
    {"$ref": "#/$defs/dog"},
]
TAGGED_DEFINITIONS = {
    name: {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]} for name in ("cat", "dog")
}


@pytest.mark.parametrize("given", [None, ""])
def test_no_format_is_no_constraint(given: object) -> None:
    assert constraint(given) is None


def test_json_is_any_object() -> None:
    assert constraint("json") == Constraint({"type": "object"})


@pytest.mark.parametrize("given", ["xml", "JSON", 5, True, False, [], ["json"], 0])
def test_anything_else_is_refused_in_the_words_of_the_reference(given: object) -> None:
    with pytest.raises(FormatInvalid) as refused:
        constraint(given)

    quoted = json.dumps(json.dumps(given))
    assert str(refused.value) == f'invalid format: {quoted}; expected "json" or a valid JSON Schema object'


def test_a_constraint_crosses_to_the_runner_and_back() -> None:
    given = constraint(TREE, unless=["<tool_call>"])

    assert given is not None
    assert Constraint.from_json(json.loads(json.dumps(given.to_json()))) == given


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"title": "T", "description": "D", "default": 1, "examples": [1], "x-any": {"not": {}}}, {}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "type": "null"}, {"type": "null"}),
        ({"x-guidance": {"lenient": True}, "type": "null"}, {"type": "null"}),
        ({"type": "integer", "format": "int32"}, {"type": "integer"}),
        ({"uniqueItems": False, "type": "array"}, {"type": "array"}),
        ({"minItems": 2.0}, {"minItems": 2}),
        ({"const": 1.0}, {"const": 1}),
        ({"properties": {"not": {"title": "t"}, "$ref": True}}, {"properties": {"not": {}, "$ref": True}}),
        ({"const": {"not": 1, "$ref": "http://x"}}, {"const": {"not": 1, "$ref": "http://x"}}),
        ({"type": "string", "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"$ref": "#"}, {"$ref": "#/$defs/d0", "$defs": {"d0": {"$ref": "#/$defs/d0"}}}),
        (
            {"items": {"$ref": "#/components/schemas/A~1b%20c"}, "components": {"schemas": {"A/b c": {"title": "t"}}}},
            {"items": {"$ref": "#/$defs/d0"}, "$defs": {"d0": {}}},
        ),
        (
            {"oneOf": TAGGED, "$defs": TAGGED_DEFINITIONS},
            {
                "anyOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}],
                "$defs": {"d0": TAGGED_DEFINITIONS["cat"], "d1": TAGGED_DEFINITIONS["dog"]},
            },
        ),
    ],
)
def test_a_schema_is_made_plain(given: dict[str, Any], plain: dict[str, Any]) -> None:
    assert constraint(given) == Constraint(plain)


def test_properties_keep_their_order() -> None:
    given = constraint({"properties": {"z": {}, "a": {}, "m": {}}})

    assert given is not None
    assert list(given.schema["properties"]) == ["z", "a", "m"]


@pytest.mark.parametrize("keyword", sorted(schema.REFUSED))
def test_a_keyword_that_cannot_be_held_to_is_refused_by_name(keyword: str) -> None:
    for given in (
        {keyword: {}},
        {"properties": {"a": {keyword: True}}},
        {"$defs": {"a": {keyword: 1}}, "$ref": "#/$defs/a"},
    ):
        if given.get("properties", {}).get("a", {}).get(keyword) is True and keyword.startswith("unevaluated"):
            continue  # true allows everything
        with pytest.raises(
            FormatInvalid, match=f'^invalid format: the JSON Schema keyword "{keyword.replace("$", ".")}"'
        ):
            constraint(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"$ref": "http://example.com/s.json"}, r'"\$ref" to "http://example.com/s.json"'),
        ({"$ref": "file:///etc/passwd"}, r'"\$ref" to'),
        ({"$ref": "other.json#/a"}, r'"\$ref" to'),
        ({"$ref": "#anchor"}, r'"\$ref" to'),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#/a/00", "a": [1]}, "must be an object or a boolean"),
        ({"$ref": 1}, "must be a string"),
        ({"type": "text"}, '"type" must be'),
        ({"type": []}, '"type" must be'),
        ({"type": [{}]}, '"type" must be'),
        ({"items": 1}, "must be an object or a boolean"),
        ({"properties": []}, '"properties" must be an object'),
        ({"required": "a"}, '"required" must be'),
        ({"anyOf": []}, '"anyOf" must be'),
        ({"enum": []}, '"enum" must be'),
        ({"minItems": -1}, '"minItems" must be'),
        ({"maxLength": 1.5}, '"maxLength" must be'),
        ({"maxLength": 10**10}, '"maxLength" must be'),
        ({"maxLength": True}, '"maxLength" must be'),
        ({"minimum": "1"}, '"minimum" must be a number'),
        ({"minimum": True}, '"minimum" must be a number'),
        ({"minimum": 2**53 + 2}, '"minimum": 9007199254740994 is beyond'),
        ({"maximum": float("inf")}, '"maximum" must be a number'),
        ({"const": 10**30}, '"const": 1000000000'),
        ({"enum": [1e-9]}, '"enum": 1e-09 is beyond'),
        ({"enum": ["\x01"]}, "control characters"),
        ({"multipleOf": 0}, "must be above zero"),
        ({"multipleOf": 99991}, '"multipleOf"'),
        ({"properties": {"a": {"multipleOf": 9973}, "b": {"multipleOf": 9967}}}, '"multipleOf"'),
        ({"type": "string", "format": "iri"}, '"format": "iri" is not supported; these are: date-time'),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"pattern": "(?<!a)b"}, "look-around"),
        ({"pattern": "(?i)a"}, "look-around"),
        ({"pattern": r"(a)\1"}, "back references"),
        ({"pattern": "[a-z&&[^b]]"}, "set operators"),
        ({"pattern": "a" * 513}, "longer than 512"),
        ({"patternProperties": {"(?=a)": {}}}, "look-around"),
        ({"minProperties": 2}, '"minProperties" above'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, '"oneOf" is supported where'),
        ({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, '"oneOf" is supported where'),
        ({"oneOf": [{}, {"type": "null"}]}, '"oneOf" is supported where'),
        ({"oneOf": [{"$ref": "#"}, {"type": "null"}]}, '"oneOf" is supported where'),
        ({"oneOf": [{"type": "null"}, {"type": "string"}], "anyOf": [True]}, '"oneOf" beside "anyOf"'),
    ],
)
def test_what_makes_no_sense_or_cannot_be_held_to_is_refused_with_a_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatInvalid, match=f"^invalid format: .*{reason}") as refused:
        constraint(given)

    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("wellformed", [r"a\\1", r"\d{1,3}", "(?:a|b)", "(?<year>[0-9]{4})", "[-a]", "a--b", r"\("])
def test_ordinary_patterns_pass(wellformed: str) -> None:
    assert constraint({"pattern": wellformed}) == Constraint({"pattern": wellformed})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"enum": ["x" * 200_000]}, "larger than"),
        ({"properties": {f"p{i}": {} for i in range(2_001)}}, "more than 2000 schemas"),
        ({"anyOf": [True] * 20_000}, None),
        ({"$ref": "#/$defs/d0", "$defs": REF_CHAIN}, "nested more than 64 deep"),
        ({"properties": {f"p{i}": {"pattern": f"{i}"} for i in range(101)}}, "more than 100 patterns"),
        ({"allOf": [{"pattern": f"x{i}[a-z]*"} for i in range(20)]}, "patterns where schemas are combined"),
    ],
)
def test_a_hostile_schema_meets_a_limit_here(given: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        assert constraint(given) is not None
        return
    with pytest.raises(FormatInvalid, match=reason):
        constraint(given)


def test_nesting_has_a_limit() -> None:
    nested: dict[str, Any] = {}
    for _ in range(65):
        nested = {"items": nested}

    with pytest.raises(FormatInvalid, match="nested"):
        constraint(nested)
    assert constraint(nested["items"]) is not None
