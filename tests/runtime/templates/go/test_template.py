"""What a loaded template tells about a model, and the prompts that it makes of conversations."""

from __future__ import annotations

from datetime import date

import pytest

from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go.template import Values, load

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Look <up>",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "additionalProperties": False,
            "properties": {
                "unit": {"type": ["string"], "enum": ["c", 1], "default": "c"},
                "city": {"type": ["string", "null"]},
                "deep": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"items": {"b": 1, "a": 2}}}},
            },
        },
    },
}
WEATHER_JSON = (
    '{"type":"function","function":{"name":"get_weather","description":"Look \\u003cup\\u003e",'
    '"parameters":{"type":"object",'
    '"required":["city"],"properties":{"city":{"type":["string","null"]},'
    '"deep":{"type":"object","properties":{"z":{"type":"string"},"a":{"items":{"a":2,"b":1}}}},'
    '"unit":{"type":"string","enum":["c",1]}}}}}'
)
ROUNDS = "S={{ .System }} P={{ .Prompt }} R={{ .Response }};"


def conversation(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def render(template, *turns, **values):
    messages = values.pop("messages", conversation(*turns))
    return load(template).render(Values(messages=messages, **values), today=date(2026, 3, 1))


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("{{ .System }}{{ .Prompt }}", {"system", "prompt", "response"}),
        ("{{ range $i, $m := .Messages }}{{ $m.Content }}{{ end }}", {"messages", "$m", "content"}),
        ("{{ (index .Messages 0).Content }}{{ json .Tools }}{{ $.Suffix }}", {"$", "tools", "suffix", "response"}),
        ("{{ if (eq .A.B 1) }}{{ else }}{{ .Response }}{{ end }}", {"a", "b", "response"}),
        ('{{ define "x" }}{{ .Messages }}{{ end }}{{ template "x" .Y }}', {"messages", "y"}),
    ],
)
def test_variables(template, variables):
    assert load(template).variables == variables


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("{{ .Prompt }}", "{"),
        ("{{ if .ToolCalls }}[CALLS] [{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}", "[CALLS] ["),
        ("{{ if .A }}{{ else if and .ToolCalls .B }}\r\n <call>\r\n{{ .C }}{{ end }}", "<call>"),
        ("{{ if (and .ToolCalls .B) }}no{{ end }}", "{"),
        ("{{ if $.X.ToolCalls }}no{{ end }}{{ range .ToolCalls }}no{{ end }}", "{"),
        ("{{ if .ToolCalls }}{{ .Content }}<call>{{ end }}", "{"),
        ("{{ if .ToolCalls }}  {{ if .A }}{{ .B }}{{ else }}in else{{ end }}after{{ end }}", "in else"),
        ("{{ if .ToolCalls }}{{ if .A }} {{ end }}after{{ end }}", "{"),
        ('{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": {{ . }}}{{ end }}{{ end }}', "{"),
    ],
)
def test_tool_tag(template, tag):
    assert load(template).tool_tag == tag


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        (
            "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think> {{ end }}{{ end }}",
            ("<think>", "</think>"),
        ),
        ("{{ range $m := .Messages }}{{ if $m.Thinking }}<a>{{ $m.Thinking }}</a>{{ end }}{{ end }}", None),
        ("{{ if .Thinking }}<a>{{ .Thinking }}</a>{{ end }}", None),
        (
            "{{ range .Messages }}{{ range .X }}{{ if .Thinking }}<a>{{ .Thinking }}</a>{{ end }}{{ end }}{{ end }}",
            None,
        ),
        ("{{ range .Messages }}{{ if .Thinking }}{{ .Role }}{{ .Thinking }}</a>{{ end }}{{ end }}", None),
        ("{{ range .Messages }}<m>{{ .Thinking }}</m>{{ end }}", ("<m>", "</m>")),
    ],
)
def test_thinking_tags(template, tags):
    assert load(template).thinking_tags == tags


def test_capabilities_and_round_trip():
    template = load(
        '{{ .Suffix }}{{ range .Messages }}{{ $.Tools }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}'
        "{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}"
    )
    assert template.capabilities == ("tools", "insert", "thinking")
    assert template.has_tool_round_trip
    assert load("{{ .Prompt }}").capabilities == ()
    assert not load("{{ .Tools }} {{ .ToolCalls }}").has_tool_round_trip


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "S= P= R="),
        ([("user", "u")], "S= P=u R="),
        ([("user", "u"), ("assistant", "a")], "S= P=u R=a"),
        ([("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")], "S=s P=u R=a;S= P=v R="),
        ([("user", "u"), ("system", "s"), ("user", "v")], "S= P=u R=;S=s P=v R="),
        ([("user", "u"), ("USER", "v"), ("tool", "t")], "S= P=u\n\nv R="),
    ],
)
def test_templates_without_messages_are_rendered_in_rounds(turns, expected):
    assert render(ROUNDS, *turns) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("<{{ .Prompt }}>", "<u>a"),
        ("{{ .Prompt }}[{{ if .Response }}{{ .Response }}{{ end }}]end", "u[a"),
        ("{{ if .Response }}R{{ end }}|{{ .Response }}tail", "R|a"),
        ('{{ printf "<%s|%s>" .Response "x" }}tail', "<a|%!s(MISSING)>"),
        ('{{ .Prompt }}{{ print .Response | printf "%s%s" .Prompt }}tail', "u"),
        ("{{ print .Response | print }}tail", ""),
        ("{{ $.Response }}", "a"),
        ("{{ if .Prompt }}{{ .Response }}x{{ else }}y{{ end }}z", "a"),
        ("{{ if .Nope }}y{{ else }}{{ .Response }}x{{ end }}z", "a"),
        ('{{ currentDate }}{{ define "t" }}T{{ end }}{{ template "t" . }}{{ .Response }}x', "2026-03-01Ta"),
    ],
)
def test_the_last_round_ends_at_the_answer(template, expected):
    assert render(template, ("user", "u"), ("assistant", "a")) == expected


def test_suffix_mode_needs_both_texts():
    template = "{{ if .Suffix }}{{ .Prompt }}^{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
    assert render(template, prompt="a", suffix="b") == "a^b"
    assert render(template, ("user", "u"), suffix="b") == "u"
    assert render("[{{ .Suffix }}]", ("user", "u")) == "[<no value>]"


def test_messages_of_one_role_are_one_save_for_tools():
    turns = [("system", "A"), ("user", "u"), ("user", "v"), ("system", "B"), ("tool", "1"), ("tool", "2")]
    template = "{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}<{{ .System }}>"
    assert render(template, *turns) == "[system:A][user:u\n\nv][system:B][tool:1][tool:2]<A\n\nB>"


@pytest.mark.parametrize(
    ("think", "expected"),
    [(None, "false||false"), (False, "false||true"), (True, "true|medium|true"), ("low", "true|low|true")],
)
def test_think(think, expected):
    template = "{{ range .Messages }}{{ end }}{{ .Think }}|{{ .ThinkLevel }}|{{ .IsThinkSet }}"
    assert render(template, think=think) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ json .Tools }}", f"[{WEATHER_JSON}]"),
        ("{{ .Tools }}", f"[{WEATHER_JSON}]"),
        ("{{ range .Tools }}{{ . }}{{ end }}", WEATHER_JSON),
        ("{{ range .Tools }}{{ .Function }}{{ end }}", WEATHER_JSON[len('{"type":"function","function":') : -1]),
        (
            "{{ range .Tools }}{{ range $k, $p := .Function.Parameters.Properties }}{{ $k }} {{ $p.Type }} "
            "{{ toTypeScriptType $p }} {{ $p.Enum }};{{ end }}{{ end }}",
            "city [string null] string | null [];deep object Record<string, any> [];unit string string [c 1];",
        ),
        ("{{ range .Tools }}{{ .Function.Parameters.Properties.nope.Type }}|{{ end }}", "|"),
        ("{{ range .Tools }}{{ .Function.Parameters.Required }}{{ .Items }}{{ end }}", "[city]<no value>"),
    ],
)
def test_tools(template, expected):
    assert render("{{ range .Messages }}{{ end }}" + template, ("user", "q"), tools=[WEATHER]) == expected


def test_no_tools_are_null_and_an_empty_list_is_empty():
    assert render("{{ range .Messages }}{{ end }}{{ .Tools }}", tools=None) == "null"
    assert render("{{ range .Messages }}{{ end }}{{ .Tools }}{{ if .Tools }}x{{ end }}", tools=[]) == "[]"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Function.Arguments }}", '{"a":"\\u003cb\\u003e","n":123456789}|{}|'),
        ("{{ json .Function.Arguments }}", '{"a":"\\u003cb\\u003e","n":123456789}|null|'),
        ("{{ .Function.Arguments.n }}", "1.23456789e+08|<no value>|"),
        ("{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }},{{ end }}", "a=<b>,n=1.23456789e+08,|" + "|"),
        ("{{ .ID }} {{ .Function.Index }} {{ .Function.Name }}", "c1 0 f| 1 g|"),
        ("{{ . }}", '{c1 {0 f {"a":"\\u003cb\\u003e","n":123456789}}}|{ {1 g {}}}|'),
    ],
)
def test_tool_calls(template, expected):
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": {"n": 123456789, "a": "<b>"}}},
        {"function": {"name": "g", "index": 1}},
    ]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    whole = "{{ range .Messages }}{{ range .ToolCalls }}" + template + "|{{ end }}{{ end }}"
    assert render(whole, messages=[message]) == expected


def test_messages_as_json_and_images():
    message = {"role": "user", "content": "a", "images": ["aGk="]}
    template = "{{ json .Messages }}{{ range .Messages }}{{ len .Images }}{{ .Images }}{{ end }}"
    assert render(template, messages=[message]) == (
        '[{"Role":"user","Content":"a","Thinking":"","Images":["aGk="],"ToolCalls":null,"ToolName":"","ToolCallID":""}]'
        "1[[104 105]]"
    )


def test_half_characters_of_a_request_are_replaced():
    assert render("{{ range .Messages }}{{ .Content }}{{ end }}", ("user", "a\ud800b")) == "a\ufffdb"


def test_numbers_out_of_range_fail():
    call = {"function": {"name": "f", "arguments": {"n": 10**400}}}
    with pytest.raises(TemplateFailed, match="out of range"):
        render("{{ .Messages }}", messages=[{"role": "assistant", "content": "", "tool_calls": [call]}])


def test_a_call_without_data_is_refused_when_loading():
    with pytest.raises(TemplateInvalid, match="line 2: template 't' is called without data"):
        load('x\n{{ template "t" }}{{ define "t" }}x{{ end }}')


def test_loading_twice_parses_once():
    assert load("{{ .Messages }} once") is load("{{ .Messages }} once")
