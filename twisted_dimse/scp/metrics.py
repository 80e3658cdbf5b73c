"""Counters over telemetry, and their text for Prometheus.

metrics = Metrics(factory)
unsubscribe = telemetry.subscribe(metrics)
metrics.counts().text(limit)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from twisted_dimse import telemetry
from twisted_dimse.dimse.status import category
from twisted_dimse.server import AssociationFactory

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Counts:
    """What happened in one process, or in several together. `active` are the associations now."""

    active: int = 0
    handler_failures: int = 0
    received: int = 0
    sent: int = 0
    ended: Counter[Labels] = field(default_factory=Counter)
    rejected: Counter[Labels] = field(default_factory=Counter)
    operations: Counter[Labels] = field(default_factory=Counter)
    seconds: Counter[Labels] = field(default_factory=Counter)
    sub_operations: Counter[Labels] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add what happened in another process."""
        for name in (one.name for one in fields(self)):
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(its)
            else:
                setattr(self, name, mine + its)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for another process."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {
            name: list(value.items()) if isinstance(value, Counter) else value
            for name, value in values
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Counts:
        """Of `to_json`, after its way through JSON."""
        counts = cls()
        for name, value in values.items():
            if isinstance(value, list):
                value = Counter({tuple(map(tuple, labels)): count for labels, count in value})
            setattr(counts, name, value)
        return counts

    def text(self, limit: int) -> str:
        """All metrics in the Prometheus text format; ``limit`` is that of the associations."""
        return "\n".join(self._lines(limit)) + "\n"

    def _lines(self, limit: int) -> Iterator[str]:
        yield from _metric("associations_active", "gauge", "Open associations.", {(): self.active})
        yield from _metric("associations_limit", "gauge", "Most associations at once.", {(): limit})
        yield from _metric("associations_ended_total", "counter", "By their end.", self.ended)
        yield from _metric(
            "associations_rejected_total", "counter", "By result.source.reason.", self.rejected
        )
        yield from _metric(
            "operations_total", "counter", "By operation, role and status.", self.operations
        )
        yield from _metric(
            "operation_seconds_total", "counter", "Time that operations took.", self.seconds
        )
        yield from _metric(
            "sub_operations_total", "counter", "Of C-MOVE and C-GET.", self.sub_operations
        )
        yield from _metric(
            "handler_failures_total",
            "counter",
            "Handlers that raised.",
            {(): self.handler_failures},
        )
        yield from _metric("received_bytes_total", "counter", "From peers.", {(): self.received})
        yield from _metric("sent_bytes_total", "counter", "To peers.", {(): self.sent})


class Metrics:
    """Counts what happens to the associations of one factory. A telemetry subscriber."""

    def __init__(self, factory: AssociationFactory) -> None:
        self._factory = factory
        self._counts = Counts()

    def __call__(self, event: object) -> None:
        counts = self._counts
        match event:
            case telemetry.OperationEnded():
                self._operation_ended(event)
            case telemetry.AssociationEnded():
                counts.ended[("how", event.how),] += 1
                counts.received += event.octets_received
                counts.sent += event.octets_sent
            case telemetry.AssociationNotMade():
                reason = f"{event.result}.{event.source}.{event.reason}"
                counts.rejected[("reason", reason),] += 1
            case telemetry.SubOperationEnded():
                counts.sub_operations[("operation", event.name), _status(event.status)] += 1
            case telemetry.HandlerFailed():
                counts.handler_failures += 1

    def _operation_ended(self, event: telemetry.OperationEnded) -> None:
        labels = (("operation", event.name), ("role", event.role))
        self._counts.operations[(*labels, _status(event.status))] += 1
        self._counts.seconds[labels] += event.seconds  # type: ignore[assignment]

    def counts(self) -> Counts:
        """What happened so far, with the octets of the associations that are open."""
        protocols = [association.protocol for association in self._factory.associations]
        counts = Counts(
            active=len(self._factory.open),
            received=sum(protocol.octets_received for protocol in protocols),
            sent=sum(protocol.octets_sent for protocol in protocols),
        )
        counts.add(self._counts)
        return counts


def _status(status: int | None) -> tuple[str, str]:
    return "status", "none" if status is None else str(category(status))


def _metric(name: str, kind: str, text: str, values: Mapping[Labels, float]) -> Iterator[str]:
    yield f"# HELP dimse_{name} {text}"
    yield f"# TYPE dimse_{name} {kind}"
    for labels, value in values.items():
        inside = ",".join(f'{key}="{label}"' for key, label in labels)
        yield f"dimse_{name}{{{inside}}} {value}" if inside else f"dimse_{name} {value}"
