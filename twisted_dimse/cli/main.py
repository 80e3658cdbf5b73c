"""The group of commands, and what an exception means for the exit status."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "echo": "Ask a peer whether it answers (C-ECHO).",
    "store": "Send files and folders (C-STORE).",
    "listen": "Receive instances into a folder until interrupted.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"twisted_dimse.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A PEER is AET@host:port, AET@[v6]:port, AET@ENDPOINT, or a name from the "
    "configuration file. Two words, HOST PORT, do as well, with -aec for the title.",
)
@click.version_option(package_name="twisted-dimse", prog_name="dimse")
def dimse() -> None:
    """Talk DICOM: check, send and receive."""


def main(args: list[str] | None = None) -> None:
    """The console script: ends the process with the exit status of the interface."""
    words = sys.argv[1:] if args is None else args
    debug = "--debug" in words
    try:
        status: Any = dimse.main(words, "dimse", standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "dimse"
        print(f"{context}: {error.format_message()} See {context} --help.", file=sys.stderr)
        status = 2
    except click.ClickException as error:
        print(f"dimse: {error.format_message()}", file=sys.stderr)
        status = 2
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]
        status = 1
    except Exception as error:
        if debug:
            raise
        from twisted_dimse.cli.errors import explain

        text, status = explain(error)
        print(f"dimse: {text}", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)
