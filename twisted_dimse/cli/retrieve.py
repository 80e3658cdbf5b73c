"""``dimse get`` and ``dimse move``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument
from twisted_dimse.cli.keys import dataset_of, key_options
from twisted_dimse.cli.models import MODELS, level_of, level_option, model_options
from twisted_dimse.cli.output import tell_errors
from twisted_dimse.peer import valid_ae_title

_directory = click.option(
    "--directory",
    "-od",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Where to file what comes.",
)


@click.command("get", short_help="Fetch instances.")
@words_argument("PEER")
@level_option
@key_options
@model_options
@_directory
@common_options
def get(
    words: tuple[str, ...],
    level: str | None,
    keys: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    directory: str | None,
    **options: Any,
) -> int:
    """Fetch instances over the connection that asks for them (C-GET, PS3.4 C.4.3).

    The files below --directory (./received if not given) are written as they arrive.

    \b
    dimse get PACS@10.0.0.5:104 -k StudyInstanceUID=1.2.3 --directory ./study
    dimse get PACS@10.0.0.5:104 -L PATIENT -k PatientID=4711 -od ./patient --json
    """
    identifier = dataset_of(keys, dataset)
    level = level_of(identifier, level)
    common = _take_all(words, options)
    handler = _filing(directory or "./received", common)

    def begin(reactor: Any, progress: Any) -> Awaitable[Any]:
        from twisted_dimse.services.query_retrieve import retrieve

        return retrieve(
            common.peer,
            identifier,
            level=level,
            model=MODELS[model] if model else None,
            handler=handler,
            progress=progress,
            reactor=reactor,
            **common.connect_options(),
        )

    return run(lambda reactor: _retrieve(common, lambda note: begin(reactor, note)), common)


@click.command("move", short_help="Have instances sent.")
@words_argument("PEER")
@level_option
@key_options
@model_options
@click.option("--to", "-aem", metavar="AET", help="Who shall get them.  [default: our own title]")
@click.option(
    "--receive", metavar="ENDPOINT", help="Listen there, as the title of --to, and file what comes."
)
@_directory
@common_options
def move(
    words: tuple[str, ...],
    level: str | None,
    keys: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    to: str | None,
    receive: str | None,
    directory: str | None,
    **options: Any,
) -> int:
    """Have a peer send instances to another node, or here (C-MOVE, PS3.4 C.4.2).

    The peer must know the title of --to with its address. With --receive that is this command
    itself; ENDPOINT is a Twisted server endpoint, a port number alone will do.

    \b
    dimse move PACS@10.0.0.5:104 -k StudyInstanceUID=1.2.3 --to WORKSTATION
    dimse move PACS@10.0.0.5:104 -k StudyInstanceUID=1.2.3 --to ME \\
        --receive 11112 --directory ./study
    """
    identifier = dataset_of(keys, dataset)
    level = level_of(identifier, level)
    common = _take_all(words, options)
    if receive is None and (directory is not None or to is None):
        missing = "--to, or --receive" if to is None else "--receive, with --directory"
        raise click.UsageError(f"Missing option: {missing}.")
    destination = to or common.calling
    if not valid_ae_title(destination):
        raise click.UsageError(f"--to {destination}: not an AE title.")
    handler = _filing(directory or "./received", common) if receive is not None else None
    endpoint = endpoint_of(receive)

    def begin(reactor: Any, progress: Any) -> Awaitable[Any]:
        from twisted_dimse.services import query_retrieve

        return query_retrieve.move(
            common.peer,
            identifier,
            destination=destination,
            receive=endpoint,
            handler=handler,
            level=level,
            model=MODELS[model] if model else None,
            progress=progress,
            reactor=reactor,
            **common.connect_options(),
        )

    return run(lambda reactor: _retrieve(common, lambda note: begin(reactor, note)), common)


def _take_all(words: tuple[str, ...], options: dict[str, Any]) -> Common:
    common, rest = take_common(words, options)
    if rest:
        raise click.UsageError(f"Too many arguments: {' '.join(rest)}.")
    return common


def _filing(directory: str, common: Common) -> Any:
    """A handler that files what it receives, as `dimse listen` does."""
    from twisted_dimse.services.files import InstanceFiles
    from twisted_dimse.services.storage import FilingHandler

    try:
        files = InstanceFiles(directory, durability="commit")
    except OSError as error:
        raise click.UsageError(f"--directory {directory}: {error.strerror}.") from None

    def stored(_request: Any, path: str) -> None:
        if common.verbose:
            common.mention(path)

    tell_errors(common.complain)
    return FilingHandler(files, stored)


def endpoint_of(receive: str | None) -> Any:
    """The server endpoint that ``--receive`` names, if any. Raises `click.UsageError`."""
    if receive is None:
        return None
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    try:
        return serverFromString(reactor, f"tcp:{receive}" if receive.isdigit() else receive)
    except (ValueError, TypeError, KeyError) as error:
        raise click.UsageError(f"--receive {receive}: {error}.") from None


async def _retrieve(common: Common, begin: Callable[[Any], Awaitable[Any]]) -> int:
    """Show how a C-GET or C-MOVE goes on, and what came of it, however it ends."""
    from twisted_dimse.cli.suboperations import RetrieveProgress
    from twisted_dimse.errors import StatusError

    with RetrieveProgress(common) as progress:
        try:
            progress.note(await begin(progress.note))
        except StatusError as error:
            if error.outcome is not None:
                progress.note(error.outcome)
            else:
                progress.answered(error.status)
            raise
        finally:
            progress.summarize()
    return progress.exit_status
