"""`tonnage audit`: what was changed, refused and read; and the rows that commands themselves leave."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import click

from auth.audit import AuditTrail, Event, What
from registry.cli.serve import config_of, opened_database, with_config

_SPAN = re.compile(r"(?P<count>[1-9][0-9]{0,8})(?P<unit>[smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ROWS_AT_ONCE = 200
_HEAD = ("TIME", "WHAT", "WHO", "OBJECT", "FROM", "TIMES", "DETAIL")


@click.command()
@click.option("--since", metavar="SPAN", default="24h", show_default=True, help="How far back: 90s, 30m, 24h, 7d, 4w.")
@click.option("--who", metavar="WHO", help="key:SHA256:…, token:NAME, cli:USER or anonymous.")
@click.option("--what", type=click.Choice([str(each) for each in What]), help="One kind of row.")
@click.option("--repository", metavar="NAME", help="A repository, or a namespace with all of its repositories.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_config
def audit(
    since: str, who: str | None, what: str | None, repository: str | None, as_json: bool, **flags: object
) -> None:
    """Show who changed what, was refused, or read what is private; the oldest first."""
    started = time.time() - span_s(since)
    with opened_database(config_of(**flags)) as database:
        events = AuditTrail(database).events(
            since=started, who=who, what=None if what is None else What(what), repository=repository
        )
        for line in _json_lines(events) if as_json else _table_lines(events):
            click.echo(line)


def span_s(text: str) -> float:
    """The seconds of `24h`."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a span such as 90s, 30m, 24h, 7d or 4w", param_hint="--since")
    return int(match["count"]) * _UNITS_S[match["unit"]]


def time_text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json_lines(events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        yield json.dumps(
            {
                "time": time_text(event.at),
                "who": event.who,
                "what": str(event.what),
                "namespace": event.namespace,
                "repository": event.repository,
                "reference": event.reference,
                "detail": event.detail,
                "from": event.address,
                "request_id": event.request_id,
                "count": event.count,
            }
        )


def _table_lines(events: Iterator[Event]) -> Iterator[str]:
    """Columns as wide as their widest cell so far: all rows are never in memory."""
    widths = [len(each) for each in _HEAD[:-1]]
    rows: list[Sequence[str]] = [_HEAD]
    while rows:
        rows.extend(_cells(event) for event in islice(events, _ROWS_AT_ONCE))
        widths = [max(width, *(len(row[column]) for row in rows)) for column, width in enumerate(widths)]
        for row in rows:
            padded = (cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
            yield "  ".join(padded).rstrip()
        rows = [_cells(event) for event in islice(events, 1)]


def _cells(event: Event) -> Sequence[str]:
    place = event.repository or event.namespace or ""
    separator = "@" if ":" in (event.reference or "") else ":"
    thing = separator.join(part for part in (place, event.reference) if part)
    origin, detail = event.address or "-", event.detail or ""
    return time_text(event.at), str(event.what), event.who, thing or "-", origin, str(event.count), detail
