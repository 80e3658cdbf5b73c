"""Hypothesis strategies for what the protocol is made of, and for how a stream is cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from twisted_dimse.dimse import command
from twisted_dimse.upperlayer import pdu

octets = st.integers(0, 0xFF)
uint16 = st.integers(0, 0xFFFF)
uint32 = st.integers(0, 0xFFFF_FFFF)

uids = st.lists(st.integers(0, 99999), min_size=1, max_size=10).map(
    lambda parts: ".".join(map(str, parts))
)
_printable = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "\\")
titles = st.text(_printable, min_size=1, max_size=16).map(lambda text: text.strip(" ")).filter(bool)

user_items = st.one_of(
    st.builds(pdu.MaximumLength, uint32),
    st.builds(pdu.ImplementationClassUID, uids),
    st.builds(pdu.AsynchronousOperationsWindow, uint16, uint16),
    st.builds(pdu.RoleSelection, uids, st.booleans(), st.booleans()),
    st.builds(pdu.ImplementationVersionName, titles),
    st.builds(pdu.SOPClassExtendedNegotiation, uids, st.binary(max_size=20)),
    st.builds(
        pdu.SOPClassCommonExtendedNegotiation,
        uids,
        uids,
        st.lists(uids, max_size=3).map(tuple),
    ),
    st.builds(
        pdu.UserIdentity,
        st.integers(1, 5),
        st.binary(max_size=40),
        st.binary(max_size=40),
        st.booleans(),
    ),
    st.builds(pdu.UserIdentityResponse, st.binary(max_size=40)),
)
# Items are sent in rising order of their type (PS3.8 9.3.1).
user_information = st.lists(user_items, max_size=8).map(
    lambda items: tuple(sorted(items, key=lambda item: item.kind))
)
context_ids = st.integers(0, 127).map(lambda number: 2 * number + 1)


def _unique(contexts: Any) -> Any:
    return st.lists(contexts, min_size=1, max_size=6, unique_by=lambda context: context.id).map(
        tuple
    )


proposed_contexts = st.builds(
    pdu.ProposedContext,
    context_ids,
    uids,
    st.lists(uids, min_size=1, max_size=4).map(tuple),
)
context_results = st.one_of(
    st.builds(pdu.ContextResult, context_ids, st.just(0), uids),
    st.builds(pdu.ContextResult, context_ids, st.integers(1, 255), st.just("")),
)
associate_requests = st.builds(
    pdu.AssociateRQ, titles, titles, _unique(proposed_contexts), user_information, uids, uint16
)
associate_acceptances = st.builds(
    pdu.AssociateAC, titles, titles, _unique(context_results), user_information, uids, uint16
)
data_values = st.builds(
    pdu.PresentationDataValue, octets, st.booleans(), st.booleans(), st.binary(max_size=40)
)
p_data = st.builds(pdu.PDataTF, st.lists(data_values, min_size=1, max_size=4).map(tuple))
pdus = st.one_of(
    associate_requests,
    associate_acceptances,
    st.builds(pdu.AssociateRJ, octets, octets, octets),
    p_data,
    st.just(pdu.ReleaseRQ()),
    st.just(pdu.ReleaseRP()),
    st.builds(pdu.Abort, octets, octets),
)

_values = {
    "UI": uids,
    "AE": titles,
    "LO": st.text(_printable, min_size=1, max_size=64).map(lambda text: " ".join(text.split())),
    "US": uint16,
    "AT": st.lists(uint32, min_size=1, max_size=5).map(tuple),
}
command_sets = st.fixed_dictionaries(
    {"CommandField": uint16},
    optional={
        keyword: _values[vr].filter(lambda value: value != "")
        for _element, keyword, vr in command.ELEMENTS
        if vr != "UL" and keyword != "CommandField"
    },
)


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """A stream in pieces, some of them of no octets at all: anywhere, octet by octet, or a PDU
    each, as most come, and then anywhere too."""
    anywhere = st.lists(st.integers(0, len(stream)), max_size=12)
    places = draw(
        st.one_of(
            anywhere,
            st.just(list(range(len(stream)))),
            st.just(ends_of_pdus(stream)),
            anywhere.map(lambda some: some + ends_of_pdus(stream)),
        )
    )
    return list(pieces(stream, sorted(places)))


def ends_of_pdus(stream: bytes) -> list[int]:
    """Where the PDUs of a stream end, as their headers say."""
    ends, at = [], 0
    while at + 6 <= len(stream):
        at += 6 + int.from_bytes(stream[at + 2 : at + 6], "big")
        ends.append(min(at, len(stream)))
    return ends


def pieces(stream: bytes, places: list[int]) -> Iterator[bytes]:
    """A stream cut at ``places``, which rise."""
    for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
        yield stream[start:stop]


@st.composite
def damaged(draw: st.DrawFn, stream: bytes) -> bytes:
    """A stream in which some octets are changed, lacking, or come twice."""
    changed = bytearray(stream)
    for _ in range(draw(st.integers(1, 4))):
        if not changed:
            break
        at = draw(st.integers(0, len(changed) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                changed[at] = draw(octets)
            case 1:
                del changed[at : at + draw(st.integers(1, 8))]
            case _:
                changed[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)
