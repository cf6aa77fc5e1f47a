"""Templates come from strangers: each of these asks for more than a template may have, and is refused soon."""

from __future__ import annotations

import time

import pytest

from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go.template import GoTemplate, render_raw
from runtime.templates.go.values import List, Map

PATIENCE_S = 10.0  # an idle machine takes a tenth of it at most
DATA = Map({"L": List([str(number) for number in range(1000)]), "M": Map({str(number): 1 for number in range(1000)})})

EXHAUSTING = {
    "steps": "{{ range 10000000 }}{{ end }}",
    "nested loops": "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}",
    "work": "{{ range 900000 }}{{ $x := and 1 1 1 1 1 1 }}{{ end }}",
    "doubling": '{{ $x := "ab" }}{{ range 100 }}{{ $x = printf "%s%s" $x $x }}{{ end }}',
    "doubling bytes": '{{ $x := "\\xff" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}',
    "escaping": '{{ $x := "<" }}{{ range 100 }}{{ $x = html $x $x }}{{ end }}',
    "quoting": '{{ $x := "\\x01" }}{{ range 100 }}{{ $x = printf "%q" $x }}{{ end }}',
    "many strings": '{{ range 1000000 }}{{ $x := printf "%999999d" 1 }}{{ end }}',
    "output": '{{ range 1000000 }}{{ printf "%999999d" 1 }}{{ end }}',
    "output of text": "{{ range 1000000 }}" + "x" * 100 + "{{ end }}",
    "width": '{{ printf "%9999999d" 1 }}',
    "precision": '{{ range 1000000 }}{{ $x := printf "%.999999g" 1e-300 }}{{ end }}',
    "long strings": '{{ $x := printf "é%999999d" 1 }}{{ range 1000000 }}{{ $y := len $x }}{{ end }}',
    "comparing": '{{ $x := printf "é%999999d" 1 }}{{ range 1000000 }}{{ $y := lt $x $x }}{{ end }}',
    "indexes in formats": '{{ $f := "%[" }}{{ range 18 }}{{ $f = print $f $f }}{{ end }}{{ printf $f 1 }}',
    "recursion": '{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}',
    "branching calls": '{{ define "x" }}{{ range 10 }}{{ template "x" . }}{{ end }}{{ end }}{{ template "x" . }}',
    "printing data": "{{ range 1000000 }}{{ $x := json $.L }}{{ $y := print $.M }}{{ end }}",
    "sorting": "{{ range 1000000 }}{{ range $.M }}{{ break }}{{ end }}{{ end }}",
}


@pytest.mark.parametrize("template", EXHAUSTING.values(), ids=EXHAUSTING)
def test_more_than_a_template_may_have_is_refused_soon(template):
    started = time.monotonic()
    with pytest.raises(TemplateFailed) as failure:
        render_raw(template, DATA)
    assert failure.value.detail["exhausted"] is True
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize(
    "template",
    [
        "x" * (1024**2 + 1),
        "{{" + "(" * 100_000 + "1" + ")" * 100_000 + "}}",
        "{{" + "(" * 101 + "1" + ")" * 101 + "}}",
        "{{.}}" * 200_000,
        "{{" * 500_000,
        "{{/*" * 250_000,
        '{{"' + "a" * 1_000_000,
        "{{" + "1" * 1_000_000 + "}}",
    ],
    ids=lambda template: template[:6],
)
def test_too_large_and_too_deep_templates_are_invalid(template):
    started = time.monotonic()
    with pytest.raises(TemplateInvalid):
        GoTemplate(template)
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize(
    "template",
    [
        "{{if 1}}" * 10_000 + "x{{.Response}}" + "{{end}}" * 10_000,
        "{{if 0}}" + "{{else if 0}}" * 10_000 + "{{else}}x{{end}}{{.Response}}",
        "{{range 1}}" * 10_000 + "x{{.Thinking}}{{.Response}}" + "{{end}}" * 10_000,
    ],
    ids=lambda template: template[:10],
)
def test_blocks_nest_without_bound(template):
    loaded = GoTemplate(template)
    assert "response" in loaded.variables
    assert loaded.tool_tag == "{"
    assert loaded.thinking_tags is None
    assert render_raw(template.replace("{{.Thinking}}", "").replace("{{.Response}}", ""), DATA) == "x"


def test_a_million_steps_and_a_thousand_calls_are_allowed():
    assert render_raw("{{ range 1000000 }}{{ end }}x", DATA) == "x"
    deep = '{{ define "d" }}{{ if . }}{{ template "d" (slice . 1) }}{{ end }}{{ end }}{{ template "d" (slice .L 1) }}x'
    assert render_raw(deep, DATA) == "x"
