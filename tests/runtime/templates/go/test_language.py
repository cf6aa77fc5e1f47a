"""The template language, rule by rule. The expectations are what Go's own text/template answers."""

from __future__ import annotations

from datetime import date

import pytest

from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go.template import render_raw
from runtime.templates.go.values import Held, List, Map


def value(data):
    """JSON data as Go's decoder would hand it to a template, integers as ints."""
    if isinstance(data, dict):
        return Map({key: value(each) for key, each in data.items()})
    if isinstance(data, list):
        return List([value(each) for each in data])
    return Held(data) if type(data) is int else data


DATA = {
    "S": "naïve",
    "E": "",
    "N": 5,
    "F": 2.5,
    "L": ["a", 1, None, 1.5, ["x"]],
    "LI": [1, 2, 3],
    "LE": [],
    "M": {"b": 1, "a": "x", "Z": None},
    "ME": {},
    "LM": [{"n": 1}, {"n": 2}],
    "X": None,
}


def render(template):
    return render_raw(template, value(DATA), today=date(2026, 3, 1))


TEXT = [
    ("a {{- 1 }} b {{ 2 -}} c", "a1 b 2c"),
    ("n{{-3}}|n {{- 3 }}", "n-3|n3"),
    ("a\u00a0{{- 1 }}", "a\u00a01"),
    ("{{- /* head */ -}}\n\nbody\n{{/* tail */}}\n", "body\n\n"),
    ('{"k": {{ .N }}}{}', '{"k": 5}{}'),
    ('{{ "{{" }} and {{ `}}` }}', "{{ and }}"),
    ("a }} b", "a }} b"),
    ("{{ .S |\n print }}", "naïve"),
    ("{{ .S | }}", "naïve"),
]

CONSTANTS = [
    ("{{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }} {{ -0 }} {{ +5 }} {{ 'a' }}", "31 3 15 15 1000 0 5 97"),
    ("{{ 1.0 }} {{ 1e6 }} {{ 1e5 }} {{ 0x1p-2 }} {{ .5 }} {{ 1_0.5 }}", "1 1e+06 100000 0.25 0.5 10.5"),
    ("{{ 999999.5 }} {{ 123456789.0 }} {{ 0.0001 }} {{ 0.00001234 }}", "999999.5 1.23456789e+08 0.0001 1.234e-05"),
    ("{{ 3i }} {{ 1+2i }}", "(0+3i) (1+2i)"),
    (r'{{ "\x41\u00e9\t\101\"" }}', '\x41é\tA"'),
    (r'{{ "\303\251" }}{{ "\xff" }}', "é\ufffd"),
    ("{{ `a\\n\r` }}", "a\\n"),
    ("{{ true }}{{ false }}", "truefalse"),
]

CONTROL = [
    ("{{ if .E }}1{{ else if .N }}2{{ else }}3{{ end }}", "2"),
    ("{{ with .E }}a{{ else with .N }}b={{ . }}{{ else }}c{{ end }}", "b=5"),
    ("{{ with $x := .E }}{{ else }}none:{{ $x }}{{ end }}", "none:"),
    ("{{ range $i, $e := .L }}{{ $i }}={{ $e }};{{ end }}", "0=a;1=1;2=<no value>;3=1.5;4=[x];"),
    ("{{ range $k, $v := .M }}{{ $k }}={{ $v }};{{ end }}", "Z=<no value>;a=x;b=1;"),
    (
        "{{ range 3 }}{{ . }}{{ end }}{{ range .LE }}{{ else }}none{{ end }}{{ range .Nope }}{{ else }}nil{{ end }}",
        "012nonenil",
    ),
    ("{{ range .LI }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }}{{ end }}", "13"),
    ("{{ range .LI }}{{ with . }}{{ if eq . 2 }}{{ break }}{{ end }}{{ end }}{{ . }}{{ end }}.", "1."),
    ("{{ range .LI }}{{ range 2 }}{{ break }}{{ end }}{{ . }}{{ end }}", "123"),
    ("{{ range .LI }}{{ range 0 }}{{ else }}{{ break }}x{{ end }}{{ . }}{{ end }}", "123"),
    ("{{ range .LI }}{{ range 0 }}{{ else }}{{ continue }}{{ end }}{{ . }}{{ end }}.", "."),
    ("{{ $n := 1 }}{{ range .LI }}{{ $n = . }}{{ end }}{{ $n }}", "3"),
    ("{{ $n := 1 }}{{ range .LI }}{{ $n := . }}{{ end }}{{ $n }}", "1"),
    ("{{ $i := 9 }}{{ range $i, $e := .LI }}{{ end }}{{ $i }}", "9"),
    ("{{ $i := 9 }}{{ range $i = .LI }}{{ end }}{{ $i }}", "3"),
    ("{{ range .LM }}{{ $.N }}{{ .n }} {{ end }}", "51 52 "),
    ('{{ define "r" }}<{{ . }}{{ $ }}>{{ end }}{{ template "r" .N }}{{ template "r" }}', "<55><<no value><no value>>"),
    ('{{ block "b" .N }}({{ . }}){{ end }}', "(5)"),
    (
        '{{ define "d" }}{{ if . }}{{ len . }}{{ template "d" (slice . 1) }}{{ end }}{{ end }}{{ template "d" .LI }}',
        "321",
    ),
    ("{{ print ($x := 2) }}{{ $x }}", "22"),
]

FUNCTIONS = [
    ('{{ and 1 "" 2 }}|{{ and 1 "b" }}|{{ or 0 "" "z" "y" }}|{{ or "" 0 }}|{{ not .E }}', "|b|z|0|true"),
    ("{{ and .LE (index .LE 0) }}{{ or 1 (index .LE 0) }}", "[]1"),
    (
        '{{ eq "a" "b" "a" }} {{ ne 1 2 }} {{ lt "B" "a" }} {{ ge 2 2 }} {{ eq .X nil }} {{ eq .Nope "x" }}',
        "true true true true true false",
    ),
    ("{{ len .S }} {{ len .L }} {{ len .M }}", "6 5 3"),
    (
        '{{ index .L 4 0 }}{{ index .M "a" }}{{ index .M "no" }}{{ index "abc" 1 }}{{ (index .LM 1).n }}',
        "xx<no value>982",
    ),
    (
        '{{ slice .LI 1 }} {{ slice .LI 0 1 }} {{ slice "control" 1 3 }} {{ slice (slice .LI 0 1) 0 3 }}',
        "[2 3] [1] on [1 2 3]",
    ),
    ("{{ slice .S 0 3 }}|{{ slice .S 0 3 }}{{ slice .S 3 }}", "na\ufffd|naïve"),
    ("{{ print (slice .S 0 3) (slice .S 3) }}", "naïve"),
    ('{{ print 1 2 "a" 3 4 }}|{{ println "a" 1 }}|{{ print nil .X }}', "1 2a3 4|a 1\n|<nil> <nil>"),
    (
        '{{ html "<a href=\'x\'>" }} {{ js "<\'\\n" }} {{ urlquery "a b&é" }} {{ html .X }}',
        "&lt;a href=&#39;x&#39;&gt; \\u003C\\'\\u000A a+b%26%C3%A9 &lt;no value&gt;",
    ),
    ('{{ "x" | printf "%s-%s" "y" }}', "y-x"),
    ('{{ currentDate }} {{ yesterdayDate }} {{ currentDate "any" }}', "2026-03-01 2026-02-28 2026-03-01"),
    ('{{ toTypeScriptType "x" }}', "any"),
    (
        '{{ json .M }}{{ json "<\\u2028\\x01\\x7f&é" }}{{ json nil }}',
        '{"Z":null,"a":"x","b":1}"\\u003c\\u2028\\u0001\x7f\\u0026é"null',
    ),
    ("{{ json 1e21 }} {{ json 1e20 }} {{ json 0.0000001 }} {{ json 3.0 }}", "1e+21 100000000000000000000 1e-7 3"),
    ("{{ .M }}{{ .L }}{{ .ME }}{{ .LE }}", "map[Z:<nil> a:x b:1][a 1 <nil> 1.5 [x]]map[][]"),
    ("{{ .Nope }}|{{ .ME.A }}|{{ $x := .Nope }}{{ $x.A }}", "<no value>|<no value>|<no value>"),
]


@pytest.mark.parametrize(("template", "expected"), TEXT + CONSTANTS + CONTROL + FUNCTIONS)
def test_renders(template, expected):
    assert render(template) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{{ .X }}",
        "{{ /* c */ }}",
        "{{/* c",
        "{{ .A ",
        "{{ if .A }}",
        "{{ end }}",
        "{{ if .A }}{{ else }}{{ else }}{{ end }}",
        "{{ if .A }}{{ else with .B }}{{ end }}",
        "{{ range .A }}{{ else if .B }}{{ end }}",
        "{{ if }}{{ end }}",
        "{{ if .A }}{{ continue }}{{ end }}",
        "{{ range .A }}{{ else }}{{ break }}{{ end }}",
        '{{ range .A }}{{ block "b" . }}{{ break }}{{ end }}{{ end }}',
        "{{ if .A }}{{ $z := 1 }}{{ end }}{{ $z }}",
        '{{ $x := 1 }}{{ define "d" }}{{ $x }}{{ end }}',
        "{{ upper .A }}",
        "{{ .my-key }}",
        '{{ "a\nb" }}',
        r'{{ "\q" }}',
        "{{ 12abc }}",
        "{{ 08 }}",
        "{{ 1e999 }}",
        "{{ 99999999999999999999 }}",
        "{{ 'ab' }}",
        "{{ (1 }}",
        "{{ 1) }}",
        "{{ ! }}",
        "{{ 1 | 2 }}",
        "{{ | print }}",
        "{{ true.X }}",
        "{{ $x, $y := .L }}",
        "{{ range $a, $b, $c := .L }}{{ end }}",
        '{{ define "a" }}1{{ end }}{{ define "a" }}2{{ end }}',
        '{{ if 1 }}{{ define "a" }}1{{ end }}{{ end }}',
        "{{ template .A }}",
    ],
)
def test_what_is_no_template_is_invalid(template):
    with pytest.raises(TemplateInvalid, match=r"^template error: line 1: |^template error: line 2: "):
        render(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ .A.B }}",
        "{{ .S.B }}",
        "{{ .N.B }}",
        "{{ .M 1 }}",
        '{{ "a" "b" }}',
        "{{ nil }}",
        "{{ $x = 1 }}",
        "{{ or 1 ($x := 2) }}{{ $x }}",
        "{{ range .S }}{{ end }}",
        "{{ range .F }}{{ end }}",
        "{{ range $a, $b := 3 }}{{ end }}",
        "{{ eq .F 1 }}",
        '{{ eq "1" 1 }}',
        "{{ eq .L .L }}",
        "{{ eq 1 }}",
        "{{ ne 1 2 3 }}",
        "{{ lt 1 1.5 }}",
        "{{ lt true false }}",
        "{{ len .Nope }}",
        "{{ len 1 }}",
        "{{ index .LI 3 }}",
        "{{ index .LI -1 }}",
        '{{ index .LI "a" }}',
        "{{ index .M 1 }}",
        "{{ index .X 0 }}",
        "{{ slice .LI 2 1 }}",
        "{{ slice .LI 4 }}",
        "{{ slice .LI .N }}",
        "{{ slice .S 0 1 2 }}",
        "{{ slice .M 0 }}",
        '{{ "abc" | slice 1 }}',
        "{{ printf 1 }}",
        "{{ printf .Nope }}",
        "{{ currentDate 1 }}",
        "{{ call .S }}",
        "{{ not }}",
        "{{ 9223372036854775808 }}",
        '{{ template "absent" . }}',
        '{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" . }}',
    ],
)
def test_what_cannot_be_evaluated_fails_without_output(template):
    with pytest.raises(TemplateFailed, match=r"^template error: line 1: ") as failure:
        render("text " + template)
    assert not isinstance(failure.value, TemplateInvalid)


@pytest.mark.parametrize(
    "template", ["a\n\n{{ if }}", "a\n\n{{ .A.B }}", "{{ range 2 }}\n\n{{ .B }}{{ end }}", "{{ 1 |\n\n 2 }}"]
)
def test_errors_name_the_line(template):
    with pytest.raises(TemplateFailed) as failure:
        render(template)
    assert failure.value.detail["line"] == 3
