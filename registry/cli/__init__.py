"""The `tonnage` command."""

from __future__ import annotations

import sys

import click

from registry.cli import admin, create, models, running, serve, store, transfer


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tonnage", prog_name="tonnage")
def group() -> None:
    """A private home for model weights: store, mirror and run them from one server."""


for part in (serve, admin, transfer, models, running, create, store):
    part.register(group)


def main() -> None:
    """The console script: one line and status 1 for what fails, 2 for wrong usage, no traceback for either."""
    try:
        status = group.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        print(f"tonnage: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
