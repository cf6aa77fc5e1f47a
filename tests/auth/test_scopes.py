from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.errors import RequestRefused
from auth.scopes import ACTIONS, MAX_SCOPES, MAX_TEXT, Scope, format_scopes, parse_scopes

NAMES = st.from_regex(r"[a-z0-9.:/_-]{1,40}", fullmatch=True)
SCOPES = st.builds(
    Scope.of, st.sampled_from(["repository", "registry"]), NAMES, st.sets(st.sampled_from(sorted(ACTIONS)))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("repository:a/b:pull", "repository:a/b:pull"),
        ("repository:a/b:push,pull", "repository:a/b:pull,push"),
        ("repository:a/b:pull,pull,fly,pull", "repository:a/b:pull"),
        ("repository(plugin):a/b:pull", "repository:a/b:pull"),
        ("repository:host:5000/a/b:pull", "repository:host:5000/a/b:pull"),
        ("registry:catalog:*", "registry:catalog:*"),
        ("repository:a/b:", "repository:a/b:"),
        ("", None),
        ("-", None),
        ("repository", None),
        ("repository:a/b", None),
        ("repository::pull", None),
        ("image:a/b:pull", None),
        ("repository(plugin:a/b:pull", None),
        ("Repository:a/b:pull", None),
    ],
)
def test_a_scope_is_cut_at_its_first_and_last_colon(text, expected):
    scope = Scope.parse(text)

    assert (str(scope) if scope else None) == expected


def test_scopes_come_in_parameters_and_within_them():
    scopes = parse_scopes(["repository:b:pull repository:a:push", "repository:b:push", "-"])

    assert format_scopes(scopes) == "repository:a:push repository:b:pull,push"


@pytest.mark.parametrize("texts", [["x"] * (MAX_SCOPES + 1), [" " * MAX_SCOPES], ["x" * (MAX_TEXT + 1)]])
def test_too_many_scopes_are_refused(texts):
    with pytest.raises(RequestRefused):
        parse_scopes(texts)


@given(SCOPES)
def test_what_is_written_is_read_back(scope: Scope):
    assert Scope.parse(str(scope)) == scope
    assert Scope.from_json(scope.to_json()) == scope


@given(st.lists(SCOPES, max_size=MAX_SCOPES))
def test_reading_is_idempotent(scopes: list[Scope]):
    once = parse_scopes([format_scopes(scopes)])

    assert parse_scopes([format_scopes(once)]) == once
    assert len({(each.type, each.name) for each in once}) == len(once)


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str):
    scope = Scope.parse(text)

    assert scope is None or set(scope.actions) <= ACTIONS


@pytest.mark.parametrize(
    "entry", [None, 3, "repository:a:pull", [], {}, {"type": "repository", "name": "a"}, {"type": 1}]
)
def test_a_foreign_access_entry_is_no_scope(entry):
    assert Scope.from_json(entry) is None
