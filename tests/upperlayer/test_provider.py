"""The provider against Table 9-10: what each cell sends, issues and orders, and what it becomes.

Each state is reached as an association would reach it, by a user and by the octets of a peer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from pdu_samples import ACCEPTANCE, REQUEST
from strategies import cuts, damaged, pdus, pieces

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer.framing import MAX_ASSOCIATION_PDU, Fragment
from twisted_dimse.upperlayer.provider import (
    AbortIndication,
    AssociateConfirmation,
    AssociateIndication,
    Order,
    Provider,
    ProviderEvent,
    ReleaseConfirmation,
    ReleaseIndication,
)
from twisted_dimse.upperlayer.state import State

FACTS = facts("state_machine")
CELLS = {(row["state"], row["event"]): row for row in FACTS["transitions"]}

REJECTION = pdu.AssociateRJ(1, 1, 7)
DATA = pdu.PDataTF((pdu.PresentationDataValue(5, True, True, b"command."),))
UNSUPPORTED = pdu.AssociateRQ("A", "B", REQUEST.contexts, (), protocol_version=2)

# The octets of each event that the peer causes.
FROM_PEER: dict[str, bytes] = {
    "Evt3": ACCEPTANCE.encode(),
    "Evt4": REJECTION.encode(),
    "Evt6": REQUEST.encode(),
    "Evt10": DATA.encode(),
    "Evt12": pdu.ReleaseRQ().encode(),
    "Evt13": pdu.ReleaseRP().encode(),
    "Evt16": pdu.Abort(2, 3).encode(),
    "Evt19": b"\xff",
}
Step = Callable[[Provider], list[ProviderEvent]]
# The other events, but for Evt9: the provider does not send data, it says when the user may.
OTHERS: dict[str, Step] = {
    "Evt1": lambda provider: provider.associate(REQUEST),
    "Evt2": Provider.transport_opened,
    "Evt5": Provider.transport_opened,
    "Evt7": lambda provider: provider.accept(ACCEPTANCE),
    "Evt8": lambda provider: provider.reject(REJECTION),
    "Evt11": Provider.release,
    "Evt14": Provider.answer_release,
    "Evt15": Provider.abort,
    "Evt17": Provider.transport_closed,
    "Evt18": Provider.artim_expired,
}
LOCAL_USER = {
    name for name, event in FACTS["events"].items() if event["origin"] == "local user"
} - {"Evt9"}

# How to come to each state, by role.
REQUESTOR = ("Evt1", "Evt2", "Evt3")
ACCEPTOR = ("Evt5", "Evt6", "Evt7")
ROADS: dict[tuple[str, bool], tuple[str, ...]] = {
    ("Sta1", True): (),
    ("Sta4", True): ("Evt1",),
    ("Sta5", True): ("Evt1", "Evt2"),
    ("Sta6", True): REQUESTOR,
    ("Sta7", True): (*REQUESTOR, "Evt11"),
    ("Sta8", True): (*REQUESTOR, "Evt12"),
    ("Sta9", True): (*REQUESTOR, "Evt11", "Evt12"),
    ("Sta11", True): (*REQUESTOR, "Evt11", "Evt12", "Evt14"),
    ("Sta13", True): (*REQUESTOR, "Evt15"),
    ("Sta1", False): (),
    ("Sta2", False): ("Evt5",),
    ("Sta3", False): ("Evt5", "Evt6"),
    ("Sta6", False): ACCEPTOR,
    ("Sta7", False): (*ACCEPTOR, "Evt11"),
    ("Sta8", False): (*ACCEPTOR, "Evt12"),
    ("Sta10", False): (*ACCEPTOR, "Evt11", "Evt12"),
    ("Sta12", False): (*ACCEPTOR, "Evt11", "Evt12", "Evt13"),
    ("Sta13", False): (*ACCEPTOR, "Evt12", "Evt14"),
}


def happens(provider: Provider, event: str) -> list[ProviderEvent]:
    if event in FROM_PEER:
        return provider.receive(FROM_PEER[event])
    return OTHERS[event](provider)


def in_state(state: str, *, requestor: bool) -> Provider:
    provider = Provider(requestor=requestor)
    for event in ROADS[state, requestor]:
        happens(provider, event)
    provider.data_to_send()
    assert provider.state is State[state]
    return provider


def role(requestor: bool) -> str:
    return "requestor" if requestor else "acceptor"


def roles_for(state: str, event: str) -> list[bool]:
    """The roles that can be in a state. Where a transport opens, the role is part of the event; in
    the cells without an action it is all the same."""
    roles = [requestor for name, requestor in ROADS if name == state]
    wanted = {"Evt2": True, "Evt5": False}.get(event)
    return [wanted] if wanted in roles else roles


TRIED = [
    pytest.param(state, event, requestor, id=f"{state}-{event}-{role(requestor)}")
    for state, event in product(FACTS["states"], FACTS["events"])
    for requestor in roles_for(state, event)
    if event != "Evt9"
]
FILLED = [param for param in TRIED if param.values[:2] in CELLS]
EMPTY = [param for param in TRIED if param.values[:2] not in CELLS]


def action_of(state: str, event: str) -> tuple[str, Any]:
    name = CELLS[state, event]["action"]
    return name, FACTS["actions"][name]


def test_every_cell_is_tried() -> None:
    tried = {param.values[:2] for param in TRIED}
    assert {
        cell for cell in product(FACTS["states"], FACTS["events"]) if cell[1] != "Evt9"
    } == tried


# --- the cells that have an action


@pytest.mark.parametrize(("state", "event", "requestor"), FILLED)
def test_a_cell_leads_to_the_state_that_the_standard_says(
    state: str, event: str, requestor: bool
) -> None:
    provider = in_state(state, requestor=requestor)
    happens(provider, event)
    expected = CELLS[state, event]["next_states"]
    if CELLS[state, event]["action"] == "AR-8":
        expected = ["Sta9" if requestor else "Sta10"]
    assert provider.state.name == expected[0]


SENT: dict[str, bytes] = {
    "A-ASSOCIATE-RQ": REQUEST.encode(),
    "A-ASSOCIATE-AC": ACCEPTANCE.encode(),
    "A-ASSOCIATE-RJ": REJECTION.encode(),
    "A-RELEASE-RQ": pdu.ReleaseRQ().encode(),
    "A-RELEASE-RP": pdu.ReleaseRP().encode(),
    "A-ABORT (source 0)": pdu.Abort(0, 0).encode(),
    # An unknown PDU type is unrecognized, anything else unexpected.
    "A-ABORT (source 2)": pdu.Abort(2, 2).encode(),
}


@pytest.mark.parametrize(("state", "event", "requestor"), FILLED)
def test_a_cell_sends_the_pdu_that_the_standard_says(
    state: str, event: str, requestor: bool
) -> None:
    provider = in_state(state, requestor=requestor)
    happens(provider, event)
    _name, action = action_of(state, event)
    sends = action["sends_pdu"]
    expected = b"" if sends is None or "only when" in sends else SENT[sends]
    if event == "Evt19" and sends == "A-ABORT (source 2)":
        expected = pdu.Abort(2, 1).encode()
    assert provider.data_to_send() == expected
    assert provider.data_to_send() == b""


ISSUED: dict[str, list[ProviderEvent]] = {
    "A-ASSOCIATE confirmation (accept)": [AssociateConfirmation(ACCEPTANCE)],
    "A-ASSOCIATE confirmation (reject)": [AssociateConfirmation(REJECTION)],
    "A-ASSOCIATE indication (only when acceptable)": [AssociateIndication(REQUEST)],
    "A-RELEASE indication": [ReleaseIndication()],
    "A-RELEASE indication (collision)": [ReleaseIndication(collision=True)],
    "A-RELEASE confirmation": [ReleaseConfirmation()],
    "P-DATA indication": [Fragment(5, True, True, b"command.")],
}
ABORTED: dict[str, Callable[[AbortIndication], bool]] = {
    # AA-1: the user learns of its own abort.
    "AA-1": lambda told: told.by_us and not told.lost and told.source == 0,
    "AA-3": lambda told: not told.by_us and not told.lost and (told.source, told.reason) == (2, 3),
    "AA-4": lambda told: told.lost and not told.by_us,
    "AA-8": lambda told: told.by_us and not told.lost and told.source == 2 and bool(told.violation),
}


@pytest.mark.parametrize(("state", "event", "requestor"), FILLED)
def test_a_cell_issues_the_primitive_that_the_standard_says(
    state: str, event: str, requestor: bool
) -> None:
    provider = in_state(state, requestor=requestor)
    issued = [told for told in happens(provider, event) if not isinstance(told, Order)]
    name, action = action_of(state, event)
    if name in ABORTED:
        [told] = issued
        assert isinstance(told, AbortIndication)
        assert ABORTED[name](told)
    else:
        assert issued == (ISSUED[action["issues"]] if action["issues"] else [])


ARTIM = {
    "start": [Order.START_ARTIM],
    "start or restart": [Order.START_ARTIM],
    "stop": [Order.STOP_ARTIM],
    "stop if running": [Order.STOP_ARTIM],
    "stop; start again when rejecting": [Order.STOP_ARTIM],
    None: [],
}
TRANSPORT = {
    "connect": [Order.OPEN_TRANSPORT],
    "close": [Order.CLOSE_TRANSPORT],
    "accept": [],  # Twisted has accepted it before it tells
    None: [],
}


@pytest.mark.parametrize(("state", "event", "requestor"), FILLED)
def test_a_cell_orders_what_the_standard_says_of_timer_and_transport(
    state: str, event: str, requestor: bool
) -> None:
    provider = in_state(state, requestor=requestor)
    orders = [order for order in happens(provider, event) if isinstance(order, Order)]
    _name, action = action_of(state, event)
    assert orders == ARTIM[action["artim"]] + TRANSPORT[action["transport"]]


@pytest.mark.parametrize("state", FACTS["states"])
def test_data_may_be_sent_in_the_states_that_the_standard_says(state: str) -> None:
    for name, requestor in ROADS:
        if name == state:
            provider = in_state(state, requestor=requestor)
            assert provider.may_send_data == ((state, "Evt9") in CELLS)


def test_a_request_of_another_protocol_version_is_rejected_by_the_provider() -> None:
    provider = in_state("Sta2", requestor=False)
    events = provider.receive(UNSUPPORTED.encode())
    assert [event for event in events if isinstance(event, Order)] == [
        Order.STOP_ARTIM,
        Order.START_ARTIM,
    ]
    assert not any(isinstance(event, AssociateIndication) for event in events)
    assert provider.data_to_send() == pdu.AssociateRJ(1, 2, 2).encode()
    assert provider.state is State.Sta13


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_only_the_lowest_bit_of_the_protocol_version_is_tested(version: int) -> None:
    provider = in_state("Sta2", requestor=False)
    request = pdu.AssociateRQ("A", "B", REQUEST.contexts, (), protocol_version=version)
    assert AssociateIndication(request) in provider.receive(request.encode())


# --- the cells that have none


@pytest.mark.parametrize(("state", "event", "requestor"), EMPTY)
def test_in_an_empty_cell_nothing_changes(state: str, event: str, requestor: bool) -> None:
    provider = in_state(state, requestor=requestor)
    if event in ("Evt2", "Evt5"):
        provider.requestor = event == "Evt2"
    try:
        events = happens(provider, event)
    except ProtocolViolation:
        events = []
    else:
        assert event not in LOCAL_USER, "a misuse of the service goes unsaid"
    assert events == []
    assert provider.state is State[state]
    assert provider.data_to_send() == b""


def test_a_misuse_says_the_event_and_the_state() -> None:
    with pytest.raises(ProtocolViolation, match="Evt11 has no action in Sta1"):
        Provider(requestor=True).release()


# --- the timer


@pytest.mark.parametrize(
    ("state", "requestor"), [key for key in ROADS if (key[0], "Evt18") in CELLS]
)
def test_the_timer_runs_in_the_states_in_which_it_may_expire_and_no_other(
    state: str, requestor: bool
) -> None:
    assert timer_after(ROADS[state, requestor], requestor=requestor)


@pytest.mark.parametrize(
    ("state", "requestor"), [key for key in ROADS if (key[0], "Evt18") not in CELLS]
)
def test_the_timer_does_not_run_in_any_other_state(state: str, requestor: bool) -> None:
    assert not timer_after(ROADS[state, requestor], requestor=requestor)


def timer_after(road: tuple[str, ...], *, requestor: bool) -> bool:
    running = False
    provider = Provider(requestor=requestor)
    for event in road:
        for told in happens(provider, event):
            if told in (Order.START_ARTIM, Order.STOP_ARTIM):
                running = told is Order.START_ARTIM
    return running


def test_the_timer_is_started_and_stopped_by_the_actions_that_the_standard_lists() -> None:
    for order, listed in (("start", "started_by"), ("stop", "stopped_by")):
        names = {text.split(" ")[0] for text in FACTS["artim"][listed]}
        of_actions = {
            name for name, action in FACTS["actions"].items() if order in (action["artim"] or "")
        }
        assert names <= of_actions


# --- violations that the framer or the user finds


@pytest.mark.parametrize("state", ["Sta3", "Sta5", "Sta6", "Sta7", "Sta8"])
def test_a_violation_that_the_user_finds_aborts_with_its_words_and_reason(state: str) -> None:
    provider = in_state(state, requestor=(state, True) in ROADS)
    events = provider.violated("data without a command", reason=5)
    assert events == [
        AbortIndication(2, 5, by_us=True, violation="data without a command"),
        Order.START_ARTIM,
    ]
    assert provider.data_to_send() == pdu.Abort(2, 5).encode()


def test_a_violation_behind_a_fragment_in_one_chunk_aborts() -> None:
    provider = in_state("Sta6", requestor=False)
    fragment, *events = provider.receive(DATA.encode() + b"GET / HTTP/1.1\r\n")
    assert fragment == Fragment(5, True, True, b"command.")
    assert events == [
        AbortIndication(2, 1, by_us=True, violation="PDU of unknown type 47H"),
        Order.START_ARTIM,
    ]
    assert provider.data_to_send() == pdu.Abort(2, 1).encode()


def test_an_unknown_pdu_type_is_refused_at_its_first_octet() -> None:
    provider = in_state("Sta6", requestor=True)
    provider.receive(b"\x08")
    assert provider.data_to_send() == pdu.Abort(2, 1).encode()


def test_an_association_request_above_one_mebibyte_is_refused_at_its_header() -> None:
    provider = in_state("Sta2", requestor=False)
    provider.receive(struct.pack(">BxI", pdu.ASSOCIATE_RQ, MAX_ASSOCIATION_PDU + 1))
    assert provider.data_to_send() == pdu.Abort(0, 0).encode()
    assert provider.state is State.Sta13


def test_a_data_pdu_longer_than_offered_is_refused_at_its_header() -> None:
    provider = Provider(requestor=False, max_pdu_length=4096)
    for event in ACCEPTOR:
        happens(provider, event)
    provider.data_to_send()
    [told, _order] = provider.receive(struct.pack(">BxI", pdu.P_DATA_TF, 4097))
    assert told == AbortIndication(
        2, 6, by_us=True, violation="P-DATA-TF of 4097 octets, over the 4096 offered"
    )
    assert provider.data_to_send() == pdu.Abort(2, 6).encode()


def test_a_malformed_request_is_aborted_and_never_indicated() -> None:
    provider = in_state("Sta2", requestor=False)
    octets = bytearray(REQUEST.encode())
    octets[76:78] = b"\xff\xff"  # the length of the application context item
    [told, order] = provider.receive(bytes(octets))
    assert isinstance(told, AbortIndication)
    assert "item 10H" in told.violation
    assert order is Order.START_ARTIM
    assert provider.data_to_send() == pdu.Abort(0, 0).encode()


def test_after_our_abort_what_still_comes_is_dropped() -> None:
    provider = in_state("Sta13", requestor=True)
    assert provider.receive(DATA.encode() * 100 + pdu.ReleaseRQ().encode()) == []
    assert provider.data_to_send() == b""


def test_after_the_end_octets_are_dropped() -> None:
    provider = in_state("Sta6", requestor=False)
    events = provider.receive(pdu.Abort(0, 0).encode() + DATA.encode() + b"\xff")
    assert events == [AbortIndication(0, 0), Order.CLOSE_TRANSPORT]
    assert provider.closed
    assert provider.receive(DATA.encode()) == []
    assert provider.transport_closed() == []


# --- cuts, and anything at all


def told(events: list[ProviderEvent]) -> list[object]:
    """Events with the slices of each value put together."""
    found: list[object] = []
    octets = b""
    for event in events:
        if not isinstance(event, Fragment):
            found.append(event)
            continue
        octets += bytes(event.data)
        if event.ends_value:
            found.append((event.context_id, event.is_command, event.is_last, octets))
            octets = b""
    return [*found, octets]


@given(st.data())
def test_any_cut_of_what_a_peer_sends_gives_the_same(data: st.DataObject) -> None:
    state, requestor = data.draw(st.sampled_from([key for key in ROADS if key[0] != "Sta1"]))
    sent = data.draw(st.lists(st.one_of(pdus, st.just(DATA)), max_size=5))
    stream = b"".join(value.encode() for value in sent)
    stream = data.draw(st.one_of(st.just(stream), damaged(stream)))

    def outcome(chunks: list[bytes]) -> object:
        provider = in_state(state, requestor=requestor)
        events: list[ProviderEvent] = []
        try:
            for chunk in chunks:
                events += provider.receive(chunk)
        except ProtocolViolation:
            assert state == "Sta4", "only octets before there is a transport are a misuse"
            return None
        return told(events), provider.state, provider.data_to_send()

    assert outcome([stream]) == outcome(data.draw(cuts(stream)))


def test_a_conversation_cut_at_each_place_goes_the_same_way() -> None:
    stream = REQUEST.encode()
    for place in range(len(stream) + 1):
        provider = in_state("Sta2", requestor=False)
        events = [event for piece in pieces(stream, [place]) for event in provider.receive(piece)]
        assert events == [Order.STOP_ARTIM, AssociateIndication(REQUEST)]


@given(
    st.sampled_from([key for key in ROADS if key[0] not in ("Sta1", "Sta4")]),
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8),
)
def test_arbitrary_octets_never_raise_and_are_answered_by_one_abort_at_most(
    where: tuple[str, bool], chunks: list[bytes]
) -> None:
    state, requestor = where
    provider = in_state(state, requestor=requestor)
    events = [event for chunk in chunks for event in provider.receive(chunk)]
    sent = provider.data_to_send()
    assert len([event for event in events if isinstance(event, AbortIndication)]) <= 1
    assert sent == b"" or (sent[0] == pdu.ABORT and len(sent) == 10)
