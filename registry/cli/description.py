"""A model described on a terminal, in the words and places that `ollama` users know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from registry.remotes.text import one_line, printable

JSON = dict[str, Any]
_MOST_LINES: Final = 2  # of a licence or a system message, unless everything is asked for
_MOST_ROWS: Final = 100_000


def description(shown: JSON, *, is_whole: bool) -> str:
    """What `/api/show` answered, as sections of rows; is_whole: with all metadata, tensors and lines."""
    sections = (
        ("Model", _facts(shown)),
        ("Capabilities", [(item,) for item in _list(shown, "capabilities")]),
        ("Projector", _projector(shown)),
        ("Parameters", [tuple(line.split(None, 1)) for line in _lines(shown, "parameters")]),
        ("Metadata", _metadata(shown) if is_whole else []),
        ("Tensors", _tensors(shown) if is_whole else []),
        ("System", _text(shown, "system", is_whole=is_whole)),
        ("License", _text(shown, "license", is_whole=is_whole)),
    )
    return "\n\n".join("\n".join(_section(title, rows)) for title, rows in sections if rows)


def _section(title: str, rows: Sequence[Sequence[object]]) -> Iterator[str]:
    cells = [[one_line(str(cell), 1000) for cell in row] for row in rows[:_MOST_ROWS]]
    widths = [max(len(row[column]) for row in cells if len(row) > column) for column in range(max(map(len, cells)))]
    yield f"  {title}"
    for row in cells:
        line = "    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        yield f"    {line}".rstrip()


def _facts(shown: JSON) -> list[tuple[str, object]]:
    details, info = _object(shown, "details"), _object(shown, "model_info")
    arch = info.get("general.architecture") or details.get("family")
    found = (
        ("architecture", arch),
        ("parameters", details.get("parameter_size") or info.get("general.parameter_count")),
        ("context length", info.get(f"{arch}.context_length")),
        ("embedding length", info.get(f"{arch}.embedding_length")),
        ("quantization", details.get("quantization_level")),
        ("requires", shown.get("requires")),
    )
    return [(key, value) for key, value in found if value]


def _projector(shown: JSON) -> list[tuple[str, object]]:
    info = _object(shown, "projector_info")
    arch = info.get("general.architecture")
    found = (
        ("architecture", arch),
        ("parameters", info.get("general.parameter_count")),
        ("embedding length", info.get(f"{arch}.vision.embedding_length")),
        ("dimensions", info.get(f"{arch}.vision.projection_dim")),
    )
    return [(key, value) for key, value in found if value]


def _metadata(shown: JSON) -> list[tuple[str, str]]:
    return [(key, _short(value)) for key, value in sorted(_object(shown, "model_info").items())]


def _short(value: object) -> str:
    """A long array by its first items and its length."""
    if isinstance(value, list) and len(value) > 3:
        return f"{json.dumps(value[:3], ensure_ascii=False)[:-1]}, …] ({len(value)})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tensors(shown: JSON) -> list[tuple[object, ...]]:
    tensors = [each for each in _list(shown, "tensors") if isinstance(each, dict)]
    return [(each.get("name", ""), each.get("type", ""), json.dumps(each.get("shape"))) for each in tensors]


def _text(shown: JSON, key: str, *, is_whole: bool) -> list[tuple[str]]:
    lines = _lines(shown, key)
    kept = lines if is_whole else lines[:_MOST_LINES]
    return [(line,) for line in kept] + ([("...",)] if len(kept) < len(lines) else [])


def _lines(shown: JSON, key: str) -> list[str]:
    text = shown.get(key)
    return [line for line in printable(text).splitlines() if line.strip()] if isinstance(text, str) else []


def _list(shown: JSON, key: str) -> list[Any]:
    value = shown.get(key)
    return value if isinstance(value, list) else []


def _object(shown: JSON, key: str) -> JSON:
    value = shown.get(key)
    return value if isinstance(value, dict) else {}
