"""Counters over telemetry, and their text for Prometheus.

metrics = Metrics(factory)
unsubscribe = telemetry.subscribe(metrics)
metrics.text()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from twisted_dimse import telemetry
from twisted_dimse.dimse.status import category
from twisted_dimse.server import AssociationFactory

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts what happens to the associations of one factory. A telemetry subscriber."""

    def __init__(self, factory: AssociationFactory) -> None:
        self._factory = factory
        self._ended: Counter[Labels] = Counter()
        self._rejected: Counter[Labels] = Counter()
        self._operations: Counter[Labels] = Counter()
        self._seconds: Counter[Labels] = Counter()
        self._sub_operations: Counter[Labels] = Counter()
        self._handler_failures = 0
        self._received = 0
        self._sent = 0

    def __call__(self, event: object) -> None:
        match event:
            case telemetry.OperationEnded():
                self._operation_ended(event)
            case telemetry.AssociationEnded():
                self._ended[("how", event.how),] += 1
                self._received += event.octets_received
                self._sent += event.octets_sent
            case telemetry.AssociationNotMade():
                reason = f"{event.result}.{event.source}.{event.reason}"
                self._rejected[("reason", reason),] += 1
            case telemetry.SubOperationEnded():
                self._sub_operations[("operation", event.name), _status(event.status)] += 1
            case telemetry.HandlerFailed():
                self._handler_failures += 1

    def _operation_ended(self, event: telemetry.OperationEnded) -> None:
        labels = (("operation", event.name), ("role", event.role))
        self._operations[(*labels, _status(event.status))] += 1
        self._seconds[labels] += event.seconds  # type: ignore[assignment]

    @property
    def active(self) -> int:
        """Associations, or connections that may become one, now."""
        return len(self._factory.associations)

    def text(self) -> str:
        """All metrics in the Prometheus text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        protocols = [association.protocol for association in self._factory.associations]
        received = self._received + sum(protocol.octets_received for protocol in protocols)
        sent = self._sent + sum(protocol.octets_sent for protocol in protocols)
        yield from _metric("associations_active", "gauge", "Open associations.", {(): self.active})
        yield from _metric(
            "associations_limit",
            "gauge",
            "Most associations at once.",
            {(): self._factory.max_associations},
        )
        yield from _metric("associations_ended_total", "counter", "By their end.", self._ended)
        yield from _metric(
            "associations_rejected_total", "counter", "By result.source.reason.", self._rejected
        )
        yield from _metric(
            "operations_total", "counter", "By operation, role and status.", self._operations
        )
        yield from _metric(
            "operation_seconds_total", "counter", "Time that operations took.", self._seconds
        )
        yield from _metric(
            "sub_operations_total", "counter", "Of C-MOVE and C-GET.", self._sub_operations
        )
        yield from _metric(
            "handler_failures_total",
            "counter",
            "Handlers that raised.",
            {(): self._handler_failures},
        )
        yield from _metric("received_bytes_total", "counter", "From peers.", {(): received})
        yield from _metric("sent_bytes_total", "counter", "To peers.", {(): sent})


def _status(status: int | None) -> tuple[str, str]:
    return "status", "none" if status is None else str(category(status))


def _metric(name: str, kind: str, text: str, values: Mapping[Labels, float]) -> Iterator[str]:
    yield f"# HELP dimse_{name} {text}"
    yield f"# TYPE dimse_{name} {kind}"
    for labels, value in values.items():
        inside = ",".join(f'{key}="{label}"' for key, label in labels)
        yield f"dimse_{name}{{{inside}}} {value}" if inside else f"dimse_{name} {value}"
