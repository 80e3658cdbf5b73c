"""``dimse commit``."""

from __future__ import annotations

from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument
from twisted_dimse.cli.retrieve import endpoint_of


@click.command("commit", short_help="Ask for storage commitment.")
@words_argument("PEER PATH...")
@click.option(
    "--receive", metavar="ENDPOINT", help="Listen there, as the title of --calling, for the report."
)
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    default=60.0,
    show_default="60",
    help="Seconds to wait for the report.",
)
@common_options
def command(words: tuple[str, ...], receive: str | None, wait: float, **options: Any) -> int:
    """Ask a peer whether it keeps instances (storage commitment, PS3.4 annex J).

    The report comes on the same association, or with --receive on a new one, for which the peer
    must know the title of --calling with its address. ENDPOINT is a Twisted server endpoint, a port
    number alone will do.

    \b
    dimse commit PACS@10.0.0.5:104 ./study
    dimse commit PACS@10.0.0.5:104 ./study --calling ME --receive 11112 --wait 300
    """
    common, paths = take_common(words, options)
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    sources, endpoint = _sources(common, paths), endpoint_of(receive)
    return run(lambda reactor: _commit(reactor, common, sources, endpoint, wait), common)


def _sources(common: Common, paths: list[str]) -> dict[str, Any]:
    """What there is to ask for, by SOP Instance UID. Raises `click.UsageError`."""
    from twisted_dimse.datastream import FileSource, NotDicom, expand_paths

    sources = {}
    for path in expand_paths(paths):
        try:
            source = FileSource.of(path)
        except NotDicom as error:
            if common.verbose:
                common.complain(f"skipped {error}")
        except OSError as error:
            raise click.UsageError(f"{path}: {error.strerror}.") from None
        else:
            sources[source.sop_instance_uid] = source
    if not sources:
        raise click.UsageError(f"{' '.join(paths)}: no DICOM files.")
    return sources


async def _commit(
    reactor: Any, common: Common, sources: dict[str, Any], receive: Any, wait: float
) -> int:
    from twisted_dimse.services.commitment import (
        FAILURE_REASONS,
        ReportOverdue,
        request_commitment,
    )

    try:
        outcome = await request_commitment(
            common.peer,
            sources.values(),
            receive=receive,
            wait=wait,
            reactor=reactor,
            **common.connect_options(),
        )
    except ReportOverdue as error:
        advice = "Give it longer with --wait"
        if receive is None:
            advice += ", or a port to connect to with --receive"
        raise ReportOverdue(f"{error}. {advice}", error.transaction_uid) from None
    for reference, reason in outcome.failed.items():
        words = FAILURE_REASONS.get(reason, "not mentioned in the report")
        source = sources.get(reference.sop_instance_uid)
        common.complain(f"{source.path if source else reference.sop_instance_uid}: {words}")
    common.put(
        {
            "transaction_uid": outcome.transaction_uid,
            "committed": len(outcome.committed),
            "failed": len(outcome.failed),
            "failed_sop_instance_uids": [each.sop_instance_uid for each in outcome.failed],
        }
    )
    failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
    common.say(f"{len(outcome.committed)} committed{failed}")
    return 0 if outcome.ok else 1
