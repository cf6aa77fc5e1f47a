"""Pages of a list: `n`, `last` and the Link to what follows. Spec: "Listing Tags"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from flask import request

from registry.errors import PaginationInvalid


@dataclass(frozen=True, slots=True)
class Page:
    """At most `n` entries that come after `last`."""

    n: int
    last: str | None


def requested_page(*, default: int, most: int) -> Page:
    """The page the query asks for; `n` over `most` is cut down to it. Raises PaginationInvalid."""
    text = request.args.get("n")
    if text is not None and not (text.isascii() and text.isdecimal()):
        raise PaginationInvalid("n must be a whole number that is not negative", n=text[:64])
    n = default if text is None else _bounded(text, most)
    return Page(n, request.args.get("last"))


def _bounded(digits: str, most: int) -> int:
    """The number that `digits` spell, or `most` if that is less; there may be thousands, which `int` refuses."""
    significant = digits.lstrip("0") or "0"
    return most if len(significant) > len(str(most)) else min(int(significant), most)


def link_to_next(path: str, page: Page, last: str) -> dict[str, str]:
    """The Link header of a page that ends with `last` and is not the final one."""
    return {"Link": next_link(path, {"n": str(page.n), "last": last})}


def next_link(path: str, query: Mapping[str, str]) -> str:
    """The value of a Link header to the page that `query` asks for."""
    return f'<{quote(path)}?{urlencode(query, quote_via=quote)}>; rel="next"'
