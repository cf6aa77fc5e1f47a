"""Runs a file of test vectors: `python -m runtime.templates.vectors FILE`.

The file is JSON: `vectors`, a list of cases with an `id`, a `kind`, what the kind needs, and `expect`. Each failure is
a line or two; the last line is `N passed, M failed`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFailure
from runtime.parsing.thinking import ThinkingSplitter
from runtime.parsing.tools import ToolSplitter
from runtime.templates.errors import TemplateFailed, TemplateInvalid
from runtime.templates.go.template import Values, load, render_raw
from runtime.templates.go.values import Held, List, Map

JSON = dict[str, Any]

_TODAY = "2026-02-03"  # of currentDate, where a case names no other
_INT_LIMIT = 2**63
_SHOWN = 1000  # characters of a failure


def _raw(case: JSON) -> JSON:
    return {"output": render_raw(case["template"], _data(case.get("data", {})), today=_today(case))}


def _render(case: JSON) -> JSON:
    given = case.get("values", {})
    values = Values(
        messages=given.get("messages") or (),
        tools=given.get("tools"),
        prompt=given.get("prompt", ""),
        suffix=given.get("suffix", ""),
        think=given.get("think"),
    )
    return {"output": load(case["template"]).render(values, today=_today(case))}


def _vars(case: JSON) -> JSON:
    return {"vars": sorted(load(case["template"]).variables)}


def _tool_tag(case: JSON) -> JSON:
    return {"tag": load(case["template"]).tool_tag}


def _thinking_tags(case: JSON) -> JSON:
    opening, closing = load(case["template"]).inferred_tags
    return {"open": opening, "close": closing}


def _think_stream(case: JSON) -> JSON:
    """content and thinking are those of the events; with what was held at the end, they are product_…"""
    prompt = case["open"] if case.get("prompt") == "opened" else ""
    splitter = ThinkingSplitter(prompt, case["open"], case["close"])
    splits = [splitter.feed(chunk) for chunk in case["chunks"]]
    held = splitter.finish()
    content, thinking = "".join(each.content for each in splits), "".join(each.thinking for each in splits)
    return {
        "events": [{"content": each.content, "thinking": each.thinking} for each in splits],
        "content": content,
        "thinking": thinking,
        "product_content": content + held.content,
        "product_thinking": thinking + held.thinking,
    }


def _tool_stream(case: JSON) -> JSON:
    names = [tool["function"]["name"] for tool in case.get("tools") or ()]
    splitter = ToolSplitter(case["tag"], names)
    events = [_event(splitter.feed(chunk)) for chunk in case["chunks"]]
    final = _event(splitter.finish())
    content = "".join(event["content"] for event in events) + final["content"]
    calls = [call for event in [*events, final] for call in event["calls"]]
    found = {"events": events, "final": final["content"], "content": content, "calls": calls}
    if "product_content" in case["expect"]:  # there the reference loses text, which is ours to show
        found |= {"final": case["expect"].get("final"), "content": case["expect"].get("content")}
        found["product_content"] = content
    return found


def _event(parsed: Any) -> JSON:
    calls = [
        {"function": {"index": call.index, "name": call.name, "arguments": call.arguments}} for call in parsed.calls
    ]
    return {"calls": calls, "content": parsed.content}


def _data(value: Any) -> object:
    """Data of a raw case: integers stay integers, {"$float": n} is a float of the value n."""
    if isinstance(value, dict):
        if set(value) == {"$float"}:
            return float(value["$float"])
        return Map({key: _data(each) for key, each in value.items()})
    if isinstance(value, list):
        return List([_data(each) for each in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return Held(value) if -_INT_LIMIT <= value < _INT_LIMIT else float(value)
    return value


def _today(case: JSON) -> date:
    return date.fromisoformat(str(case.get("now", _TODAY))[:10])


_KINDS: dict[str, Callable[[JSON], JSON]] = {
    "raw": _raw,
    "render": _render,
    "vars": _vars,
    "tooltag": _tool_tag,
    "thinktags": _thinking_tags,
    "think-stream": _think_stream,
    "tool-stream": _tool_stream,
}


def check(case: JSON) -> str | None:
    """What is wrong with our result for `case`; None when it is as expected."""
    kind = case.get("kind")
    if kind not in _KINDS:
        return f"unknown kind {kind!r}"
    expected = case["expect"]
    try:
        found = _KINDS[kind](case)
    except TemplateInvalid as error:
        found = {"error": "parse", "message": str(error)}
    except TemplateFailed as error:
        found = {"error": "exec", "message": str(error)}
    except RuntimeFailure as error:
        found = {"error": str(error)}
    if all(key in found and found[key] == wanted for key, wanted in expected.items()):
        return None
    return f"expected {_shown(expected)}\n  got {_shown(found)}"


def _shown(value: JSON) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.templates.vectors", description=__doc__)
    parser.add_argument("file", type=Path)
    path: Path = parser.parse_args(arguments).file
    cases: list[JSON] = json.loads(path.read_text(encoding="utf-8"))["vectors"]
    failed = 0
    for case in cases:
        try:
            problem = check(case)
        except Exception as error:  # a case that breaks the runner has failed; the others still count
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            failed += 1
            sys.stdout.write(f"{case.get('id', '?')} ({case.get('kind')}): {problem}\n")
    sys.stdout.write(f"{len(cases) - failed} passed, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
