"""The `tonnage` command."""

from __future__ import annotations

import sys
from importlib import import_module
from types import MappingProxyType
from typing import Final

import click

# By the modules of this folder: a command that only speaks to a server does not wait for all that a server is made of.
COMMANDS: Final = MappingProxyType(
    {
        "serve": "serve", "migrate": "serve", "doctor": "serve",
        "namespace": "admin", "key": "admin", "token": "admin", "audit": "audit",
        "push": "transfer", "pull": "transfer",
        "list": "models", "show": "models", "cp": "models", "rm": "models",
        "ps": "running", "run": "running", "stop": "running",
        "create": "create",
        "mirror": "mirror",
        "gc": "store", "scrub": "store",
        "export": "carry", "import": "carry", "inventory": "carry",
        "import-ollama": "import_ollama",
    }
)  # fmt: skip
_NAMED_OTHERWISE: Final = MappingProxyType(
    {"list": "list_models", "import": "import_models", "import-ollama": "import_ollama"}
)


class _Commands(click.Group):
    """Commands whose modules are loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"registry.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, _NAMED_OTHERWISE.get(cmd_name, cmd_name))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tonnage", prog_name="tonnage")
def group() -> None:
    """A private home for model weights: store, mirror and run them from one server."""


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
