"""``dimse listen``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from twisted_dimse import telemetry
from twisted_dimse.cli.common import impatience_ends_at_once
from twisted_dimse.cli.output import json_line, tell_errors
from twisted_dimse.errors import printable
from twisted_dimse.peer import in_words, valid_ae_title


@click.command("listen", short_help="Receive instances until interrupted.")
@click.argument("endpoint", default="tcp:11112:interface=127.0.0.1")
@click.option(
    "--directory",
    "-od",
    metavar="DIR",
    type=click.Path(file_okay=False),
    default="./received",
    show_default=True,
    help="Where to file.",
)
@click.option("--ignore", is_flag=True, help="Answer success and keep nothing.")
@click.option(
    "--ae-title",
    "-aet",
    metavar="AET",
    default="DIMSE-LISTEN",
    show_default=True,
    help="Our AE title.",
)
@click.option(
    "--max-pdu",
    "-pdu",
    metavar="N",
    type=click.IntRange(0),
    default=262144,
    show_default=True,
    help="Largest PDU that we receive, octets; 0 for no limit.",
)
@click.option(
    "--promiscuous", "-pm", is_flag=True, help="Take private and unknown SOP classes, too."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Say when an association begins and ends.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
@click.option("-d", "--debug", is_flag=True, help="Show tracebacks.")
@click.option("--trace", is_flag=True, help="Show each PDU and command set on standard error.")
def command(
    endpoint: str,
    directory: str,
    ignore: bool,
    ae_title: str,
    max_pdu: int,
    promiscuous: bool,
    **options: Any,
) -> int:
    """Receive instances into a folder until interrupted.

    ENDPOINT is a Twisted server endpoint string; a port number alone will do. Without it,
    tcp:11112:interface=127.0.0.1.

    \b
    dimse listen 11112 --directory ./received
    dimse listen tcp:11112:interface=127.0.0.1 --ignore --json
    """
    if not valid_ae_title(ae_title):
        raise click.UsageError(f"--ae-title {ae_title}: not an AE title.")
    if 0 < max_pdu < 8 or max_pdu > 0xFFFFFFFF:
        raise click.UsageError(f"--max-pdu {max_pdu}: 8 to 4294967295, or 0 for no limit.")
    del options["debug"]  # heeded by `main`
    tell = _Tell(**options)
    handler = _handler(None if ignore else directory, tell.stored)
    where = f"tcp:{endpoint}" if endpoint.isdigit() else endpoint
    limits = {"max_pdu_length": max_pdu, "promiscuous": promiscuous}
    return _serve(where, handler, tell, ae_title=ae_title, **limits)


@dataclass
class _Tell:
    """What is said of what happens."""

    as_json: bool
    verbose: bool
    quiet: bool
    trace: bool
    received: int = 0
    unheard: Callable[[OSError], object] = lambda error: None

    def __post_init__(self) -> None:
        if self.trace:
            from twisted_dimse.cli import trace

            trace.begin()
        if self.verbose:
            telemetry.subscribe(self._associations)

    def stored(self, request: Any, path: str) -> None:
        """An instance is there; ``path`` is empty where it was not kept. Where nobody reads of it
        the instance is none the worse, and we end."""
        self.received += 1
        try:
            self._put(request, path)
        except OSError as error:
            self.unheard(error)

    def _put(self, request: Any, path: str) -> None:
        if self.as_json:
            line = {
                "path": path or None,
                "sop_class_uid": request.sop_class_uid,
                "sop_instance_uid": request.sop_instance_uid,
                "transfer_syntax": request.context.transfer_syntax,
                "calling_ae_title": request.association.calling_ae_title,
            }
            click.echo(json_line(line))
        elif not self.quiet:
            click.echo(path or request.sop_instance_uid)

    def aside(self, text: str) -> None:
        """A line for a person, beside what is received."""
        if not self.quiet:
            click.echo(f"dimse: {text}", err=True)

    def _associations(self, event: object) -> None:
        if isinstance(event, telemetry.AssociationNegotiated):
            calling = printable(event.calling_ae_title)
            self.aside(f"association {event.association}: from {calling}")
        elif isinstance(event, telemetry.AssociationEnded):
            self.aside(f"association {event.association}: {event.how}")


def _handler(directory: str | None, stored: Callable[[Any, str], None]) -> Any:
    """One that files what it receives, or discards it."""
    from twisted_dimse.datastream import DiscardingSink
    from twisted_dimse.handler import Handler, Request
    from twisted_dimse.services.files import InstanceFiles
    from twisted_dimse.services.storage import FilingHandler

    class Ignoring(Handler):
        storage_of_any_kind = True

        def store_sink(self, request: Request) -> Any:
            return Discarding(request)

    class Discarding(DiscardingSink):
        def __init__(self, request: Request) -> None:
            self._request = request

        def finish(self) -> int:
            stored(self._request, "")
            return super().finish()

    if directory is None:
        return Ignoring()
    try:
        files = InstanceFiles(directory, durability="commit")
    except OSError as error:
        raise click.UsageError(f"--directory {directory}: {error.strerror}.") from None
    tell_errors(lambda text: click.echo(f"dimse: {text}", err=True))
    return FilingHandler(files, stored)


def _serve(endpoint: str, handler: Any, tell: _Tell, **options: Any) -> int:
    """Listen until an interrupt; the exit status."""
    from twisted.internet import reactor as imported
    from twisted.internet.endpoints import serverFromString

    from twisted_dimse.server import AssociationFactory

    reactor: Any = imported
    failed: list[str] = []
    unread: list[OSError] = []
    factory = AssociationFactory(handler, **options)
    try:
        server = serverFromString(reactor, endpoint)
    except (ValueError, TypeError, KeyError) as error:
        raise click.UsageError(f"{endpoint} is not a server endpoint: {error}.") from None

    def start() -> None:
        server.listen(factory).addCallbacks(listening, not_listening)

    def listening(port: Any) -> None:
        tell.aside(f"{options['ae_title']} listens at {in_words(port.getHost())}")

    def not_listening(failure: Any) -> None:
        error = getattr(failure.value, "socketError", None) or failure.value
        failed.append(getattr(error, "strerror", None) or str(error))
        reactor.stop()

    def end() -> Any:
        """Abort what is under way, and give the aborts a second to get out."""
        impatience_ends_at_once()
        factory.close_unused()
        factory.abort_all()
        reactor.callLater(1, factory.close_all)
        return factory.drained()

    def unheard(error: OSError) -> None:
        if not unread:
            reactor.callLater(0, reactor.stop)
        unread.append(error)

    tell.unheard = unheard
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.run()
    if failed:
        click.echo(f"dimse: {endpoint}: {failed[0]}", err=True)
        return 3
    if unread:
        raise unread[0]
    if not tell.as_json:
        tell.aside(f"{tell.received} received")
    return 130
