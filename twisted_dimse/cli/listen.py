"""``dimse listen``."""

from __future__ import annotations

import json
from typing import Any

import click

from twisted_dimse.cli.common import impatience_ends_at_once
from twisted_dimse.peer import in_words, valid_ae_title


@click.command("listen", short_help="Receive instances until interrupted.")
@click.argument("endpoint", default="tcp:11112:interface=127.0.0.1")
@click.option("--directory", "-od", default="./received", show_default=True, help="Where to file.")
@click.option("--ignore", is_flag=True, help="Answer success and keep nothing.")
@click.option("--ae-title", "-aet", default="DIMSE-LISTEN", show_default=True, help="Our AE title.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
@click.option("-d", "--debug", is_flag=True, help="Show tracebacks.")
@click.option("--trace", is_flag=True, help="Show each PDU and command set on standard error.")
def command(
    endpoint: str,
    directory: str,
    ignore: bool,
    ae_title: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
    trace: bool,
) -> int:
    """Receive instances into a folder until interrupted.

    ENDPOINT is a Twisted server endpoint string; a port number alone will do.

    \b
    dimse listen 11112 --directory ./received
    dimse listen tcp:11112:interface=127.0.0.1 --ignore --json
    """
    if trace:
        from twisted_dimse.cli import trace as tracing

        tracing.begin()
    if not valid_ae_title(ae_title):
        raise click.UsageError(f"--ae-title {ae_title}: not an AE title.")
    if endpoint.isdigit():
        endpoint = f"tcp:{endpoint}"
    return _run(endpoint, None if ignore else directory, ae_title, as_json, quiet)


def _run(endpoint: str, directory: str | None, title: str, as_json: bool, quiet: bool) -> int:
    from twisted.internet import reactor as imported

    from twisted_dimse.datastream import DiscardingSink
    from twisted_dimse.handler import Handler, Request
    from twisted_dimse.server import AssociationFactory
    from twisted_dimse.services.files import InstanceFiles
    from twisted_dimse.services.storage import FilingHandler

    reactor: Any = imported
    failed: list[str] = []

    def stored(request: Request, path: str) -> None:
        if as_json:
            line = {
                "path": path or None,
                "sop_class_uid": request.sop_class_uid,
                "sop_instance_uid": request.sop_instance_uid,
                "transfer_syntax": request.context.transfer_syntax,
                "calling_ae_title": request.association.calling_ae_title,
            }
            click.echo(json.dumps(line))
        elif not quiet:
            click.echo(path or request.sop_instance_uid)

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

    try:
        handler = (
            Ignoring()
            if directory is None
            else FilingHandler(InstanceFiles(directory, durability="commit"), stored)
        )
    except OSError as error:
        raise click.UsageError(f"--directory {directory}: {error.strerror}.") from None
    factory = AssociationFactory(handler, ae_title=title)

    def not_listening(failure: Any) -> None:
        failed.append(str(getattr(failure.value, "socketError", None) or failure.value))
        reactor.stop()

    def start() -> None:
        from twisted.internet.endpoints import serverFromString

        server = serverFromString(reactor, endpoint)
        server.listen(factory).addCallbacks(listening, not_listening)

    def listening(port: Any) -> None:
        if not quiet:
            click.echo(f"dimse: {title} listens at {in_words(port.getHost())}", err=True)

    def check() -> None:
        try:
            start()
        except (ValueError, TypeError, KeyError) as error:
            failed.append(str(error))
            reactor.stop()

    def end() -> Any:
        """Abort what is under way, and give the aborts a second to get out."""
        impatience_ends_at_once()
        factory.close_unused()
        factory.abort_all()
        reactor.callLater(1, factory.close_all)
        return factory.drained()

    reactor.callWhenRunning(check)
    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.run()
    if failed:
        click.echo(f"dimse: {endpoint}: {failed[0]}", err=True)
        return 3
    return 130
