"""The group of commands, and what an exception means for the exit status."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import Any

import click

from twisted_dimse.cli import output

COMMANDS = {
    "echo": "Ask a peer whether it answers (C-ECHO).",
    "store": "Send files and folders (C-STORE).",
    "find": "Search for patients, studies, series or images (C-FIND).",
    "worklist": "Ask what is scheduled (C-FIND of the modality worklist).",
    "get": "Fetch instances over the same connection (C-GET).",
    "move": "Have instances sent to another node, or here (C-MOVE).",
    "commit": "Ask whether instances are kept (storage commitment).",
    "listen": "Receive instances into a folder until interrupted.",
    "n-get": "Read attributes of an instance (N-GET).",
    "n-set": "Change attributes of an instance (N-SET).",
    "n-action": "Have something done to an instance (N-ACTION).",
    "n-create": "Create an instance (N-CREATE).",
    "n-delete": "Delete an instance (N-DELETE).",
    "n-event-report": "Report an event of an instance of ours (N-EVENT-REPORT).",
    "archive": "Check, fill or clear an archive whose server does not run.",
}

# A command is `command` in the module of its name, or else:
_ELSEWHERE = {
    "worklist": ("find", "worklist"),
    "get": ("retrieve", "get"),
    "move": ("retrieve", "move"),
    "n-get": ("normalized", "n_get"),
    "n-set": ("normalized", "n_set"),
    "n-action": ("normalized", "n_action"),
    "n-create": ("normalized", "n_create"),
    "n-delete": ("normalized", "n_delete"),
    "n-event-report": ("normalized", "n_event_report"),
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = _ELSEWHERE.get(cmd_name, (cmd_name, "command"))
        command: click.Command = getattr(
            importlib.import_module(f"twisted_dimse.cli.{module}"), name
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and in the configuration the defaults of its options."""
        name, command, rest = super().resolve_command(ctx, args)
        asks_for_help = any(word in rest for word in ctx.help_option_names)
        if name is None or command is None:
            return name, command, rest
        if not (ctx.resilient_parsing or asks_for_help):
            from twisted_dimse.cli import configuration
            from twisted_dimse.cli.common import DEFAULTS

            config = configuration.named_in(rest)
            ctx.default_map = {name: configuration.defaults(config, command, DEFAULTS)}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A PEER is AET@host:port, AET@[v6]:port, AET@ENDPOINT, or a name from the "
    "configuration file. Two words, HOST PORT, do as well, with -aec for the title.",
)
@click.version_option(package_name="twisted-dimse", prog_name="dimse")
@click.pass_context
def dimse(context: click.Context) -> None:
    """Talk DICOM: check, send, search, fetch and receive."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(args: list[str] | None = None) -> None:
    """The console script: ends the process with the exit status of the interface."""
    output.prepare()
    atexit.register(gc.freeze)  # at the end there is a tenth of a second of garbage to look for
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
        print("dimse: interrupted", file=sys.stderr)
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
