"""The status page of ``--http``: what it shows of a server, over real HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from memory import Serving, World
from twisted.internet.testing import StringTransport

from twisted_dimse import Handler, telemetry
from twisted_dimse.scp.metrics import Counts, Metrics
from twisted_dimse.scp.status import Snapshot, status_site
from twisted_dimse.server import AssociationFactory


@pytest.fixture
def metrics(clock: Any) -> Metrics:
    return Metrics(AssociationFactory(Handler(), ae_title="A<B", max_associations=7, reactor=clock))


@pytest.fixture
def clock() -> Any:
    from twisted.internet.task import Clock

    return Clock()


def get(metrics: Metrics, path: str, *, ready: bool = True) -> tuple[int, str]:
    """The code and body of one HTTP request."""
    factory = metrics._factory
    site = status_site(
        factory.ae_title,
        factory.max_associations,
        lambda: Snapshot.of(factory, metrics),
        lambda: ready,
    )
    protocol: Any = site.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
    head, _, body = transport.value().decode().partition("\r\n\r\n")
    match = re.match(r"HTTP/1\.\d (\d+)", head)
    assert match is not None
    return int(match[1]), body


def values(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.counts().text(7).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_page_names_the_title_and_escapes_it(metrics: Metrics) -> None:
    code, page = get(metrics, "")
    assert code == 200
    assert "A&lt;B" in page
    assert "0 of at most 7 associations" in page


def test_a_server_is_healthy_as_long_as_it_answers(metrics: Metrics) -> None:
    assert get(metrics, "healthz", ready=False) == (200, "ok\n")


@pytest.mark.parametrize(("ready", "code"), [(True, 200), (False, 503)])
def test_a_server_is_ready_while_it_takes_associations(
    metrics: Metrics, ready: bool, code: int
) -> None:
    assert get(metrics, "readyz", ready=ready)[0] == code


def test_an_unknown_page_is_not_found(metrics: Metrics) -> None:
    assert get(metrics, "nothing")[0] == 404


def test_operations_are_counted_by_their_status(metrics: Metrics) -> None:
    for status in (0, 0, 0xA700, None):
        metrics(telemetry.OperationEnded(1, "scp", "C-STORE", 1, status, 10, 0.5))
    counted = values(metrics)
    labels = 'operation="C-STORE",role="scp"'
    assert counted[f'dimse_operations_total{{{labels},status="success"}}'] == 2
    assert counted[f'dimse_operations_total{{{labels},status="failure"}}'] == 1
    assert counted[f'dimse_operations_total{{{labels},status="none"}}'] == 1
    assert counted[f"dimse_operation_seconds_total{{{labels}}}"] == 2.0


def test_ends_rejections_and_octets_are_counted(metrics: Metrics) -> None:
    metrics(telemetry.AssociationEnded(1, "acceptor", "lost", False, "", 3, 10**10, 200, 1.0))
    metrics(telemetry.AssociationNotMade(2, "acceptor", 1, 1, 7))
    counted = values(metrics)
    assert counted['dimse_associations_ended_total{how="lost"}'] == 1
    assert counted['dimse_associations_rejected_total{reason="1.1.7"}'] == 1
    assert counted["dimse_received_bytes_total"] == 10**10
    assert counted["dimse_sent_bytes_total"] == 200


def test_open_associations_and_their_limit_are_gauges() -> None:
    with World() as world:
        _requestor, acceptor = world.associate(Serving(), {"max_associations": 7})
        factory = acceptor.protocol.factory
        metrics = Metrics(factory)
        silent = factory.buildProtocol(None)  # a connection, on which nothing comes
        assert values(metrics)["dimse_associations_active"] == 1
        assert values(metrics)["dimse_associations_limit"] == 7
        page = get(metrics, "")[1]
        assert "1 of at most 7 associations are open" in page
        assert page.count("<tr>") == 2
        factory.forget(silent.user)


def test_counts_of_several_processes_are_added(metrics: Metrics) -> None:
    metrics(telemetry.AssociationNotMade(2, "acceptor", 1, 1, 7))
    metrics(telemetry.OperationEnded(1, "scp", "C-STORE", 1, 0, 10, 0.5))
    metrics(telemetry.AssociationEnded(1, "acceptor", "lost", False, "", 3, 100, 200, 1.0))
    one = metrics.counts()
    both = Counts.from_json(json.loads(json.dumps(one.to_json())))
    assert both == one
    both.add(one)
    assert both.received == 200
    assert both.rejected == {(("reason", "1.1.7"),): 2}
    assert both.seconds == {(("operation", "C-STORE"), ("role", "scp")): 1.0}
    assert one.received == 100
