"""``dimse find`` and ``dimse worklist``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from twisted_dimse.cli.common import Common, common_options, run, take_common, words_argument
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


_fuzzy = click.option(
    "--fuzzy",
    "--fuzzy-names",
    is_flag=True,
    help="Negotiate matching of person names by sound or by parts.",
)


@click.command("find", short_help="Search.")
@words_argument("PEER")
@level_option
@key_options
@model_options
@click.option("-W", "--worklist", "of_worklist", is_flag=True, help="As `dimse worklist`.")
@click.option(
    "--relational", "--relational-query", is_flag=True, help="Negotiate queries across levels."
)
@_fuzzy
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
    fuzzy: bool,
    **options: Any,
) -> int:
    """Search for patients, studies, series or images (C-FIND, PS3.4 annex C).

    Beside the given keys those are asked for that a table of the level shows; --only leaves it at
    the given ones. A key without a value matches everything and is in the answer.

    \b
    dimse find PACS@10.0.0.5:104 -k PatientName='DOE*' -k StudyDate=20240101-
    dimse find PACS@10.0.0.5:104 -L SERIES -k StudyInstanceUID=1.2.3 --json
    """
    asked = {"relational": relational, "fuzzy_names": fuzzy}
    if of_worklist:
        if relational:
            raise click.UsageError("--relational: a worklist has no levels.")
        question = Question.of_worklist(dataset_of(keys, dataset), _wanted(asked))
    else:
        question = Question.of(dataset_of(keys, dataset), level, model, _wanted(asked))
    return _search(words, question, options)


@click.command("worklist", short_help="Ask what is scheduled.")
@words_argument("PEER")
@key_options
@_fuzzy
@_output_options
@common_options
def worklist(
    words: tuple[str, ...], keys: tuple[str, ...], dataset: str | None, fuzzy: bool, **options: Any
) -> int:
    """Ask what is scheduled (C-FIND of the modality worklist, PS3.4 annex K).

    \b
    dimse worklist RIS@10.0.0.5:104 -k ScheduledProcedureStepSequence.Modality=CT
    dimse worklist RIS@10.0.0.5:104 -k PatientID=4711 --json
    """
    wanted = _wanted({"fuzzy_names": fuzzy})
    return _search(words, Question.of_worklist(dataset_of(keys, dataset), wanted), options)


def _wanted(asked: dict[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, yes in asked.items() if yes)


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
        for what in question.not_agreed(association):
            common.complain(f"{common.peer} did not agree to {what}")
        try:
            async with association.find_each(question.keys, level=question.level) as matches:
                async for match in matches:
                    write(match)
                    number += 1
                    if number == limit:
                        break
        finally:
            if not common.as_json and not common.quiet and not as_csv:
                click.echo(f"{number or 'no'} {'match' if number == 1 else 'matches'}", err=True)
    return 0
