"""``dimse store``."""

from __future__ import annotations

from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common


@click.command("store", short_help="Send files and folders.")
@click.argument("words", nargs=-1, metavar="PEER PATH...")
@click.option(
    "--window",
    type=click.IntRange(0, 0xFFFF),
    help="Operations to have under way at once, if the peer agrees; 0 for no limit.",
)
@common_options
def command(words: tuple[str, ...], window: int | None, **options: Any) -> int:
    """Send files and folders (C-STORE, PS3.4 annex B).

    Folders are walked; files that are not DICOM are skipped and counted. Data sets go out as the
    files have them.

    \b
    dimse store PACS@10.0.0.5:104 ./study
    dimse store 10.0.0.5 104 -aec PACS image1.dcm image2.dcm --json
    """
    common, paths = take_common(words, options)
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    _check_exist(paths)
    return run(lambda reactor: _store(reactor, common, paths, window), common)


def _check_exist(paths: list[str]) -> None:
    import os

    for path in paths:
        if not os.path.exists(path):
            raise click.UsageError(f"{path}: no such file or folder.")


async def _store(reactor: Any, common: Common, paths: list[str], window: int | None) -> int:
    from twisted_dimse.cli.progress import StoreProgress
    from twisted_dimse.services.storage import store_files

    begun = reactor.seconds()
    with StoreProgress(common, paths) as progress:
        try:
            await store_files(
                common.peer,
                paths,
                outcome=progress.note,
                window=window,
                reactor=reactor,
                **common.connect_options(),
            )
        finally:
            progress.summarize(reactor.seconds() - begun)
    return 1 if progress.failed else 0
