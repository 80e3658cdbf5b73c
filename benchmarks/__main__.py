"""The command line of the benchmarks; see ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import __doc__ as about
from benchmarks import chart, lines, processes, profiling, table
from benchmarks.harness import Row, measure
from benchmarks.machine import description
from benchmarks.rows import chosen_rows
from benchmarks.scratch import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table of a results file; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["table"]:
        return _print("table", table.markdown, words[1:])
    if words[:1] == ["chart"]:
        return _print("chart", _drawn, words[1:])
    if words[:1] == ["profile"]:
        print(profiling.markdown(Path(*words[1:])), end="")
        return 0
    options = _parser().parse_args(words)
    if options.profile:
        processes.watching.append(partial(profiling.watched, options.profile))
    with Settings.made(quick=options.quick, folder=options.folder) as settings:
        try:
            rows = chosen_rows(settings, options.names, options.skip)
        except ValueError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
        return _list(rows) if options.list else _measure(rows, settings, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="python -m benchmarks table RESULTS.json prints a results file as Markdown, "
        "python -m benchmarks chart RESULTS.json as SVG. The rows of curves are measured when they "
        "are named: python -m benchmarks curves --output RESULTS.json. What --profile has seen is "
        "printed by python -m benchmarks profile FOLDER.",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows: a beginning or a pattern")
    parser.add_argument("--runs", type=int, help="turns of each row (5, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="little work: does it run at all?")
    parser.add_argument("--output", type=Path, metavar="FILE", help="save the results as JSON")
    parser.add_argument("--folder", type=Path, help="where files go instead of tmpfs")
    parser.add_argument("--skip", action="append", default=[], metavar="PARTY",
                        help="leave out DCMTK, pynetdicom or twisted-dimse")  # fmt: skip
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS",
                        help="repeat a turn that others disturb, for so long")  # fmt: skip
    parser.add_argument("--profile", type=Path, metavar="FOLDER",
                        help="have py-spy look where our programs spend their time")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    return parser


def _drawn(results: dict[str, Any]) -> str:
    """The comparisons as bars, or the curves as lines."""
    return lines.svg(results) if lines.curves_of(results) else chart.svg(results)


def _list(rows: Sequence[Row]) -> int:
    for row in rows:
        print(f"{row.name:20} {row.title}, {row.unit}")
    return 0


def _measure(rows: Sequence[Row], settings: Settings, options: argparse.Namespace) -> int:
    runs = options.runs or (1 if options.quick else 5)
    machine = description(settings.folder)
    results: dict[str, Any] = {"machine": machine, "runs": runs, "quick": options.quick, "rows": []}
    for name, value in machine.items():
        print(f"{name:14} {value}")
    for row in rows:
        results["rows"].append(measure(row, runs, patience=options.patience, say=_progress))
        print("\n" + table.terminal(results["rows"][-1]), flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}\r", end="", file=sys.stderr, flush=True)


def _print(name: str, show: Callable[[dict[str, Any]], str], words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(f"python -m benchmarks {name}")
    parser.add_argument("results", type=Path)
    print(show(json.loads(parser.parse_args(words).results.read_text())), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
