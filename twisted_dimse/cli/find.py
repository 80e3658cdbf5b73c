"""``dimse find`` and ``dimse worklist``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common
from twisted_dimse.cli.keys import dataset_of, key_options
from twisted_dimse.cli.models import Question, level_option, model_options


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


_OUTPUT = [
    click.option("--limit", "--cancel", metavar="N", type=click.IntRange(1), help="Take so many matches and cancel the rest."),  # noqa: E501
    click.option("--only", is_flag=True, help="Ask for the given keys and no others."),
    click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values on standard output."),  # noqa: E501
]  # fmt: skip


@click.command("find", short_help="Search.")
@click.argument("words", nargs=-1, metavar="PEER")
@level_option
@key_options
@model_options
@click.option("-W", "--worklist", "of_worklist", is_flag=True, help="As `dimse worklist`.")
@click.option("--relational", is_flag=True, help="Negotiate queries across levels.")
@_output_options
@common_options
def command(
    words: tuple[str, ...],
    level: str | None,
    keys: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    of_worklist: bool,
    relational: bool,
    **options: Any,
) -> int:
    """Search for patients, studies, series or images (C-FIND, PS3.4 annex C).

    Beside the given keys those are asked for that a table of the level shows; --only leaves it at
    the given ones. A key without a value matches everything and is in the answer.

    \b
    dimse find PACS@10.0.0.5:104 -k PatientName='DOE*' -k StudyDate=20240101-
    dimse find PACS@10.0.0.5:104 -L SERIES -k StudyInstanceUID=1.2.3 --json
    """
    if of_worklist:
        question = Question.of_worklist(dataset_of(keys, dataset))
    else:
        question = Question.of(dataset_of(keys, dataset), level, model, relational)
    return _search(words, question, options)


@click.command("worklist", short_help="Ask what is scheduled.")
@click.argument("words", nargs=-1, metavar="PEER")
@key_options
@_output_options
@common_options
def worklist(
    words: tuple[str, ...], keys: tuple[str, ...], dataset: str | None, **options: Any
) -> int:
    """Ask what is scheduled (C-FIND of the modality worklist, PS3.4 annex K).

    \b
    dimse worklist RIS@10.0.0.5:104 -k ScheduledProcedureStepSequence.Modality=CT
    dimse worklist RIS@10.0.0.5:104 -k PatientID=4711 --json
    """
    return _search(words, Question.of_worklist(dataset_of(keys, dataset)), options)


def _search(words: tuple[str, ...], question: Question, options: dict[str, Any]) -> int:
    limit, only, as_csv = (options.pop(name) for name in ("limit", "only", "as_csv"))
    common, rest = take_common(words, options)
    if rest:
        raise click.UsageError(f"Too many arguments: {' '.join(rest)}.")
    if as_csv and common.as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    if not only:
        question.add_columns()
    return run(lambda reactor: _find(reactor, common, question, limit, as_csv), common)


async def _find(
    reactor: Any, common: Common, question: Question, limit: int | None, as_csv: bool
) -> int:
    from twisted_dimse.cli.matches import writer
    from twisted_dimse.services.calls import associated

    number = 0
    write = writer(common, question, as_csv)
    options = {**common.connect_options(), "extended": question.extended, "reactor": reactor}
    async with associated(common.peer, contexts=question.sop_classes, **options) as association:
        if question.relational and not question.agreed(association):
            common.complain(f"{common.peer} did not agree to relational queries")
        async with association.find_each(question.keys, level=question.level) as matches:
            async for match in matches:
                write(match)
                number += 1
                if number == limit:
                    break
    if not common.as_json and not common.quiet and not as_csv:
        click.echo(f"{number or 'no'} {'match' if number == 1 else 'matches'}", err=True)
    return 0
