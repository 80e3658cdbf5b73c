"""Whatever happens, in whatever order, everything ends: a simulation of two and of ten
associations (see `simulation`).

The standard runs are always the same. ``pytest -m soak tests/test_simulation.py`` makes many
others; ``SIMULATION_SEED`` brings those of one seed back.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from simulation import Simulation

from twisted_dimse import ProtocolViolation
from twisted_dimse.association import Association
from twisted_dimse.dimse.operation import Invocations
from twisted_dimse.iteration import ManyValues
from twisted_dimse.operations import ServiceUser
from twisted_dimse.outgoing import Outgoing, OutgoingMessage
from twisted_dimse.performer import Incoming, Performer
from twisted_dimse.protocol import AssociationProtocol
from twisted_dimse.services.files import InstanceSink
from twisted_dimse.suboperations import Retrieval


class Ten(Simulation):
    """Ten associations with the same server."""

    most_associations = 12
    begin_with = 10


def simulate(machine: type[Simulation], number: int, runs: int, *, shrink: bool = True) -> None:
    """Make ``runs`` runs with the seed ``number``. One that fails is made as short as it goes, and
    its steps are printed."""
    print(f"SIMULATION_SEED={number}")  # pytest shows it where the test fails
    chosen = settings(
        max_examples=runs,
        stateful_step_count=40,
        print_blob=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(seed(number)(machine), settings=chosen)


@pytest.mark.parametrize("machine", [Simulation, Ten], ids=["two", "ten"])
def test_everything_ends(machine: type[Simulation]) -> None:
    simulate(machine, 7, 30 if machine is Simulation else 15)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [Simulation, Ten], ids=["two", "ten"])
def test_everything_ends_whatever_is_chosen(machine: type[Simulation]) -> None:
    simulate(machine, int(os.environ.get("SIMULATION_SEED") or secrets.randbits(32)), 2000)


# --- what the simulation is good for


Patch = Callable[[pytest.MonkeyPatch], None]


def _nothing(*_: Any, **__: Any) -> None:
    pass


async def _nothing_later(*_: Any) -> None:
    pass


def _forget(self: OutgoingMessage) -> None:
    self.data = None


def _replacing(owner: type, name: str, value: Any = _nothing) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def _leaves(timer: str) -> Patch:
    """`AssociationProtocol` does not stop one of its timers."""
    stop = AssociationProtocol._cancel

    def cancel(self: AssociationProtocol, name: str) -> None:
        if name != timer:
            stop(self, name)

    return _replacing(AssociationProtocol, "_cancel", cancel)


def _first_that_waits(self: Invocations[Any], _message_id: int, *, final: bool) -> Any:
    return next(iter(self.outstanding.values()))


def _twice(self: Invocations[Any], message_id: int) -> None:
    self.outstanding.pop(message_id)
    self._last_id = message_id - 1
    self.limit += 1


def _only_what_has_begun(self: Invocations[Any]) -> list[Any]:
    left = list(self.outstanding.values())
    self.outstanding.clear()
    self.waiting.clear()
    return left


def _always_the_same_id(self: Invocations[Any], operation: Any) -> None:
    self.outstanding[7] = operation
    self._begin(operation, 7)


def _one_too_many(self: Invocations[Any]) -> bool:
    return 0 < self.limit < len(self.outstanding)


def _one_too_few(self: Performer) -> None:
    performed = self._association.window.performed
    if 0 < performed <= len(self._outstanding) + 1:
        raise ProtocolViolation("too many")


def _at_the_front(self: Outgoing, message: OutgoingMessage) -> None:
    self.queue.appendleft(message)


def _paused_for_good(self: AssociationProtocol, _result: object) -> None:
    held, self._held = self._held, None
    if held is not None and not self._disconnected:
        self._perform(held)


#: What is broken, how, and what the simulation says then.
BREAKS: dict[str, tuple[Patch, str]] = {
    "the ARTIM timer is not stopped": (_leaves("_artim"), "a timer is left"),
    "the timer of the answer is not stopped": (_leaves("_acse"), "a timer is left"),
    "the idle timer is not stopped": (_leaves("_monitor"), "a timer is left"),
    "a message ID is not freed": (
        _replacing(Invocations, "end"),
        "an operation is outstanding that has its result|an operation ended twice, or never",
    ),
    "a slot of the window is freed twice": (
        _replacing(Invocations, "end", _twice),
        "more than the .* operations agreed are outstanding|more than the window",
    ),
    "a message ID is used while it is outstanding": (
        _replacing(Invocations, "_start", _always_the_same_id),
        "left without an answer",
    ),
    "an answer goes to another operation": (
        _replacing(Invocations, "responded", _first_that_waits),
        "in answer to|the answer of another operation",
    ),
    "one operation more than the window is invoked": (
        _replacing(Invocations, "_full", property(_one_too_many)),
        "more than the window",
    ),
    "one operation less than the window is performed": (
        _replacing(Performer, "_check_window", _one_too_few),
        "too many",
    ),
    "what waits for the window does not fail with the association": (
        _replacing(Invocations, "drain", _only_what_has_begun),
        "never ended|left without an answer",
    ),
    "a cancel is not passed on": (_replacing(ServiceUser, "_send_cancel"), "a cancel got lost"),
    "a cancel is not taken": (_replacing(Performer, "cancel"), "a cancel got lost"),
    "a sink is not abandoned": (
        _replacing(Incoming, "abandon"),
        "a sink was forgotten|half a file",
    ),
    "an unfinished file is not removed": (
        _replacing(InstanceSink, "abandon"),
        "half a file is left",
    ),
    "a message overtakes one that is half sent": (
        _replacing(Outgoing, "put", _at_the_front),
        "which is not under way|of another message|without a command|in two contexts",
    ),
    "a data set is not closed": (
        _replacing(OutgoingMessage, "close", _forget),
        "a source is open",
    ),
    "a transport stays paused": (
        _replacing(AssociationProtocol, "_go_on", _paused_for_good),
        "reading is paused|left without an answer",
    ),
    "an iterator of a handler is not closed": (
        _replacing(ManyValues, "close", _nothing_later),
        "an iterator is open",
    ),
    "a C-MOVE leaves its destination open": (
        _replacing(Retrieval, "_close", _nothing_later),
        "a destination was left open",
    ),
    "a release is not answered": (
        _replacing(Association, "release_requested"),
        "left without an answer",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_it_finds_out_when(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, words = BREAKS[what]
    patch(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        simulate(Simulation, 7, 300, shrink=False)
