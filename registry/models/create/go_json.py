"""JSON to the byte as the reference writes it, so that what is made here has the digest of what is pushed from there.

Source: the documentation of Go's encoding/json, "Marshal".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from runtime.templates.go.numbers import shortest

_ESCAPED: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def go_json(value: object) -> str:
    """Compact; members in their own order. `value` is JSON that has been parsed: texts, finite numbers, no cycles."""
    match value:
        case Mapping():
            return f"{{{','.join(f'{_text(str(key))}:{go_json(each)}' for key, each in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(go_json, value))}]"
        case str():
            return _text(value)
        case float():
            return _number(value)
    return json.dumps(value)


def in_order(value: Any) -> Any:
    """The same with the members of every object sorted by name, as a Go map is written."""
    if isinstance(value, Mapping):
        return {key: in_order(value[key]) for key in sorted(value, key=str.encode)}
    return [in_order(each) for each in value] if isinstance(value, list) else value


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)


def _number(value: float) -> str:
    """Plain digits where numbers have a common size, else an exponent without a leading zero."""
    digits = shortest(value)
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return digits.plain()
    return re.sub(r"e-0(\d)$", r"e-\1", digits.scientific())
