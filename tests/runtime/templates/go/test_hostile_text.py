"""Whatever the text, loading and rendering it either works or is refused as the contract says."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go.lexer import Kind, Lexer
from runtime.templates.go.template import GoTemplate, Values

PIECES = (
    "{{ }} {{- -}} if else end range with define template block break $x := = , | ( ) . .A .Messages .Response "
    """ "a" " ` ' \\ 1 1e9 printf "%*[1]d" slice index eq len json nil true /* */ é ² \ud800 \0 """
)
FRAGMENTS = st.sampled_from([*PIECES.split(" "), " ", "\n"])
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=40).map("".join), st.lists(FRAGMENTS).map(" ".join))
SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()
MESSAGES = [{"role": "user", "content": "hé"}, {"role": "assistant", "content": "ok"}]


@given(TEXTS)
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_template_or_invalid(text):
    with contextlib.suppress(TemplateInvalid):
        template = GoTemplate(text)
        assert template.tool_tag
        assert template.capabilities is not None
        with contextlib.suppress(TemplateFailed):
            template.render(Values(messages=MESSAGES)).encode()


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_tokens_come_in_order_and_end_once(text):
    with contextlib.suppress(TemplateInvalid):
        tokens = Lexer(text).tokens()
        assert [token.kind for token in tokens].count(Kind.END) == 1
        assert tokens[-1].kind is Kind.END
        assert [token.line for token in tokens] == sorted(token.line for token in tokens)


@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)))
@settings(max_examples=100, deadline=None)
def test_any_arguments_can_be_printed(arguments):
    call = {"function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    template = GoTemplate(
        '{{ range .Messages }}{{ range .ToolCalls }}{{ . }}{{ printf "%q %x %#v" . . . }}{{ end }}{{ end }}'
    )
    assert template.render(Values(messages=[message]))
