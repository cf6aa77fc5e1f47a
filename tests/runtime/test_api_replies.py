"""Bodies as bytes: what stands between two line feeds is one object to every client."""

from __future__ import annotations

import json

import httpx
import pytest

from runtime.api.replies import encode
from runtime.api.sse import frame

BREAKS = "\n \r \v \f \x1c \x1d \x1e \x85 \u2028 \u2029"  # where Python's `splitlines` ends a line
SAID = {"message": {"content": f"{BREAKS} \u00e9 \U0001f600"}}


@pytest.mark.parametrize(
    "written", [encode(SAID) + b"\n", frame(SAID, "said").split(b"data: ")[1]], ids=["line", "event"]
)
def test_an_object_is_one_line_to_clients_that_break_lines_as_python_does(written: bytes) -> None:
    line, *rest = httpx.Response(200, content=written).iter_lines()

    assert json.loads(line) == SAID
    assert not any(rest)


def test_text_of_other_languages_is_not_escaped() -> None:
    assert encode({"a": "\u00e9\U0001f600"}) == '{"a":"\u00e9\U0001f600"}'.encode()
