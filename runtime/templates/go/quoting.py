"""Text in quotes, and text escaped for other languages. Source: Go's documentation of strconv, text/template."""

from __future__ import annotations

import re
from urllib.parse import quote_plus

from runtime.templates.go.values import encoded

_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
_NOT_RAW = re.compile("[\x00-\x08\x0a-\x1f\x7f`\ufeff\ud800-\udfff]")
_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})
_JS_SPECIAL = re.compile("[\\\\'\"<>&=\x00-\x1f]|[^\x00-\x7f]")
_JS_SHORT = {"\\": "\\\\", "'": "\\'", '"': '\\"'}


def quoted(text: str, quote: str = '"', *, is_ascii: bool = False) -> str:
    """`text` as a Go constant."""
    plain = text.replace("\\", "").replace(quote, "")
    if plain.isprintable() and (plain.isascii() or not is_ascii) and len(plain) == len(text):
        return f"{quote}{text}{quote}"
    return quote + "".join(_quoted_character(each, quote, is_ascii) for each in text) + quote


def _quoted_character(char: str, quote: str, is_ascii: bool) -> str:
    if char == quote:
        return "\\" + char
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char.isprintable() and (code < 0x80 or not is_ascii):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_be_raw(text: str) -> bool:
    """Whether `text` may stand between backquotes."""
    return not _NOT_RAW.search(text)


def html(text: str) -> str:
    return text.translate(_HTML)


def js(text: str) -> str:
    return _JS_SPECIAL.sub(_js_character, text)


def _js_character(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    if char in _JS_SHORT:
        return _JS_SHORT[char]
    if code < 0x80:
        return f"\\u{code:04X}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8 is read as U+FFFD, which is printable
        return char
    return char if char.isprintable() else f"\\u{code:04X}"


def url_query(text: str) -> str:
    return quote_plus(encoded(text))
