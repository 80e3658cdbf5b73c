"""All eleven services with dcmjs-dimse of Node.js, in both roles.

It is used where it is installed already; with REQUIRE_PEERS=1 it is installed for the session, into
a folder of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
import studies
from loop import Keeping, Loop

from twisted_dimse import (
    STUDY_ROOT,
    VERIFICATION,
    Peer,
    StatusError,
    connect,
    query,
    retrieve,
)
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.managed import (
    FILM_SESSION,
    PRINTER,
    PRINTER_INSTANCE,
    ManagedHandler,
    ManagedInstance,
)
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler
from twisted_dimse.services.worklist import worklist

pytestmark = pytest.mark.interop

PACKAGE = "dcmjs-dimse@0.3.3"
SCRIPT = Path(__file__).with_name("services_dcmjs.js")
GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
STUDY = f"{studies.ROOT}.1"


def installed() -> Path | None:
    """The folder in whose node_modules it is, if it is installed already."""
    roots = os.environ.get("NODE_PATH", "").split(os.pathsep)
    for root in filter(None, [*roots, "/usr/lib/node_modules", "/usr/local/lib/node_modules"]):
        if (Path(root) / "dcmjs-dimse").is_dir():
            return Path(root).parent
    return None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The command that runs the script of this test."""
    program = peers.program("node")
    folder = installed()
    if folder is None and os.environ.get("REQUIRE_PEERS") == "1":
        folder = tmp_path_factory.mktemp("dcmjs")
        words = ["install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        peers.run([peers.program("npm")], *words, cwd=folder, seconds=300).succeeded()
    if folder is None:
        peers.absent("dcmjs-dimse (npm)")
    return [program, SCRIPT, folder]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


class Printing(ManagedHandler):
    def action(self, request: Any, instance: ManagedInstance) -> Any:
        return 0, as_dataset({"PatientID": f"action {request.action_type}"})

    def event(self, request: Any) -> Any:
        return 0, as_dataset({"PatientID": f"event {request.event_type}"})


def test_it_asks_us_for_all_eleven_services(node: list[Any], loop: Loop) -> None:
    held, storing = studies.instances(), Keeping()
    printer = ManagedInstance(PRINTER)
    handler = CombinedHandler(
        storing,
        QueryRetrieveHandler(lambda: held),
        Printing([GRAYSCALE_PRINT], {PRINTER_INSTANCE: printer}),
    )
    destination = Keeping()
    there = Peer("DESTINATION", f"127.0.0.1:{loop.listen(destination)}")
    port = loop.listen(handler, peers={"DESTINATION": there})
    done = peers.run(node, "ask", port, STUDY).succeeded()
    said = [json.loads(line) for line in done.out.splitlines()]
    statuses: dict[str, list[int]] = {}
    for each in said:
        statuses.setdefault(each["name"], []).append(each.get("status", -1))
    assert statuses == {
        "c-echo": [0],
        "c-store": [0],
        "c-find": [0xFF00, 0],
        "stored": [-1] * 4,
        "c-get": [0xFF00] * 4 + [0],
        "c-move": [0xA801] + [0xFF00] * 4 + [0],
        "n-create": [0],
        "n-set": [0],
        "n-get": [0],
        "n-action": [0],
        "n-event-report": [0],
        "n-delete": [0],
        "released": [-1, -1],
    }, done.said
    elements = {each["name"]: each["elements"] for each in said if each.get("elements")}
    assert elements["c-find"]["StudyInstanceUID"] == STUDY
    assert int(elements["n-get"]["NumberOfCopies"]) == 2
    assert elements["n-action"]["PatientID"] == "action 1"
    assert elements["n-event-report"]["PatientID"] == "event 2"
    sent = sorted(each["uid"] for each in said if each["name"] == "stored")
    assert sent == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")
    assert sorted(destination.kept) == sent
    assert storing.kept == ["1.2.3.4"]


@pytest.fixture
def server(node: list[Any]) -> Iterator[tuple[str, peers.Running]]:
    port = peers.free_port()
    with peers.listening(node, "serve", port, port=port) as running:
        yield f"ANY-SCP@127.0.0.1:{port}", running


def test_we_ask_it_for_all_eleven_services(server: tuple[str, peers.Running], loop: Loop) -> None:
    peer, running = server
    destination = Keeping()
    there = f"PORT{loop.listen(destination)}"
    image = studies.instances()[0]

    async def conversation() -> None:
        contexts = [VERIFICATION, *STUDY_ROOT[1:], GRAYSCALE_PRINT, studies.CT]
        association = await connect(peer, contexts=contexts, reactor=loop.reactor, timeouts=20)
        async with association:
            assert (await association.echo()).status == 0
            assert (await association.store(image)).status == 0
            (found,) = await association.find({"StudyInstanceUID": ""})
            assert str(found.PatientName) == "DOE^JANE"
            with pytest.raises(StatusError, match="destination"):
                await association.move({"StudyInstanceUID": "1.2.3"}, destination="NOBODY")
            moved = await association.move({"StudyInstanceUID": "1.2.3"}, destination=there)
            assert (moved.completed, destination.kept) == (1, ["1.2.3.4"])
            print_ = {"context": GRAYSCALE_PRINT}
            film = {"NumberOfCopies": "1"}
            await association.n_create(FILM_SESSION, film, "1.2.5", **print_)
            await association.n_set(FILM_SESSION, "1.2.5", {"NumberOfCopies": "2"}, **print_)
            read = await association.n_get(FILM_SESSION, "1.2.5", ["NumberOfCopies"], **print_)
            assert read.dataset.NumberOfCopies == 2
            acted = await association.n_action(FILM_SESSION, "1.2.5", 1, film, **print_)
            assert acted.dataset.PatientID == "1"
            await association.n_event_report(PRINTER, PRINTER_INSTANCE, 3, film, **print_)
            await association.n_delete(FILM_SESSION, "1.2.5", **print_)
            gone = await association.n_get(FILM_SESSION, "1.2.5", check=False, **print_)
            assert gone.status == 0x0112

    loop.run(conversation)
    said = [json.loads(line) for line in running.out]
    assert {"name": "stored", "uid": str(image.SOPInstanceUID)} in said
    assert {"name": "event", "type": 3} in said


def test_the_calls_that_do_it_all_work_with_it(
    server: tuple[str, peers.Running], loop: Loop
) -> None:
    peer, _ = server
    (found,) = loop.run(query, peer, {"StudyInstanceUID": ""}, reactor=loop.reactor)
    assert found.StudyInstanceUID == "1.2.3"
    (step,) = loop.run(worklist, peer, reactor=loop.reactor)
    assert step.PatientID == "W1"
    storing = Keeping()
    outcome = loop.run(
        retrieve,
        peer,
        {"StudyInstanceUID": "1.2.3"},
        handler=storing,
        sop_classes=[studies.SC],
        transfer_syntaxes=["1.2.840.10008.1.2"],
        reactor=loop.reactor,
    )
    assert (outcome.status, storing.kept) == (0, ["1.2.3.4"])
