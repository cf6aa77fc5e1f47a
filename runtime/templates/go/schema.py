"""Tools as templates see them: function, parameters and their JSON Schemas. Source: the Ollama API, "Tool calling"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.templates.go.values import STRING_LIST, List, Map, Omit, Prints, Struct, Type, from_json_floats, readable

_NEVER, _NIL, _EMPTY = Omit.NEVER, Omit.NIL, Omit.EMPTY

_WORDS = Type("api.PropertyType", Prints.WORDS)
_PROPERTY = Type(
    "api.ToolProperty",
    keys=(
        ("AnyOf", "anyOf", _EMPTY),
        ("Type", "type", _EMPTY),
        ("Items", "items", _NIL),
        ("Description", "description", _EMPTY),
        ("Enum", "enum", _EMPTY),
        ("Properties", "properties", _EMPTY),
        ("Required", "required", _EMPTY),
    ),
)
_PROPERTY_LIST = Type("[]api.ToolProperty")
_NESTED = Type("*api.ToolPropertiesMap", Prints.JSON, is_sorted=False, nil_text="{}")
_PARAMETERS = Type(
    "template.templateToolFunctionParameters",
    Prints.JSON,
    (
        ("Type", "type", _NEVER),
        ("Defs", "$defs", _NIL),
        ("Items", "items", _NIL),
        ("Required", "required", _EMPTY),
        ("Properties", "properties", _NEVER),
    ),
)
_FUNCTION = Type(
    "template.templateToolFunction",
    Prints.JSON,
    (("Name", "name", _NEVER), ("Description", "description", _NEVER), ("Parameters", "parameters", _NEVER)),
)
_TOOL = Type(
    "template.templateTool",
    Prints.JSON,
    (("Type", "type", _NEVER), ("Items", "items", _NIL), ("Function", "function", _NEVER)),
)
_TOOLS = Type("template.templateTools", Prints.JSON)

_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def tools_value(tools: list[Mapping[str, Any]] | None) -> List:
    """The tools of a request; None where it named none. Raises Refused for numbers that are no float64."""
    return List([_tool(tool) for tool in tools or ()], _TOOLS, is_nil=tools is None)


def text(value: object) -> str:
    return readable(value) if isinstance(value, str) else ""


def _tool(tool: Mapping[str, Any]) -> Struct:
    function = _mapping(tool.get("function"))
    described = {
        "Name": text(function.get("name")),
        "Description": text(function.get("description")),
        "Parameters": _parameters(_mapping(function.get("parameters"))),
    }
    return Struct(
        _TOOL,
        {
            "Type": text(tool.get("type")),
            "Items": from_json_floats(tool.get("items")),
            "Function": Struct(_FUNCTION, described),
        },
    )


def _parameters(parameters: Mapping[str, Any]) -> Struct:
    properties = parameters.get("properties")
    return Struct(
        _PARAMETERS,
        {
            "Type": text(parameters.get("type")),
            "Defs": from_json_floats(parameters.get("$defs")),
            "Items": from_json_floats(parameters.get("items")),
            "Required": _texts(parameters.get("required")),
            "Properties": Map(_properties(properties), PROPERTIES, is_nil=not isinstance(properties, Mapping)),
        },
    )


def _properties(properties: object) -> dict[str, object]:
    return {readable(str(name)): _property(_mapping(each)) for name, each in _mapping(properties).items()}


def _property(schema: Mapping[str, Any]) -> Struct:
    kinds, any_of, enum = schema.get("type"), schema.get("anyOf"), schema.get("enum")
    properties = schema.get("properties")
    alternatives: list[object] = [_property(_mapping(each)) for each in any_of] if isinstance(any_of, list) else []
    words: list[object] = [text(kinds)] if isinstance(kinds, str) else list(_texts(kinds))
    listed = from_json_floats(enum)
    return Struct(
        _PROPERTY,
        {
            "AnyOf": List(alternatives, _PROPERTY_LIST, is_nil=not isinstance(any_of, list)),
            "Type": List(words, _WORDS, is_nil=not words),
            "Items": from_json_floats(schema.get("items")),
            "Description": text(schema.get("description")),
            "Enum": listed if isinstance(listed, List) else List([], is_nil=True),
            "Properties": Map(_properties(properties), _NESTED, is_nil=not isinstance(properties, Mapping)),
            "Required": _texts(schema.get("required")),
        },
    )


def _texts(value: object) -> List:
    texts: list[object] = [text(each) for each in value] if isinstance(value, list) else []
    return List(texts, STRING_LIST, is_nil=not isinstance(value, list))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def typescript(value: object) -> str:
    """The TypeScript type of a property; "any" for every other value."""
    if not isinstance(value, Struct) or value.type is not _PROPERTY:
        return "any"
    any_of, kinds = value.fields["AnyOf"], value.fields["Type"]
    assert isinstance(any_of, List)
    assert isinstance(kinds, List)
    if len(any_of):
        return " | ".join(typescript(each) for each in any_of)
    return " | ".join(_TYPESCRIPT.get(str(kind), "any") for kind in kinds) or "any"


# a key that is not among the properties gives an empty property, not nil
PROPERTIES = Type("template.templateProperties", Prints.JSON, zero=_property({}), nil_text="{}")
