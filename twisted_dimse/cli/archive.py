"""``dimse archive verify``, ``import`` and ``delete``: maintenance while no server runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from twisted_dimse.cli.bar import TIME_TAKEN, Bar
from twisted_dimse.cli.output import json_line


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = [
    click.option("--directory", metavar="DIR", type=click.Path(file_okay=False), default="./dicom-archive", show_default=True, help="Where the archive lives."),  # noqa: E501
    click.option("--database", metavar="URL", help="SQLAlchemy URL of its index.  [default: a file in DIR]"),  # noqa: E501
    click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong."),
    click.option("-d", "--debug", is_flag=True, help="Show tracebacks."),
]  # fmt: skip


@click.group("archive", short_help="Maintain an archive.", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Maintain the archive of a server that does not run.

    \b
    dimse archive verify --directory ./archive
    dimse archive import ./old-files --directory ./archive
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("verify", short_help="Check files against the index.")
@_options
def verify(directory: str, database: str | None, **options: Any) -> int:
    """Check every file against the index, and repair the index.

    \b
    dimse archive verify --directory ./archive
    dimse archive verify --directory ./archive --json
    """
    from twisted_dimse.archive import maintenance

    _check_exists(directory)
    with _opened(directory, database) as folder:
        return _show(maintenance.verify(folder), "checked", **options)


@command.command("import", short_help="Take in existing files.")
@click.argument("paths", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(exists=True))
@_options
def import_(paths: tuple[str, ...], directory: str, database: str | None, **options: Any) -> int:
    """Take in existing files: they are copied, filed under their UIDs, and indexed.

    \b
    dimse archive import ./old-files --directory ./archive
    dimse archive import /mnt/disc --directory ./archive --json
    """
    from twisted_dimse.archive import maintenance

    with _opened(directory, database) as folder:
        return _show(maintenance.import_files(folder, paths), "imported", **options)


@command.command("delete", short_help="Delete a study, series or instance.")
@click.argument("uid")
@_options
def delete(uid: str, directory: str, database: str | None, **options: Any) -> int:
    """Delete a study, a series or an instance, whichever UID is of.

    \b
    dimse archive delete 1.2.3 --directory ./archive
    dimse archive delete 1.2.3.4 --directory ./archive --json
    """
    from twisted_dimse.archive import maintenance

    _check_exists(directory)
    with _opened(directory, database) as folder:
        try:
            return _show(maintenance.delete(folder, uid), "deleted", **options)
        except LookupError as error:
            click.echo(f"dimse: {error.args[0]}", err=True)
            return 1


def _check_exists(directory: str) -> None:
    if not os.path.isdir(directory):
        raise click.UsageError(f"--directory {directory}: no such folder.")
    if not os.path.isdir(os.path.join(directory, "instances")):
        raise click.UsageError(f"--directory {directory}: no archive, which has instances in it.")


@contextmanager
def _opened(directory: str, database: str | None) -> Iterator[Any]:
    from sqlalchemy.exc import SQLAlchemyError

    from twisted_dimse.archive.folder import ArchiveFolder, CannotOpen
    from twisted_dimse.archive.indexer import in_one_line

    try:
        folder = ArchiveFolder(directory, database)
    except CannotOpen as error:
        raise click.UsageError(f"{error}.") from None
    try:
        with folder:
            yield folder
    except SQLAlchemyError as error:  # whose own text has the values, which may name patients
        raise click.ClickException(f"the index cannot be used: {in_one_line(error)}") from error


def _show(findings: Iterable[Any], done: str, as_json: bool, quiet: bool, debug: bool) -> int:
    """Show findings as they come, and their sums; 1 where a problem is left."""
    total = mended = left = 0
    bar = Bar(not (as_json or quiet), f"{{task.completed}} {done}", TIME_TAKEN)
    try:
        for finding in findings:
            total += 1
            mended += finding.mended
            left += bool(finding.problem) and not finding.mended
            _show_one(finding, as_json, bar)
            bar.update(advance=1)
    finally:
        bar.stop()
    sums = {done: total - left, "mended": mended, "problems": left}
    if as_json:
        click.echo(json_line(sums))
    elif not quiet:
        problems = "1 problem" if left == 1 else f"{left} problems"
        click.echo(f"{total - left} {done}, {mended} mended, {problems}")
    return 1 if left else 0


def _show_one(finding: Any, as_json: bool, bar: Bar) -> None:
    if as_json:
        line = {"path": finding.path, "problem": finding.problem or None, "mended": finding.mended}
        click.echo(json_line(line))
    elif finding.problem:
        mended = "; mended" if finding.mended else ""
        bar.write(f"dimse: {finding.path}: {finding.problem}{mended}", err=True)
