"""A results file as text: for the terminal, and as Markdown for docs/performance.md.

A comparison is one of our contestants beside one of a peer's: the ratio of their medians, and
what is to be reached where the row sets a mark.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import DISTURBED, OURS

Result = dict[str, Any]

_HEAD = ("work", "ours", "peer", "ratio", "to reach", "CPU: ours, peer")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ratio (or an amount) beside what was to be reached; ``target`` None sets no mark."""

    figure: float | None
    target: float | None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """None where there is no mark or no figure."""
        if self.figure is None or self.target is None:
            return None
        return self.figure <= self.target if self.at_most else self.figure >= self.target

    def to_reach(self) -> str:
        """The mark in words, empty without one."""
        if self.target is None:
            return ""
        bound = "at most " if self.at_most else ""
        missed = {True: "", False: ", **not reached**", None: ", not measured"}[self.reached]
        return f"{bound}{self.target:g}{missed}"


def terminal(row: Result) -> str:
    """One row as a block of lines: each contestant, then each comparison."""
    lines = [f"{row['name']}: {row['title']}, {row['unit']}"]
    for one in row["contestants"]:
        lines.append(f"  {one['name']:30} {_line(one)}")
    for ours, peer, verdict in comparisons(row):
        mark = verdict.to_reach().replace("**", "")
        pair = ours["name"] + (f" to {peer['name']}" if peer and not verdict.at_most else "")
        lines.append(f"  {pair}: {_ratio(verdict)}" + (f" (to reach: {mark})" if mark else ""))
    return "\n".join(dict.fromkeys(lines))


def markdown(results: Result) -> str:
    """The whole results file as a table, with the machine below it."""
    lines = [_cells(_HEAD), _cells(("---", "--:", "--:", "--:", "--:", "--:"))]
    for row in results["rows"]:
        lines.extend(_cells(cells) for cells in _markdown_cells(row))
    facts = "; ".join(f"{name}: {value}" for name, value in results["machine"].items())
    runs = f"Medians of {results['runs']} runs in turns (smallest to largest). {_CPU}"
    runs += _crowd(results)
    if results.get("quick"):
        runs += " This was a quick run, with too little work to compare."
    return "\n".join([*lines, "", runs, "", f"Machine: {facts}.", ""])


def _crowd(results: Result) -> str:
    """Whether the machine was quiet, from what each sample noted."""
    contestants = [one for row in results["rows"] for one in row["contestants"]]
    samples = [each for one in contestants for each in one.get("samples", ())]
    disturbed = sum(each.get("others", 0.0) > DISTURBED for each in samples)
    return f" Others kept over {DISTURBED} of a core busy in {disturbed} of {len(samples)} turns."


_CPU = "CPU is user and system time of the measured process for one message."


def comparisons(row: Result) -> Iterator[tuple[Result, Result | None, Verdict]]:
    """Each of ours beside each peer, or alone; where the row has a bound of its own, with that."""
    ours = [one for one in row["contestants"] if one["party"] == OURS]
    peers = [one for one in row["contestants"] if one["party"] != OURS]
    for mine in ours:
        targets = _targets(row, mine)
        if None in targets:
            bounded = Verdict(mine.get("median"), targets[None], at_most=True)
            yield from ((mine, peer, bounded) for peer in peers or [None])
            continue
        for peer in peers:
            yield mine, peer, Verdict(_quotient(mine, peer), targets.get(peer["party"]))


def _targets(row: Result, mine: Result) -> dict[str | None, float]:
    """What one of ours has to reach beside each party; a mark of its own goes before others."""
    found = [mark for mark in row["marks"] if mark.get("of") in (None, mine["name"])]
    found.sort(key=lambda mark: mark.get("of") is not None)
    return {mark["against"]: mark["target"] for mark in found}


def _markdown_cells(row: Result) -> Iterator[tuple[str, ...]]:
    title = f"{row['title']}, {row['unit']}"
    for ours, peer, verdict in comparisons(row):
        cpu = [_cpu(one) for one in (ours, peer) if one]
        yield (
            title, _cell(ours), _cell(peer) if peer else "",
            "" if verdict.at_most else _ratio(verdict), verdict.to_reach(), "; ".join(cpu),
        )  # fmt: skip


def _quotient(mine: Result, peer: Result) -> float | None:
    if "median" not in mine or not peer.get("median"):
        return None
    return float(mine["median"] / peer["median"])


def _ratio(verdict: Verdict) -> str:
    if verdict.figure is None:
        return "-"
    return f"{verdict.figure:.2f}" if verdict.figure < 10 else f"{verdict.figure:.1f}"


def _span(one: Result) -> str:
    if "median" not in one:
        return str(one.get("note", "not measured"))
    values = [sample["value"] for sample in one["samples"]]
    return f"{_number(one['median'])} ({_number(min(values))}–{_number(max(values))})"


def _cell(one: Result) -> str:
    note = _median_sample(one).get("note") if "median" in one else ""
    return f"{one['name']}: {_span(one)}" + (f"; {note}" if note else "")


def _line(one: Result) -> str:
    """A contestant's figures; wall and CPU seconds are those of the median run."""
    if "median" not in one:
        return str(one.get("note", "not measured"))
    sample = _median_sample(one)
    others = statistics.median(each.get("others", 0.0) for each in one["samples"])
    crowd = f"; others kept {others:.1f} cores busy" if others > DISTURBED else ""
    note = f"; {sample['note']}" if sample.get("note") else ""
    note += f"; {one['failures']} turn(s) failed: {one['note']}" if "note" in one else ""
    wall = f"{_span(one):32} {sample['work']:6} in {sample['seconds']:.2f} s"
    return f"{wall}, user {sample['user']:.2f} s, system {sample['system']:.2f} s{crowd}{note}"


def _cpu(one: Result) -> str:
    if "median" not in one:
        return "-"
    sample = _median_sample(one)
    return f"{_duration(sample['user'], sample['work'])} + " + _duration(
        sample["system"], sample["work"]
    )


def _median_sample(one: Result) -> Result:
    ordered: list[Result] = sorted(one["samples"], key=lambda sample: sample["value"])
    return ordered[len(ordered) // 2]


def _duration(seconds: float, work: int) -> str:
    each = seconds / work
    return f"{each * 1e6:.0f} µs" if each < 1e-3 else f"{each * 1e3:.0f} ms"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _cells(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
