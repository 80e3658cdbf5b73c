"""``dimse echo``."""

from __future__ import annotations

from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument


@click.command("echo", short_help="Ask a peer whether it answers.")
@words_argument("PEER")
@click.option(
    "--count",
    "--repeat",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="How often to ask.",
)
@common_options
def command(words: tuple[str, ...], count: int, **options: Any) -> int:
    """Ask a peer whether it answers (C-ECHO, PS3.4 annex A).

    \b
    dimse echo PACS@10.0.0.5:104
    dimse echo 10.0.0.5 104 -aec PACS --count 10 --json
    """
    common, rest = take_common(words, options)
    if rest:
        raise click.UsageError(f"Too many arguments: {' '.join(rest)}.")
    return run(lambda reactor: _echo(reactor, common, count), common)


async def _echo(reactor: Any, common: Common, count: int) -> int:
    from twisted_dimse import VERIFICATION, connect

    options = common.connect_options()
    association = await connect(common.peer, contexts=[VERIFICATION], reactor=reactor, **options)
    async with association:
        for _ in range(count):
            begun = reactor.seconds()
            response = await association.echo()
            milliseconds = round((reactor.seconds() - begun) * 1000, 3)
            common.put({"status": response.status, "milliseconds": milliseconds})
            common.say(f"{common.peer} answered in {milliseconds:.1f} ms")
    return 0
