"""``dimse store``."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument

if TYPE_CHECKING:
    from twisted_dimse.cli.report import Report
    from twisted_dimse.services.storage import StoreOutcome


@click.command("store", short_help="Send files and folders.")
@words_argument("PEER PATH...")
@click.option(
    "--window",
    type=click.IntRange(0, 0xFFFF),
    metavar="N",
    help="Operations to have under way at once, if the peer agrees; 0 for no limit.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1, 256),
    metavar="N",
    default=1,
    show_default=True,
    help="Associations to send over at once.",
)
@click.option(
    "--transcode",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Whether to decode what the peer does not take as it is.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="New tries for what was not answered when an association breaks.",
)
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(),
    help="Append what became of each file, and skip what it has as sent.",
)
# What storescu does with these is done here without being asked.
@click.option("-r", "+r", "+sd", "-R", "-cx", "-nh", is_flag=True, hidden=True, expose_value=False)
@common_options
def command(words: tuple[str, ...], **options: Any) -> int:
    """Send files and folders (C-STORE, PS3.4 annex B).

    Folders are walked; files that are not DICOM are skipped and counted. Data sets go out as the
    files have them, unless the peer does not take their transfer syntax.

    \b
    dimse store PACS@10.0.0.5:104 ./study
    dimse store PACS@10.0.0.5:104 ./files --jobs 4 --retries 5 --report sent.jsonl
    """
    names = ("window", "jobs", "transcode", "retries", "report")
    choice = {name: options.pop(name) for name in names}
    common, paths = take_common(words, options)
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    _check_exist(paths)
    from twisted_dimse.cli.report import Report

    file = choice.pop("report")
    with Report(file, common.peer) if file is not None else nullcontext() as report:
        return run(lambda reactor: _store(reactor, common, paths, report, choice), common)


def _check_exist(paths: list[str]) -> None:
    for path in paths:
        if not os.path.exists(path):
            raise click.UsageError(f"{path}: no such file or folder.")


async def _store(
    reactor: Any, common: Common, paths: list[str], report: Report | None, choice: dict[str, Any]
) -> int:
    from twisted_dimse.cli.progress import StoreProgress
    from twisted_dimse.services.sending import store_files

    begun = reactor.seconds()

    def note(outcome: StoreOutcome) -> None:
        if report is not None:
            report.note(outcome)
        progress.note(outcome)

    with StoreProgress(common, paths) as progress:
        try:
            await store_files(
                common.peer,
                paths,
                outcome=note,
                window=choice["window"],
                jobs=choice["jobs"],
                retries=choice["retries"],
                transcode=choice["transcode"] == "auto",
                known=report.knows if report is not None else None,
                reactor=reactor,
                **common.connect_options(),
            )
        finally:
            progress.summarize(reactor.seconds() - begun)
    return 1 if progress.failed else 0
