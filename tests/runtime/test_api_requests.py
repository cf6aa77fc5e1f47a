"""How requests are read: bodies, durations, names. Source: the Ollama API, "Conventions"."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from runtime.api.disconnect import watcher
from runtime.api.durations import local_time, parse_keep_alive, utc_now
from runtime.api.errors import Refused
from runtime.api.names import CLOUD_DISABLED, parse_name
from runtime.api.requests import Body, read_body

HOUR = 3600.0


def body_of(data: bytes, content_type: str = "application/x-www-form-urlencoded", limit: int = 1000) -> Body:
    with Flask(__name__).test_request_context("/", method="POST", data=data, content_type=content_type):
        return read_body(limit)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0.0),
        (5, 5.0),
        (1.5, 1.5),
        (-1, -1.0),
        (-0.5, -1.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("5m", 300.0),
        ("5m0s", 300.0),
        ("1h30m", 1.5 * HOUR),
        ("100ms", 0.1),
        ("1.5h", 1.5 * HOUR),
        (".5s", 0.5),
        ("-1m", -1.0),
        ("+1m", 60.0),
        ("2562047h47m16.854775807s", (2**63 - 1) / 1e9),
        (1e300, (2**63 - 1) / 1e9),
        (10**400, (2**63 - 1) / 1e9),
        (-(10**400), -1.0),
    ],
)
def test_keep_alive_is_seconds_or_a_go_duration(value: object, expected: float | None) -> None:
    found = parse_keep_alive(value)

    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("5y", 'time: unknown unit "y" in duration "5y"'),
        ("3000000h", 'time: invalid duration "3000000h"'),
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
    ],
)
def test_a_bad_keep_alive_is_refused(value: object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_keep_alive(value)

    assert (refused.value.status, str(refused.value)) == (400, message)


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.integers().map(lambda n: n * 10**400),
        st.floats(),
        st.booleans(),
        st.lists(st.text()),
    )
)
def test_any_keep_alive_is_a_bounded_number_or_a_refusal(value: object) -> None:
    try:
        seconds = parse_keep_alive(value)
    except Refused:
        return
    assert seconds is not None
    assert -1 <= seconds <= 2**63 / 1e9


def test_times_carry_an_offset() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", utc_now())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*[+-]\d\d:\d\d", local_time(1.5))


@pytest.mark.parametrize("forever", [float("inf"), 1e300, float("nan")])
def test_forever_is_centuries_ahead(forever: float) -> None:
    assert int(local_time(forever)[:4]) > time.localtime().tm_year + 100


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("llama3", "library/llama3", "latest"),
        ("LLaMA3:8B", "library/llama3", "8B"),
        ("ns/m:t", "ns/m", "t"),
        ("hf.co/org/m", "hf.co/org/m", "latest"),
        ("m:8b:local", "library/m", "8b"),
        ("m:local", "library/m", "latest"),
        ("  m ", "library/m", "latest"),
    ],
)
def test_names_find_their_repository_and_tag(text: str, repository: str, tag: str) -> None:
    name = parse_name(text)

    assert (str(name.repository), str(name.tag)) == (repository, tag)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("m:", 400, "invalid model name"),
        ("/m", 400, "invalid model name"),
        ("a/b/c/d", 400, "invalid model name"),
        ("m@sha256:00", 400, "invalid model name"),
        ("m:cloud", 403, CLOUD_DISABLED),
        ("m:20b-cloud", 403, CLOUD_DISABLED),
        ("m:8b:Cloud", 403, CLOUD_DISABLED),
        (" " * 1024 + "m", 400, "invalid model name"),
        ("m" * 2000 + ":cloud:local", 400, "invalid model name"),
        ("m:cloud:local", 400, 'use either :local or :cloud, not both: "m:cloud:local"'),
    ],
)
def test_other_names_are_refused(text: str, status: int, message: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_name(text)

    assert (refused.value.status, str(refused.value)) == (status, message)


@pytest.mark.parametrize(
    ("data", "model"),
    [
        (b'{"model":"x"}', "x"),
        (b'  {"Model":"x"}', "x"),
        (b'{"model":"a","model":"x"}', "x"),
        (b'{"model":"x"} trailing', "x"),
        (b'{"model":null}', ""),
        (b"null", ""),
        (b"{}", ""),
        (b'{"model":"\\ud800"}', "\ufffd"),
        (b'{"model":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"model":"\xff"}', "\ufffd"),
    ],
)
def test_bodies_are_read_leniently(data: bytes, model: str) -> None:
    assert body_of(data).text("model") == model


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 400, "missing request body"),
        (b" \n", 400, "missing request body"),
        (b"{", 400, "the request body is not valid JSON"),
        (b'{"a":NaN}', 400, "the request body is not valid JSON"),
        (b"[" * 100_000, 400, "the request body is not valid JSON"),
        (b"[]", 400, "the request body must be a JSON object"),
        (b'"x"', 400, "the request body must be a JSON object"),
        (b'{"x":"' + b"x" * 200_001 + b'"}', 413, "the request body is larger than 200000 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_bodies_are_refused(data: bytes, status: int, message: str) -> None:
    with pytest.raises(Refused) as refused:
        body_of(data, limit=200_000)

    assert (refused.value.status, str(refused.value)) == (status, message)


@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.text("x"),
        lambda body: body.flag("x", default=True),
        lambda body: body.integer("x"),
        lambda body: body.mapping("x"),
        lambda body: body.objects("x"),
        lambda body: body.integers("x"),
    ],
)
def test_fields_of_another_type_are_refused(read: Callable[[Body], object]) -> None:
    with pytest.raises(Refused) as refused:
        read(Body({"x": 1.5}))

    assert refused.value.status == 400
    read(Body({"x": None}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("xhigh", 'invalid think value: "xhigh" (must be "high", "medium", "low", "max", true, or false)'),
        (1, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ],
)
def test_think_takes_booleans_and_levels_only(value: object, message: str) -> None:
    with pytest.raises(Refused, match=re.escape(message)):
        Body({"think": value}).think()

    assert Body({"think": "max"}).think() == "max"


def test_messages_with_content_in_parts_are_refused() -> None:
    with pytest.raises(Refused):
        Body({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}).messages()


def test_messages_and_their_calls_are_read_in_any_case() -> None:
    call = {"ID": "c", "Function": {"Name": "f", "Arguments": {"B": 1, "a": 2}}, "type": "function"}

    (message,) = Body({"messages": [{"Role": "assistant", "tool_calls": [call]}]}).messages()

    assert message["role"] == "assistant"
    assert message["tool_calls"] == [{"id": "c", "function": {"index": 0, "name": "f", "arguments": {"B": 1, "a": 2}}}]


def test_a_closed_connection_is_noticed_and_a_next_request_is_not_consumed() -> None:
    ours, theirs = socket.socketpair()
    is_gone = watcher({"gunicorn.socket": ours})
    with ours:
        assert not is_gone()
        theirs.send(b"GET")
        assert not is_gone()
        theirs.close()
        assert ours.recv(3) == b"GET"
        assert is_gone()
    assert is_gone()


def test_without_a_socket_the_client_counts_as_present() -> None:
    assert not watcher({})()
