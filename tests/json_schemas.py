"""Random JSON Schemas of all that `format` honours, each with at least one value that fits."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "name", "née", "x y", 'q"t', "a/b", "ünï", "0"])
PATTERNS = st.sampled_from(["^[a-z]{1,5}$", "^a|b$", "[0-9]{2}", "^(x|yz)+$", "^\\d{3}-\\w+$", "^$", "é"])
FORMATS = st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname", "duration", "uri"])
LITERALS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.sampled_from([0.5, -2.25, 1000000.125, 3.0]),
    st.text("abé\"\\\n\t/ 😀", max_size=6),
)  # fmt: skip
CONSTANTS = st.recursive(
    LITERALS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2)
)


@st.composite
def integers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-1000, 1000))
    schema: dict[str, Any] = {"type": "integer"}
    schema |= draw(st.sampled_from([{}, {"minimum": low}, {"exclusiveMinimum": low}, {"minimum": low + 0.5}]))
    schema |= draw(st.sampled_from([{}, {"maximum": low + 50}, {"exclusiveMaximum": low + 33}]))
    return schema | draw(st.sampled_from([{}, {"multipleOf": 3}, {"multipleOf": 7.0}]))


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-1000, 1000)) / 8
    schema: dict[str, Any] = {"type": "number"}
    schema |= draw(st.sampled_from([{}, {"minimum": low}, {"exclusiveMinimum": low}]))
    return schema | draw(st.sampled_from([{}, {"maximum": low + 2}, {"exclusiveMaximum": low + 0.125}]))


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return {"type": "string", "pattern": draw(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": draw(FORMATS)}
    low = draw(st.integers(0, 4))
    schema = {"type": "string", "minLength": low} if kind == 2 else {"type": "string"}
    return schema | draw(st.sampled_from([{}, {"maxLength": low + 9}]))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    more = draw(st.integers(0, 4))
    if more == 1:
        schema["additionalProperties"] = False
    elif more == 2:
        schema["additionalProperties"] = draw(inner)
    elif more == 3:
        schema["patternProperties"] = {"^z": draw(inner)}
    elif not properties:
        schema |= draw(st.sampled_from([{"minProperties": 1}, {"maxProperties": 2}]))
    return schema


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    low = draw(st.integers(0, 3))
    schema: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": low}
    schema |= draw(st.sampled_from([{}, {"maxItems": low + 2}]))
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    return schema


@st.composite
def combinations(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    first, second = draw(inner), draw(inner)
    tagged = [
        {"type": "object", "properties": {"kind": {"const": kind}, "v": schema}, "required": ["kind"]}
        for kind, schema in (("one", first), ("two", second))
    ]
    return draw(
        st.sampled_from([
            {"anyOf": [first, second]},
            {"oneOf": tagged},
            {"allOf": [tagged[0], {"properties": {"w": second}, "required": ["w"]}]},
            {"oneOf": [{"type": "null"}, {"type": "array", "items": first}]},
            {"anyOf": tagged, "required": ["v"]},
        ])
    )  # fmt: skip


LEAVES = st.one_of(
    integers(), numbers(), strings(), st.just({"type": "boolean"}), st.just({"type": ["null", "integer"]}),
    st.builds(lambda value: {"const": value}, CONSTANTS), st.just(True),
    st.builds(lambda values: {"enum": values}, st.lists(CONSTANTS, min_size=1, max_size=4)),
)  # fmt: skip
SCHEMAS = st.recursive(LEAVES, lambda inner: objects(inner) | arrays(inner) | combinations(inner), max_leaves=6).filter(
    lambda schema: schema is not True
)
TREE = {
    "$ref": "#/definitions/tree",
    "definitions": {
        "tree": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/definitions/tree"}},
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}


def some(count: int) -> list[dict[str, Any]]:
    """So many random schemas, the same ones every time."""
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(SCHEMAS)
    def draw(schema: dict[str, Any]) -> None:
        found.append(schema)

    draw()
    return found
