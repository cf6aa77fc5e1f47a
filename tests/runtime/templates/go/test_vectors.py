"""The runner of vector files."""

from __future__ import annotations

import json

from runtime.templates.vectors import main


def case(name, kind, expect, **given):
    return {"id": name, "kind": kind, "expect": expect, **given}


QUESTION = {"messages": [{"role": "user", "content": "q"}]}
CALL = {"function": {"index": 0, "name": "f", "arguments": {}}}
PASSING = [
    case("int", "raw", {"output": "2true"}, template="{{ .N }}{{ eq .F 2.0 }}", data={"N": 2, "F": {"$float": 2}}),
    case("parse", "raw", {"error": "parse"}, template="{{"),
    case("exec", "raw", {"error": "exec"}, template="{{ .A.B }}", data={}),
    case("date", "render", {"output": "2026-03-01"}, template="{{ currentDate }}", values={}, now="2026-03-01"),
    case("render", "render", {"output": "q"}, template="{{ .Prompt }}", values=QUESTION),
    case("vars", "vars", {"vars": ["a", "response"]}, template="{{ .A }}"),
    case("tag", "tooltag", {"tag": "{"}, template="x"),
    case("tags", "thinktags", {"open": "", "close": ""}, template="x"),
    case(
        "think",
        "think-stream",
        {"events": [{"content": "b", "thinking": "a"}], "content": "b", "thinking": "a"},
        open="<t>",
        close="</t>",
        prompt="opened",
        chunks=["a</t>b"],
    ),
    case(
        "tool",
        "tool-stream",
        {"content": "", "calls": [CALL]},
        tag="<c>",
        tools=[{"function": {"name": "f"}}],
        chunks=['<c>{"name": "f", "arguments": {}}'],
    ),
]


def run(tmp_path, vectors):
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps({"vectors": vectors}), encoding="utf-8")
    return main([str(path)])


def test_every_kind_passes(tmp_path, capsys):
    assert run(tmp_path, PASSING) == 0
    assert capsys.readouterr().out == f"{len(PASSING)} passed, 0 failed\n"


def test_failures_are_shown_and_unknown_kinds_fail(tmp_path, capsys):
    wrong = PASSING[0] | {"id": "wrong", "expect": {"output": "other"}}
    assert run(tmp_path, [*PASSING, wrong, {"id": "odd", "kind": "odd", "expect": {}}]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'wrong (raw): expected {"output": "other"}'
    assert lines[1] == '  got {"output": "2true"}'
    assert lines[2].startswith("odd (odd): unknown kind")
    assert lines[-1] == f"{len(PASSING)} passed, 2 failed"
