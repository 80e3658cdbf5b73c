"""Command sets: ``commands.json`` and ``wire_examples.json``, and whatever else may come."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from facts import examples, facts, name_of
from hypothesis import given
from hypothesis import strategies as st
from raw import command as by_hand
from strategies import command_sets, damaged

from twisted_dimse.dimse import command
from twisted_dimse.errors import ProtocolViolation

FACTS = facts("commands")
MESSAGES = FACTS["messages"]
DICTIONARY = {row["keyword"]: row for row in FACTS["dictionary"]}

# A value of each VR, with its octets.
SAMPLES: dict[str, tuple[Any, bytes]] = {
    "UI": ("1.2.840.10008.1.1", b"1.2.840.10008.1.1\0"),
    "AE": ("WS_7A", b"WS_7A "),
    "LO": ("disk full", b"disk full "),
    "US": (0x1234, b"\x34\x12"),
    "AT": ((0x0010_0020, 0x2110_0010), b"\x10\0\x20\0\x10\x21\x10\0"),
}


def elements(octets: bytes) -> list[tuple[int, bytes]]:
    """Tags and values, read here once more and in another way."""
    found = []
    while octets:
        group, element, length = struct.unpack("<HHI", octets[:8])
        assert len(octets) >= 8 + length
        found.append((group << 16 | element, octets[8 : 8 + length]))
        octets = octets[8 + length :]
    return found


def raw(*parts: tuple[int, bytes]) -> bytes:
    """A command set of any elements, its group length first."""
    body = b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value for tag, value in parts
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


FIELD = (0x0100, struct.pack("<H", command.C_ECHO_RQ))


def sample(message: dict[str, Any]) -> tuple[dict[str, Any], dict[int, bytes]]:
    """All elements that a message may have: values by keyword, and octets by tag."""
    values: dict[str, Any] = {}
    octets: dict[int, bytes] = {}
    for element in message["elements"]:
        if element["keyword"] == "CommandGroupLength":
            continue
        value, encoded = SAMPLES[element["vr"]]
        if "value" in element:
            value, encoded = element["value"], struct.pack("<H", element["value"])
        elif element["keyword"] == "CommandDataSetType":
            value, encoded = command.DATA_SET_FOLLOWS, b"\x01\0"
        values[element["keyword"]] = value
        octets[int(element["tag"], 16)] = encoded
    return values, octets


# --- the dictionary


@pytest.mark.parametrize("row", FACTS["dictionary"], ids=lambda row: str(row["keyword"]))
def test_each_element_of_the_standard_has_its_tag_and_vr(row: Any) -> None:
    tag = int(row["tag"], 16)
    assert (tag, row["keyword"], row["vr"]) in command.ELEMENTS


def test_there_are_no_other_elements() -> None:
    assert [keyword for _element, keyword, _vr in command.ELEMENTS] == list(DICTIONARY)


@pytest.mark.parametrize("row", FACTS["retired_elements"], ids=lambda row: str(row["keyword"]))
def test_a_retired_element_is_skipped(row: Any) -> None:
    found = command.decode(raw((int(row["tag"], 16), b"whatever"), FIELD))
    assert found == {"CommandGroupLength": 26, "CommandField": command.C_ECHO_RQ}


@pytest.mark.parametrize("row", FACTS["dictionary"], ids=lambda row: str(row["keyword"]))
def test_each_element_is_an_attribute_that_is_none_where_it_lacks(row: Any) -> None:
    found = command.decode(raw(FIELD))
    expected = {"CommandGroupLength": 10, "CommandField": command.C_ECHO_RQ}
    assert getattr(found, row["keyword"]) == expected.get(row["keyword"])


def test_a_keyword_that_no_command_set_has_is_no_attribute() -> None:
    with pytest.raises(AttributeError):
        _ = command.CommandSet().PatientName


# --- the messages


@pytest.mark.parametrize("row", MESSAGES, ids=name_of)
def test_a_message_has_the_name_of_its_command_field(row: Any) -> None:
    assert command.message_name(row["command_field"]) == row["name"]
    assert command.CommandSet(CommandField=row["command_field"]).name == row["name"]


@pytest.mark.parametrize("row", MESSAGES, ids=name_of)
def test_a_command_field_says_whether_a_message_is_a_response(row: Any) -> None:
    found = command.CommandSet(CommandField=row["command_field"])
    assert found.is_response == (row["kind"] == "response")
    if found.is_response:
        request = row["command_field"] & ~command.RESPONSE
        assert command.message_name(request) == row["name"].replace("RSP", "RQ")


@pytest.mark.parametrize("row", MESSAGES, ids=name_of)
def test_a_message_with_all_its_elements_decodes_to_what_was_encoded(row: Any) -> None:
    values, _octets = sample(row)
    found = command.decode(command.encode(values))
    length = found.pop("CommandGroupLength")
    assert found == values
    assert length == len(command.encode(values)) - 12


@pytest.mark.parametrize("row", MESSAGES, ids=name_of)
def test_elements_go_out_in_rising_order_with_the_group_length_first(row: Any) -> None:
    values, octets = sample(row)
    backwards = dict(reversed(values.items()))
    (first, length), *found = elements(command.encode(backwards))
    assert first == 0
    assert int.from_bytes(length, "little") == len(command.encode(values)) - 12
    assert found == list(octets.items())
    assert all(tag < after for (tag, _), (after, _) in pairwise(found))


EACH_ELEMENT = [
    pytest.param(row, element, id=f"{row['name']}-{element['keyword']}")
    for row in MESSAGES
    for element in row["elements"]
    if element["usage"] != "M"
]


@pytest.mark.parametrize(("row", "element"), EACH_ELEMENT)
@pytest.mark.parametrize("lacking", [None, "without"])
def test_an_element_that_a_message_need_not_have_may_be_left_out(
    row: Any, element: Any, lacking: str | None
) -> None:
    values, octets = sample(row)
    if lacking is None:
        values[element["keyword"]] = None
    else:
        del values[element["keyword"]]
    encoded = command.encode(values)
    assert int(element["tag"], 16) not in dict(elements(encoded))
    assert len(elements(encoded)) == len(octets)
    assert element["keyword"] not in command.decode(encoded)


@pytest.mark.parametrize("row", FACTS["error_elements"]["elements"], ids=lambda row: row["keyword"])
def test_a_response_may_carry_the_elements_that_explain_its_status(row: Any) -> None:
    [response] = [message for message in MESSAGES if message["name"] == "C-STORE-RSP"]
    values, _octets = sample(response)
    value, octets = SAMPLES[row["vr"]]
    encoded = command.encode(values | {row["keyword"]: value})
    assert dict(elements(encoded))[int(row["tag"], 16)] == octets
    assert command.decode(encoded)[row["keyword"]] == value


# --- whether a data set follows


@pytest.mark.parametrize(
    "row", [row for row in MESSAGES if row["data_set"] == "never"], ids=name_of
)
def test_a_message_that_never_has_a_data_set_says_that_none_follows(row: Any) -> None:
    values, _octets = sample(row)
    assert FACTS["command_data_set_type"]["none"] == command.NO_DATA_SET
    assert values["CommandDataSetType"] == command.NO_DATA_SET
    assert not command.decode(command.encode(values)).has_data_set


@pytest.mark.parametrize(
    "row", [row for row in MESSAGES if row["data_set"] != "never"], ids=name_of
)
@pytest.mark.parametrize("kind", [0x0000, 0x0001, 0x0102, 0xFEFE, command.DATA_SET_FOLLOWS])
def test_any_type_but_one_says_that_a_data_set_follows(row: Any, kind: int) -> None:
    values, _octets = sample(row)
    values["CommandDataSetType"] = kind
    assert command.decode(command.encode(values)).has_data_set


def test_without_a_type_no_data_set_follows() -> None:
    assert not command.decode(raw(FIELD)).has_data_set


def test_the_priorities_are_those_of_the_standard() -> None:
    assert {name.upper(): value for name, value in command.PRIORITIES.items()} == FACTS["priority"]
    assert (command.LOW, command.MEDIUM, command.HIGH) == (2, 0, 1)


def test_the_response_bit_is_that_of_the_standard() -> None:
    assert FACTS["response_bit"] == command.RESPONSE


# --- the wire examples, both ways


def meaning_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        keyword: tuple(int(tag, 16) for tag in value) if isinstance(value, list) else value
        for keyword, value in row["meaning"].items()
    }


@pytest.mark.parametrize("row", examples("command_set"), ids=name_of)
def test_an_example_is_what_its_meaning_encodes_to(row: Any) -> None:
    assert command.encode(meaning_of(row)).hex() == row["hex"]


@pytest.mark.parametrize("row", examples("command_set"), ids=name_of)
def test_an_example_decodes_to_its_meaning(row: Any) -> None:
    assert command.decode(bytes.fromhex(row["hex"])) == meaning_of(row)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_can_be_decoded(kind: Any) -> None:
    octets = command.encode({"CommandField": 0x30, "AffectedSOPClassUID": "1.2.840.10008.1.1"})
    found = command.decode(kind(octets))
    assert found.AffectedSOPClassUID == "1.2.840.10008.1.1"
    assert type(found.AffectedSOPClassUID) is str


# --- what is let pass


@pytest.mark.parametrize("length", [0, 1, 0xFFFF_FFFF])
def test_a_group_length_that_is_wrong_does_no_harm(length: int) -> None:
    octets = bytearray(raw(FIELD))
    octets[8:12] = struct.pack("<I", length)
    assert command.decode(octets).CommandField == command.C_ECHO_RQ


def test_a_command_set_without_a_group_length_is_taken() -> None:
    assert command.decode(raw(FIELD)[12:]).CommandField == command.C_ECHO_RQ


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0"])
def test_a_uid_comes_without_its_padding(padding: bytes) -> None:
    found = command.decode(raw((0x0002, b"1.2.3" + padding), FIELD))
    assert found.AffectedSOPClassUID == "1.2.3"


@pytest.mark.parametrize("octets", [b" WS ", b"WS\0\0", b"WS              "])
def test_a_title_comes_without_spaces_and_nuls_around_it(octets: bytes) -> None:
    assert command.decode(raw(FIELD, (0x0600, octets))).MoveDestination == "WS"


@given(st.binary(max_size=64))
def test_whatever_uid_a_request_has_a_response_can_repeat_it(octets: bytes) -> None:
    uid = command.decode(raw(FIELD, (0x1000, octets))).AffectedSOPInstanceUID
    response = command.encode({"CommandField": 0x8001, "AffectedSOPInstanceUID": uid})
    assert command.decode(response).get("AffectedSOPInstanceUID", "") == uid


# --- what is refused


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(raw((0x0002, b"1.2.3\0")), id="no-command-field"),
        pytest.param(raw(FIELD) + b"\0", id="octet-behind-the-last"),
        pytest.param(raw(FIELD)[:-1], id="one-octet-short"),
        pytest.param(raw(FIELD, (0x0008_0018, b"1.2.3\0")), id="element-of-another-group"),
        pytest.param(raw((0x0100, b"\x30")), id="US-of-1-octet"),
        pytest.param(raw((0x0100, b"\x30\0\x31\0")), id="US-of-4-octets"),
        pytest.param(raw(FIELD, (0x1005, b"\x10\0\x20")), id="AT-of-3-octets"),
        pytest.param(raw(FIELD, (0x0000, b"\0\0")), id="UL-of-2-octets"),
        pytest.param(struct.pack("<HHI", 0, 0x0100, 0xFFFF_FFFF) + b"\0\0", id="length-of-4-GiB"),
    ],
)
def test_what_is_no_command_set_is_a_violation(octets: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        command.decode(octets)


def test_a_violation_says_the_element_and_what_was_found() -> None:
    octets = raw(FIELD, (0x0110, b"\x07\0"))[:-1]
    with pytest.raises(ProtocolViolation) as violation:
        command.decode(octets)
    assert str(violation.value) == "command element (0000,0110) of 2 octets where 1 are left"


@pytest.mark.parametrize(
    "values",
    [
        {"PatientName": "DOE"},
        {"MessageID": 0x10000},
        {"MessageID": -1},
        {"MessageID": "7"},
        {"AffectedSOPClassUID": 7},
        {"AffectedSOPClassUID": "1.2.\u6f22"},
        {"AttributeIdentifierList": 0x0010_0020},
        {"AttributeIdentifierList": (1 << 32,)},
        {"MoveDestination": "SEVENTEEN_LETTERS"},
        {"MoveDestination": "\u6f22"},
    ],
    ids=str,
)
def test_what_has_no_place_in_a_command_set_cannot_be_encoded(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        command.encode({"CommandField": 0x30} | values)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AffectedSOPInstanceUID", ""),
        ("MoveOriginatorApplicationEntityTitle", ""),
        ("ErrorComment", ""),
        ("AttributeIdentifierList", ()),
    ],
)
def test_an_empty_element_is_left_out(keyword: str, value: Any) -> None:
    assert command.encode({"CommandField": 0x30, keyword: value}) == raw(FIELD)


@pytest.mark.parametrize(
    ("comment", "sent"),
    [
        ("disk full", "disk full"),
        ("x" * 65, "x" * 64),
        ("größer", "gr??er"),
        ("a\\b", "a?b"),
        ("first line\n  second\tline\r\n", "first line second line"),
        ("bell\x07", "bell?"),
    ],
)
def test_a_comment_becomes_one_line_that_fits(comment: str, sent: str) -> None:
    octets = command.encode({"CommandField": 0x8001, "ErrorComment": comment})
    assert command.decode(octets).ErrorComment == sent


@pytest.mark.parametrize("field", [0x0000, 0x0002, 0x0FFE, 0x8FFF, 0xFFFF])
def test_a_command_field_that_the_standard_lacks_is_named_by_its_number(field: int) -> None:
    assert command.message_name(field) == f"command {field:04X}H"


# --- anything at all


@given(command_sets)
def test_any_command_set_decodes_to_what_was_encoded(values: dict[str, Any]) -> None:
    octets = command.encode(values)
    found = command.decode(octets)
    assert found.pop("CommandGroupLength") == len(octets) - 12
    assert found == values
    assert len(octets) % 2 == 0


@given(st.binary(max_size=200))
def test_arbitrary_octets_are_a_command_set_or_a_violation(octets: bytes) -> None:
    try:
        found = command.decode(octets)
    except ProtocolViolation:
        return
    assert "CommandField" in found


@given(st.data())
def test_a_damaged_command_set_is_a_command_set_or_a_violation(data: st.DataObject) -> None:
    octets = data.draw(damaged(command.encode(data.draw(command_sets))))
    try:
        found = command.decode(octets)
    except ProtocolViolation:
        return
    assert isinstance(found.has_data_set, bool)
    assert found.name


@given(st.data())
def test_what_came_before_changes_nothing(data: st.DataObject) -> None:
    first = command.encode(data.draw(command_sets))
    second = data.draw(st.one_of(st.just(first), damaged(first)))
    place = data.draw(st.integers(0, max(len(second) - 1, 0)))
    third = second[:place] + data.draw(st.binary(min_size=2, max_size=2)) + second[place + 2 :]
    command._known.clear()
    found = [_decoded(octets) for octets in (first, second, third, second, first)]
    for octets, warm in zip((first, second, third, second, first), found, strict=True):
        command._known.clear()
        assert _decoded(octets) == warm


def test_only_the_message_id_of_a_repeated_command_set_is_read() -> None:
    for message_id in (1, 2, 0xFFFF):
        echo = {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandField": 0x30}
        found = command.decode(command.encode({**echo, "MessageID": message_id}))
        assert (found.MessageID, found.AffectedSOPClassUID) == (message_id, "1.2.840.10008.1.1")
        found["Priority"] = 1  # a caller's change is not what the next one finds
    assert len(command._known) <= command._MOST_KNOWN
    assert "Priority" not in command.decode(command.encode({**echo, "MessageID": 4}))


def test_of_two_message_ids_the_last_counts_however_often_they_come() -> None:
    last = struct.pack("<HHIH", 0, 0x0110, 2, 7)
    for first in (1, 2, 3):
        echo = {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandField": 0x30}
        assert command.decode(command.encode({**echo, "MessageID": first}) + last).MessageID == 7


def test_what_is_remembered_of_a_peer_that_never_repeats_itself_has_an_end() -> None:
    for number in range(10 * command._MOST_KNOWN):
        request = {"CommandField": 0x20, "AffectedSOPClassUID": f"1.2.{number}", "MessageID": 1}
        command.decode(command.encode(request))
    assert len(command._known) <= command._MOST_KNOWN


def test_long_values_are_not_remembered() -> None:
    command._known.clear()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100):
            uid = f"{number:05}" + "1" * 50_000
            request = {"CommandField": 0x20, "AffectedSOPClassUID": "1.2", "MessageID": 1}
            command.decode(command.encode({**request, "RequestedSOPInstanceUID": uid}))
            command.encode({**request, "AffectedSOPClassUID": uid})
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


def _decoded(octets: bytes) -> Any:
    try:
        return command.decode(octets)
    except ProtocolViolation as violation:
        return str(violation)


@pytest.mark.parametrize(
    ("request_", "repeated"),
    [
        ({"CommandField": 0x0130, "ActionTypeID": 2}, {"ActionTypeID": 2}),
        ({"CommandField": 0x0100, "EventTypeID": 3}, {"EventTypeID": 3}),
        (
            {"CommandField": 0x0110, "RequestedSOPClassUID": "1.2", "RequestedSOPInstanceUID": "1"},
            {"AffectedSOPClassUID": "1.2", "AffectedSOPInstanceUID": "1"},
        ),
        ({"CommandField": 0x0030, "AffectedSOPInstanceUID": "1"}, {}),
    ],
    ids=["action", "event", "requested becomes affected", "no instance in a C-ECHO"],
)
def test_a_response_repeats_what_its_request_was_about(
    request_: dict[str, Any], repeated: dict[str, Any]
) -> None:
    request = command.CommandSet(request_, MessageID=9)
    assert command.response_to(request) == {
        "CommandField": request_["CommandField"] | command.RESPONSE,
        "MessageIDBeingRespondedTo": 9,
        "CommandDataSetType": command.NO_DATA_SET,
        **repeated,
    }


UIDS_AS_THEY_COME = st.one_of(
    st.just(""),
    st.sampled_from(["1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2", "1"]),
    st.text(st.characters(max_codepoint=255), max_size=80),
)


@given(
    field=st.sampled_from([command.C_ECHO_RQ, command.C_STORE_RQ]),
    class_uid=UIDS_AS_THEY_COME,
    instance_uid=UIDS_AS_THEY_COME,
    message_id=st.integers(0, 0xFFFF),
    status=st.integers(0, 0xFFFF),
)
def test_a_mere_status_is_encoded_as_any_response_is(
    field: int, class_uid: str, instance_uid: str, message_id: int, status: int
) -> None:
    request = command.CommandSet(
        AffectedSOPClassUID=class_uid, CommandField=field, MessageID=message_id
    )
    if field == command.C_STORE_RQ:
        request["AffectedSOPInstanceUID"] = instance_uid
    whole = command.encode({**command.response_to(request), "Status": status})
    assert command.encode_status(request, status) == whole


@pytest.mark.parametrize("name", ["C-STORE-RQ", "C-STORE-RSP"])
def test_of_a_repeated_store_the_instance_is_read_each_time(name: str) -> None:
    key = "MessageID" if name.endswith("RQ") else "MessageIDBeingRespondedTo"
    field = command.C_STORE_RQ | (command.RESPONSE if name.endswith("RSP") else 0)
    for number, instance in enumerate(["1.2.3", "1.2.3.4", "", "1.2.3.45", "1.2.3"], 1):
        meant = {
            "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "CommandField": field,
            key: number,
            **({"Priority": 0} if name.endswith("RQ") else {}),
            "CommandDataSetType": 1 if name.endswith("RQ") else command.NO_DATA_SET,
            **({"Status": 0} if name.endswith("RSP") else {}),
            "AffectedSOPInstanceUID": instance,
        }
        octets = command.encode(meant)
        decoded = dict(command.decode(octets))
        assert decoded.pop("CommandGroupLength") == len(octets) - 12
        assert decoded == {keyword: value for keyword, value in meant.items() if value != ""}


def test_what_looks_like_an_instance_within_another_value_is_not_taken_for_one() -> None:
    """A value that goes on behind the place where most have their instance UID."""
    value = b"A LONG TITLE" + b"\x00\x00\x00\x10\x04\x00\x00\x001.23"
    octets = command.encode({"CommandField": command.C_STORE_RQ, "MessageID": 7})
    octets += struct.pack("<HHI", 0, 0x1030, len(value)) + value
    for _ in range(2):
        decoded = command.decode(octets)
        assert decoded.AffectedSOPInstanceUID is None
        assert decoded.MoveOriginatorApplicationEntityTitle == value.decode()


# --- and what was encoded before changes nothing either


@given(st.lists(command_sets, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_was_encoded_before_changes_nothing(sets: list[Any], chance: Any) -> None:
    command._STEPS.clear()
    for values in sets * 2:
        keywords = list(values)
        chance.shuffle(keywords)
        found = command.encode({keyword: values[keyword] for keyword in keywords})
        assert found == by_hand(_elements(values))


def _elements(values: dict[str, Any]) -> dict[int, Any]:
    """As `by_hand` takes them, which remembers nothing."""
    elements: dict[int, Any] = {}
    for element, keyword, vr in command.ELEMENTS:
        value = values.get(keyword)
        if value is None:
            continue
        if vr == "AT":
            value = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
        elif vr in ("AE", "LO"):
            value += " " * (len(value) & 1)
        elements[element] = value
    return elements


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_a_class_is_encoded_alike_whether_it_was_met_before_or_not(length: int) -> None:
    uid = "1" * length
    found = {command.encode({"AffectedSOPClassUID": uid, "CommandField": 0x30}) for _ in range(300)}
    assert found == {by_hand({0x0002: uid, 0x0100: 0x30})}
