"""PDUs and items as ``pdus.json``, ``negotiation.json`` and ``wire_examples.json`` have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from facts import examples, facts, lay_out, name_of
from pdu_samples import (
    ACCEPTED,
    APPLICATION_CONTEXT,
    COMMON,
    CT,
    IMPLEMENTATION,
    IMPLICIT,
    MAXIMUM,
    PDUS,
    PROPOSED,
    REQUEST,
    associate,
    decoded,
    item,
)

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import negotiation, pdu

FACTS = facts("pdus")


# --- the wire examples, both ways


def user_item(meaning: dict[str, Any]) -> pdu.UserItem:
    """The value that an example of a user information item means."""
    of = dict(meaning)
    match of.pop("item"):
        case "51":
            return pdu.MaximumLength(of["maximum_length_received"])
        case "52":
            return pdu.ImplementationClassUID(of["implementation_class_uid"])
        case "53":
            return pdu.AsynchronousOperationsWindow(
                of["maximum_number_operations_invoked"], of["maximum_number_operations_performed"]
            )
        case "54":
            return pdu.RoleSelection(
                of["sop_class_uid"], bool(of["scu_role"]), bool(of["scp_role"])
            )
        case "55":
            return pdu.ImplementationVersionName(of["implementation_version_name"])
        case "56":
            information = bytes.fromhex(of["service_class_application_information"])
            return pdu.SOPClassExtendedNegotiation(of["sop_class_uid"], information)
        case "57":
            return pdu.SOPClassCommonExtendedNegotiation(
                of["sop_class_uid"],
                of["service_class_uid"],
                tuple(of["related_general_sop_class_uids"]),
            )
        case "58":
            return pdu.UserIdentity(
                of["user_identity_type"],
                bytes.fromhex(of["primary_field"]),
                bytes.fromhex(of["secondary_field"]),
                bool(of["positive_response_requested"]),
            )
        case "59":
            return pdu.UserIdentityResponse(bytes.fromhex(of["server_response"]))
    raise AssertionError(meaning)


def context(meaning: dict[str, Any]) -> pdu.ProposedContext | pdu.ContextResult:
    """The value that an example of a presentation context means."""
    if "abstract_syntax" in meaning:
        transfer = tuple(meaning["transfer_syntaxes"])
        return pdu.ProposedContext(meaning["id"], meaning["abstract_syntax"], transfer)
    return pdu.ContextResult(meaning["id"], meaning["result"], meaning["transfer_syntax"])


def value_of(meaning: dict[str, Any]) -> pdu.PDU:
    """The value that an example of a PDU means."""
    match meaning["pdu"]:
        case "A-ASSOCIATE-RQ" | "A-ASSOCIATE-AC" as name:
            kind: Any = pdu.AssociateRQ if name == "A-ASSOCIATE-RQ" else pdu.AssociateAC
            value: pdu.PDU = kind(
                meaning["called_ae_title"],
                meaning["calling_ae_title"],
                tuple(map(context, meaning["presentation_contexts"])),
                tuple(map(user_item, meaning["user_information"])),
                meaning["application_context_name"],
                meaning["protocol_version"],
            )
            return value
        case "A-ASSOCIATE-RJ":
            return pdu.AssociateRJ(meaning["result"], meaning["source"], meaning["reason"])
        case "P-DATA-TF":
            return pdu.PDataTF(
                tuple(
                    pdu.PresentationDataValue(
                        of["context_id"],
                        of["is_command"],
                        of["is_last"],
                        bytes.fromhex(of["fragment"]),
                    )
                    for of in meaning["pdvs"]
                )
            )
        case "A-RELEASE-RQ":
            return pdu.ReleaseRQ()
        case "A-RELEASE-RP":
            return pdu.ReleaseRP()
        case "A-ABORT":
            return pdu.Abort(meaning["source"], meaning["reason"])
    raise AssertionError(meaning)


def without_meaningless_transfer_syntaxes(value: pdu.PDU) -> pdu.PDU:
    """A context that is not accepted has a transfer syntax on the wire that says nothing."""
    if not isinstance(value, pdu.AssociateAC):
        return value
    contexts = tuple(
        pdu.ContextResult(result.id, result.result, "") if result.result else result
        for result in value.contexts
    )
    return pdu.AssociateAC(
        value.called_ae_title,
        value.calling_ae_title,
        contexts,
        value.user_information,
        value.application_context,
        value.protocol_version,
    )


@pytest.mark.parametrize("row", examples("pdu"), ids=name_of)
def test_an_example_pdu_is_what_its_meaning_encodes_to(row: Any) -> None:
    assert value_of(row["meaning"]).encode().hex() == row["hex"]


@pytest.mark.parametrize("row", examples("pdu"), ids=name_of)
def test_an_example_pdu_decodes_to_its_meaning(row: Any) -> None:
    value = without_meaningless_transfer_syntaxes(value_of(row["meaning"]))
    assert decoded(bytes.fromhex(row["hex"])) == value


ITEM_VALUES: dict[str, Callable[[dict[str, Any]], Any]] = {"20": context, "21": context}
OWN_ITEMS = [row for row in examples("item") if row["meaning"]["item"] not in ("10", "30", "40")]


@pytest.mark.parametrize("row", OWN_ITEMS, ids=name_of)
def test_an_example_item_is_what_its_meaning_encodes_to(row: Any) -> None:
    value = ITEM_VALUES.get(row["meaning"]["item"], user_item)(row["meaning"])
    assert value.encode().hex() == row["hex"]


@pytest.mark.parametrize("row", OWN_ITEMS, ids=name_of)
def test_an_example_item_decodes_to_its_meaning(row: Any) -> None:
    value = ITEM_VALUES.get(row["meaning"]["item"], user_item)(row["meaning"])
    assert pdu.decode_items(bytes.fromhex(row["hex"])) == [value]


def example_item(kind: str) -> tuple[dict[str, Any], bytes]:
    [row] = [row for row in examples("item") if row["meaning"]["item"] == kind]
    return row["meaning"], bytes.fromhex(row["hex"])


def test_the_example_application_context_is_the_first_item_of_an_association_pdu() -> None:
    meaning, octets = example_item("10")
    encoded = REQUEST.encode()
    assert encoded[74 : 74 + len(octets)] == octets
    value = decoded(encoded)
    assert isinstance(value, pdu.AssociateRQ)
    assert value.application_context == meaning["application_context_name"]


def test_the_example_abstract_and_transfer_syntax_make_a_presentation_context() -> None:
    abstract, abstract_octets = example_item("30")
    transfer, transfer_octets = example_item("40")
    value = pdu.ProposedContext(
        9, abstract["abstract_syntax_name"], (transfer["transfer_syntax_name"],)
    )
    octets = item(0x20, b"\x09\0\0\0" + abstract_octets + transfer_octets)
    assert value.encode() == octets
    assert pdu.decode_items(octets) == [value]


# --- the layouts


def number_or_octets(field: dict[str, Any], sample: Any) -> Any:
    """What the layout table itself says of a field, or what the sample has there."""
    return field.get("value", field.get("fixed", sample))


EXPECTED_IN_PDUS: dict[str, dict[str, Any]] = {
    "A-ASSOCIATE-RQ": {
        "called_ae_title": b"ARCHIVE".ljust(16),
        "calling_ae_title": b"MODALITY_1".ljust(16),
    },
    "A-ASSOCIATE-AC": {
        "reserved_called_ae_title": b"ARCHIVE".ljust(16),
        "reserved_calling_ae_title": b"MODALITY_1".ljust(16),
    },
    "A-ASSOCIATE-RJ": {"result": 2, "source": 3, "reason": 1},
    "P-DATA-TF": {},
    "A-RELEASE-RQ": {},
    "A-RELEASE-RP": {},
    "A-ABORT": {"source": 2, "reason": 6},
}


@pytest.mark.parametrize("row", FACTS["pdus"], ids=name_of)
def test_each_field_of_a_pdu_stands_where_the_standard_has_it(row: Any) -> None:
    octets = PDUS[row["name"]].encode()
    found = lay_out(row["fields"], octets)
    assert len(octets) == row.get("total_size", len(octets))
    for field, (name, part) in zip(row["fields"], found, strict=True):
        if field["kind"] == "reserved":
            assert part == bytes(len(part)), name
        elif name == "length":
            assert int.from_bytes(part, "big") == field.get("fixed", len(octets) - 6)
        elif field["kind"] in ("uint", "bitfield"):
            expected = EXPECTED_IN_PDUS[row["name"]].get(name)
            assert int.from_bytes(part, "big") == number_or_octets(field, expected), name
        elif field["kind"] in ("ae", "echo") and name != "reserved":
            assert part == EXPECTED_IN_PDUS[row["name"]][name]


@pytest.mark.parametrize("row", FACTS["pdus"], ids=name_of)
def test_reserved_octets_of_a_pdu_are_not_tested(row: Any) -> None:
    octets = bytearray(PDUS[row["name"]].encode())
    for field in row["fields"]:
        if field["kind"] == "reserved":
            end = field["offset"] + field["size"]
            octets[field["offset"] : end] = b"\xff" * field["size"]
    assert decoded(bytes(octets)) == PDUS[row["name"]]


def test_an_acceptance_repeats_titles_and_reserved_octets_of_its_request() -> None:
    octets = bytearray(REQUEST.encode())
    octets[42:74] = bytes(range(32))
    request = decoded(bytes(octets))
    assert isinstance(request, pdu.AssociateRQ)
    answer, _agreement = negotiation.accept(request, negotiation.Policy({CT: ()}))
    assert answer.encode()[10:74] == octets[10:74]


UID_ITEMS = {"application_context_name": APPLICATION_CONTEXT}
IDENTITY = pdu.UserIdentity(2, b"gantry", b"open sesame", response=True)
# A sample of each item type and what its fields must then hold; texts stand for their octets.
ITEMS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "10": (item(0x10, APPLICATION_CONTEXT.encode()), UID_ITEMS),
    "20": (PROPOSED.encode(), {"presentation_context_id": 5}),
    "21": (ACCEPTED.encode(), {"presentation_context_id": 5, "result": 0}),
    "30": (PROPOSED.encode()[8 : 8 + 4 + len(CT)], {"abstract_syntax_name": CT}),
    "40": (ACCEPTED.encode()[8:], {"transfer_syntax_name": IMPLICIT}),
    "50": (item(0x50, MAXIMUM.encode() + IMPLEMENTATION.encode()), {}),
    "51": (MAXIMUM.encode(), {"maximum_length_received": 28672}),
    "52": (IMPLEMENTATION.encode(), {"implementation_class_uid": IMPLEMENTATION.uid}),
    "53": (
        pdu.AsynchronousOperationsWindow(4, 9).encode(),
        {"maximum_number_operations_invoked": 4, "maximum_number_operations_performed": 9},
    ),
    "54": (
        pdu.RoleSelection(CT, False, True).encode(),
        {"uid_length": len(CT), "sop_class_uid": CT, "scu_role": 0, "scp_role": 1},
    ),
    "55": (
        pdu.ImplementationVersionName("EXAMPLE_1.0").encode(),
        {"implementation_version_name": "EXAMPLE_1.0"},
    ),
    "56": (
        pdu.SOPClassExtendedNegotiation(CT, b"\x01\x02\x03").encode(),
        {
            "sop_class_uid_length": len(CT),
            "sop_class_uid": CT,
            "service_class_application_information": b"\x01\x02\x03",
        },
    ),
    "57": (
        COMMON.encode(),
        {
            "sop_class_uid_length": len(CT),
            "sop_class_uid": CT,
            "service_class_uid_length": 17,
            "service_class_uid": "1.2.840.10008.4.2",
            "related_general_sop_class_identification_length": 2 + 5 + 2 + 7,
            "related_general_sop_class_identification": b"\0\x051.2.3\0\x071.2.3.4",
        },
    ),
    "58": (
        IDENTITY.encode(),
        {
            "user_identity_type": 2,
            "positive_response_requested": 1,
            "primary_field_length": 6,
            "primary_field": b"gantry",
            "secondary_field_length": 11,
            "secondary_field": b"open sesame",
        },
    ),
    "59": (
        pdu.UserIdentityResponse(b"\x01\x02\x03").encode(),
        {"server_response_length": 3, "server_response": b"\x01\x02\x03"},
    ),
}


def test_the_samples_are_of_all_item_types_that_the_standard_has() -> None:
    assert set(ITEMS) == {row["type_hex"] for row in FACTS["items"]}


def check_field(name: str, part: bytes, expected: Any) -> None:
    if isinstance(expected, int):
        assert int.from_bytes(part, "big") == expected, name
    else:
        assert part == (expected.encode() if isinstance(expected, str) else expected), name


@pytest.mark.parametrize("row", FACTS["items"], ids=name_of)
def test_each_field_of_an_item_stands_where_the_standard_has_it(row: Any) -> None:
    octets, expected = ITEMS[row["type_hex"]]
    for field, (name, part) in zip(row["fields"], lay_out(row["fields"], octets), strict=True):
        if field["kind"] == "reserved":
            assert part == bytes(len(part))
        elif name == "length":
            assert int.from_bytes(part, "big") == field.get("fixed", len(octets) - 4)
        elif field["kind"] != "items":
            check_field(name, part, number_or_octets(field, expected.get(name)))


@pytest.mark.parametrize("row", facts("negotiation")["user_information_items"], ids=name_of)
def test_each_field_of_a_user_information_item_is_what_negotiation_says(row: Any) -> None:
    octets, expected = ITEMS[row["type"]]
    layout = [dict(field, offset=None) for field in row["layout"]]
    for field, (name, part) in zip(row["layout"], lay_out(layout, octets), strict=True):
        if name == "type":
            assert part.hex() == field["value"]
        elif name == "length":
            assert int.from_bytes(part, "big") == field.get("value", len(octets) - 4)
        elif name in expected:
            check_field(name, part, expected[name])
        else:
            assert part == bytes(len(part)), name


OWN_TYPES = {0x20, 0x21, *range(0x51, 0x5A)}


@pytest.mark.parametrize(
    "row", [row for row in FACTS["items"] if row["type"] in OWN_TYPES], ids=name_of
)
def test_reserved_octets_of_an_item_are_not_tested(row: Any) -> None:
    octets = bytearray(ITEMS[row["type_hex"]][0])
    before = pdu.decode_items(bytes(octets))
    assert before
    for field in row["fields"]:
        if field["kind"] == "reserved" and field["size"]:
            octets[field["offset"]] = 0xFF
    assert pdu.decode_items(bytes(octets)) == before


def test_a_presentation_data_value_is_laid_out_as_the_standard_has_it() -> None:
    value = pdu.PresentationDataValue(7, False, True, b"\x01\x02\x03\x04")
    found = dict(lay_out(FACTS["presentation_data_value"]["fields"], value.encode()))
    assert found == {
        "length": b"\0\0\0\x06",
        "presentation_context_id": b"\x07",
        "message_control_header": b"\x02",
        "fragment": b"\x01\x02\x03\x04",
    }


CONTROL = FACTS["codes"]["message_control_header"]["values"]


@pytest.mark.parametrize(("code", "meaning"), CONTROL.items(), ids=CONTROL.values())
def test_the_control_header_says_command_or_data_and_whether_it_is_the_last(
    code: str, meaning: str
) -> None:
    is_command, is_last = "command" in meaning, "last" in meaning
    value = pdu.PresentationDataValue(1, is_command, is_last, b"")
    assert value.encode()[5] == int(code)
    # Bits 2 to 7 are not checked.
    octets = value.encode()[:5] + bytes((int(code) | 0xFC,))
    assert pdu.PDataTF.decode(memoryview(octets)) == pdu.PDataTF((value,))


@pytest.mark.parametrize("name", ["A-ASSOCIATE-RQ", "A-ASSOCIATE-AC"])
def test_items_are_sent_in_rising_order_of_type(name: str) -> None:
    [row] = [row for row in FACTS["pdus"] if row["name"] == name]
    value: Any = PDUS[name]
    backwards = type(value)(
        value.called_ae_title, value.calling_ae_title, value.contexts, value.user_information[::-1]
    )
    items = backwards.encode()[74:]
    kinds = []
    while items:
        kinds.append(f"{items[0]:02X}")
        length = int.from_bytes(items[2:4], "big")
        last, items = items[: 4 + length], items[4 + length :]
    assert kinds == row["fields"][-1]["contains"]
    assert last[4] == 0x51
    assert last[4 + 8] == 0x52


@pytest.mark.parametrize("name", ["A-ASSOCIATE-RQ", "A-ASSOCIATE-AC"])
def test_items_may_come_in_any_order(name: str) -> None:
    value: Any = PDUS[name]
    contexts = b"".join(context.encode() for context in value.contexts)
    user = item(0x50, IMPLEMENTATION.encode() + MAXIMUM.encode())
    octets = associate(value.kind, user + contexts + item(0x10, APPLICATION_CONTEXT.encode()))
    found = decoded(octets)
    assert isinstance(found, pdu.AssociateRQ | pdu.AssociateAC)
    assert found.contexts == value.contexts
    assert found.item(pdu.MaximumLength) == MAXIMUM


# --- items cut short

CUT_ITEMS = {
    kind: octets
    for kind, (octets, _fields) in ITEMS.items()
    if kind in ("20", "51", "53", "54", "57", "58", "59")
}


@pytest.mark.parametrize("kind", CUT_ITEMS)
def test_an_item_whose_fields_run_past_its_end_is_a_violation(kind: str) -> None:
    octets = CUT_ITEMS[kind]
    whole_transfer_syntaxes_gone = 4 + 4 + 4 + len(CT) + 4 + len(IMPLICIT)
    for size in range(len(octets) - 4):
        if kind == "20" and size == whole_transfer_syntaxes_gone - 4:
            continue  # what is left is a whole context with one transfer syntax less
        with pytest.raises(ProtocolViolation):
            pdu.decode_items(item(int(kind, 16), octets[4 : 4 + size]))


@pytest.mark.parametrize("kind", ITEMS)
def test_an_item_longer_than_what_holds_it_is_a_violation(kind: str) -> None:
    octets, _fields = ITEMS[kind]
    for size in range(1, len(octets)):
        with pytest.raises(ProtocolViolation, match="octets"):
            pdu.decode_items(octets[:size])


# --- codes


@pytest.mark.parametrize(
    ("code", "name"),
    FACTS["codes"]["presentation_context_result"].items(),
    ids=FACTS["codes"]["presentation_context_result"],
)
def test_context_results_have_the_names_of_the_standard(code: str, name: str) -> None:
    named = {
        "acceptance": negotiation.ACCEPTANCE,
        "user rejection": negotiation.USER_REJECTION,
        "no reason": negotiation.NO_REASON,
        "abstract syntax not supported": negotiation.ABSTRACT_SYNTAX_NOT_SUPPORTED,
        "transfer syntaxes not supported": negotiation.TRANSFER_SYNTAXES_NOT_SUPPORTED,
    }
    assert named[name.split(" (")[0]] == int(code)


@pytest.mark.parametrize("code", FACTS["codes"]["role"])
@pytest.mark.parametrize("role", ["scu", "scp"])
def test_a_role_is_one_or_zero(code: str, role: str) -> None:
    value = pdu.RoleSelection(CT, scu=role == "scu", scp=role == "scp")
    octets = bytearray(value.encode())
    at = -2 if role == "scu" else -1
    assert octets[at] == 1
    octets[at] = int(code)
    [found] = pdu.decode_items(bytes(octets))
    assert getattr(found, role) == bool(int(code))


IDENTITIES = {
    1: pdu.UserIdentity.username("Müller"),
    2: pdu.UserIdentity.password("Müller", "geheim"),
    3: pdu.UserIdentity.kerberos(b"\x60\x82"),
    4: pdu.UserIdentity.saml("<Assertion/>"),
    5: pdu.UserIdentity.jwt("e30.e30.c2ln"),
}


@pytest.mark.parametrize("row", facts("negotiation")["user_identity"]["types"], ids=name_of)
def test_each_type_of_user_identity_has_its_fields(row: Any) -> None:
    identity = IDENTITIES[row["type"]]
    assert str(row["type"]) in FACTS["codes"]["user_identity_type"]
    assert identity.type == row["type"]
    assert identity.primary
    assert bool(identity.secondary) == (row["secondary_field"] != "empty")
    assert identity.encode()[4:6] == bytes((row["type"], 0))


def test_a_user_name_and_a_passcode_are_utf_8() -> None:
    identity = pdu.UserIdentity.password("Müller", "größer", response=True)
    assert (identity.primary, identity.secondary) == ("Müller".encode(), "größer".encode())
    assert identity.response


def test_what_proves_an_identity_is_never_shown() -> None:
    shown = repr(pdu.UserIdentity.password("gantry", "open sesame"))
    shown += repr(pdu.UserIdentityResponse(b"ticket"))
    assert "gantry" not in shown
    assert "sesame" not in shown
    assert "ticket" not in shown


# --- the rules

RULES = {
    "pdata-limit": "dimse/test_message.py::test_no_fragment_makes_a_pdu_longer_than_the_peer_takes",
    "fragments-even": "dimse/test_message.py::test_every_fragment_but_the_last_has_an_even_length",
    "one-message": "dimse/test_message.py::test_a_command_before_the_end_of_a_data_set",
    "same-context": "dimse/test_message.py::test_a_data_set_in_another_context_than_its_command",
    "empty-pdv": "upperlayer/test_framing.py::test_a_value_without_a_fragment_is_taken",
    "same-kind-neighbours": "upperlayer/test_framing.py::test_two_values_of_the_same_kind_in_one",
    "command-then-data-in-one-pdu": "upperlayer/test_framing.py::test_a_command_and_its_data_may",
    "context-results": "upperlayer/test_negotiation.py::test_context_results_may_come_in_any_order",
    "context-count": "upperlayer/test_negotiation.py::test_more_than_128_contexts_cannot_be",
    "role-acceptor": "upperlayer/test_negotiation.py::test_an_acceptor_never_answers_a_role_that",
    "user-identity-reject": "test_errors.py::test_a_rejection_says_in_words",
    "uid-components": "test_uids.py::test_a_uid_that_is_not_built_as_the_standard_says",
}


@pytest.mark.parametrize("rule", FACTS["rules"], ids=lambda rule: str(rule["id"]))
def test_each_rule_of_the_standard_has_its_test(rule: Any) -> None:
    where, name = RULES[rule["id"]].split("::")
    text = (Path(__file__).parent.parent / where).read_text(encoding="utf-8")
    assert f"def {name}" in text
