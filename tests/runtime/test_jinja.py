"""Chat templates: what honest ones may use, and what hostile ones get."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from runtime.templates.chat import CHATML, ChatTemplate
from runtime.templates.errors import TemplateFailed
from runtime.templates.renderer import render

USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("template", "variables", "expected"),
    [
        ("{{ x | tojson }}", {"x": {"b": "<é>&", "a": 1}}, '{"b": "<é>&", "a": 1}'),
        ("{{ x | tojson(indent=2) }}", {"x": [1]}, "[\n  1\n]"),
        ("{{ x | tojson(separators=(',', ':'), sort_keys=true) }}", {"x": {"b": 1, "a": 2}}, '{"a":2,"b":1}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", {}, "01"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", {}, "02"),
        ("{% generation %}said{% endgeneration %}", {}, "said"),
        ("  {% if true %}\nx\n  {% endif %}\ny", {}, "x\ny"),
        (
            "{% set ns = namespace(n=0) %}{% for m in x %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            {"x": [1, 2]},
            "2",
        ),
        ("{{ x.split('</think>')[-1].lstrip('\\n') }}", {"x": "a</think>\nb"}, "b"),
        ("{{ '<b>' }}", {}, "<b>"),
        ("{{ missing }}|{{ missing is defined }}", {}, "|False"),
        ("{{ strftime_now('%Y') | length }}", {}, "4"),
    ],
)
def test_templates_have_what_hugging_face_gives_them(template: str, variables: dict[str, Any], expected: str) -> None:
    assert render(template, variables) == expected


def test_raise_exception_refuses_in_the_words_of_the_template() -> None:
    with pytest.raises(TemplateFailed, match="template error: roles must alternate, really"):
        render("{{ raise_exception('roles must alternate,\nreally') }}", {})


HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ render.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ range.__self__.system('id') }}",
    "{{ ''|attr('__class__')|attr('__mro__')|list }}{{ 1/0 }}",
    "{{ '{0.__class__.__base__}'.format(1)[99999] + 1 }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ 'x' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ 'x'.ljust(10**10) }}",
    "{{ range(10**9) | list }}",
    "{{ 'x' | center(10**10) }}",
    "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{{ messages.append(1) }}",
    "{{ messages.clear() }}",
    "{{ lipsum.__globals__ }}",
    "{% if %}",
    "{{ 1/0 }}",
    "x" * (1024**2 + 1),
]


@pytest.mark.parametrize(
    "template", ["{{ strftime_now.__code__ }}", "{{ cycler }}", "{{ ''|attr('__class__') }}", "{{ x.__init__ }}"]
)
def test_what_the_sandbox_hides_reads_as_undefined(template: str) -> None:
    assert render(template, {"x": []}) == ""


@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: template[:40])
def test_hostile_templates_fail_in_one_line(template: str) -> None:
    with pytest.raises(TemplateFailed) as refused:
        render(template, {"messages": USER}, timeout_s=5)

    assert str(refused.value).startswith("template error: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    ],
)
def test_endless_templates_end_at_the_deadline_and_harm_no_other(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateFailed):
        render(template, {}, timeout_s=0.5)

    assert time.monotonic() - started < 3
    assert render("{{ 1 + 1 }}", {}) == "2"


def test_the_default_is_chatml() -> None:
    messages = [{"role": "system", "content": "be brief"}, *USER]

    text = ChatTemplate(CHATML).render(messages, [], None)

    assert text == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )  # fmt: skip


def test_begin_and_end_tokens_are_passed() -> None:
    assert ChatTemplate("{{ bos_token }}|{{ eos_token }}", "<s>", "</s>").render(USER, [], None) == "<s>|</s>"


@pytest.mark.parametrize(
    ("think", "expected"), [(None, "unset"), (True, "True"), (False, "False"), ("low", "True low")]
)
def test_think_reaches_the_template(think: bool | str | None, expected: str) -> None:
    template = ChatTemplate(
        "{% if enable_thinking is defined %}{{ enable_thinking }}{% else %}unset{% endif %}"
        "{% if reasoning_effort %} {{ reasoning_effort }}{% endif %}"
    )

    assert template.render(USER, [], think) == expected


def call_message(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "function": {"index": 0, "name": "f", "arguments": arguments}}],
    }


@pytest.mark.parametrize(
    "printed", ["arguments | tojson", "arguments"], ids=["wants arguments as a mapping", "wants arguments as text"]
)
def test_tool_arguments_come_out_as_json_for_either_kind_of_template(printed: str) -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function."
        + printed
        + " }}{% endfor %}{% endfor %}"
    )

    text = template.render([*USER, call_message({"b": "x", "a": 1}), {"role": "tool", "content": "2"}], [], None)

    assert json.loads(text) == {"b": "x", "a": 1}


def test_content_is_given_in_parts_to_templates_that_insist() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% for part in m.content %}{{ part.text.strip() }}"
        "{% if part.text is undefined %}{{ raise_exception('parts') }}{% endif %}{% endfor %}{% endfor %}"
    )

    assert template.render(USER, [], None) == "hi"


def test_the_system_text_is_folded_into_the_user_turn_where_no_system_role_exists() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.role }}:{{ m.content }}{% endfor %}"
    )

    assert template.render([{"role": "system", "content": "S"}, *USER], [], None) == "user:S\n\nhi"


def test_a_beginning_of_the_answer_is_continued() -> None:
    text = ChatTemplate(CHATML).render([*USER, {"role": "assistant", "content": "Sure, "}], [], None)

    assert text.endswith("<|im_start|>assistant\nSure, ")


def test_tools_reach_the_template_as_given() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]

    assert ChatTemplate("{{ tools | tojson }}").render(USER, tools, None) == json.dumps(tools)
    assert ChatTemplate("{{ tools is none }}").render(USER, [], None) == "True"
