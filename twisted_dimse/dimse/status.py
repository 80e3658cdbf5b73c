"""Statuses (PS3.7 annex C): their names, their categories and what they mean.

A status is an ``int`` of 16 bits, as the response carries it. Codes 01xx and 02xx mean the same in
every service; those from Axxx to Cxxx mean what the service class says, so that `meaning` takes
the message, and the service class where it is known.

    category(0xB000)                     # Category.WARNING, which is "warning"
    meaning(0xB000, "C-STORE")           # 'Data elements coerced'
    meaning(0xB000, "C-MOVE")            # 'Sub-operations complete, one or more failed …'
    related_elements(0xA900, "C-STORE")  # ('OffendingElement', 'ErrorComment')
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_dimse.dimse.status_tables import Row

# General statuses (PS3.7 C.1 to C.5): any service may answer them.
SUCCESS = 0x0000
WARNING_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
NO_SUCH_ATTRIBUTE = 0x0105
INVALID_ATTRIBUTE_VALUE = 0x0106
ATTRIBUTE_LIST_ERROR = 0x0107
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
NO_SUCH_ARGUMENT = 0x0114
INVALID_ARGUMENT_VALUE = 0x0115
ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
INVALID_SOP_INSTANCE_UID = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION_TYPE = 0x0123
NOT_AUTHORIZED = 0x0124
DUPLICATE_INVOCATION = 0x0210
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
CANCEL = 0xFE00
PENDING = 0xFF00

# Storage, C-STORE (PS3.4 Table B.2-1): A7, A9 and C stand for their ranges. A700 and A900 are also
# for C-FIND.
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
ELEMENTS_COERCED = 0xB000
ELEMENTS_DISCARDED = 0xB006
STORED_ALTHOUGH_NOT_MATCHING = 0xB007

# Query/Retrieve, C-FIND, C-MOVE and C-GET (PS3.4 Tables C.4-1 to C.4-3).
PENDING_OPTIONAL_KEYS_NOT_SUPPORTED = 0xFF01
UNABLE_TO_PROCESS = 0xC000
CANNOT_CALCULATE_MATCHES = 0xA701
CANNOT_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
SUBOPERATIONS_FAILED = 0xB000


class Category(StrEnum):
    """The five kinds of status (PS3.7 C.1 to C.5)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


def category(status: int) -> Category:
    """Which kind of status a code is (PS3.7 annex C). One that no rule names is a failure."""
    if status == SUCCESS:
        return Category.SUCCESS
    if status in (PENDING, PENDING_OPTIONAL_KEYS_NOT_SUPPORTED):
        return Category.PENDING
    if 0xB000 <= status <= 0xBFFF or status in _GENERAL_WARNINGS:
        return Category.WARNING
    if status == CANCEL:
        return Category.CANCEL
    return Category.FAILURE


_GENERAL_WARNINGS = (
    WARNING_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
    ATTRIBUTE_LIST_ERROR,
    ATTRIBUTE_VALUE_OUT_OF_RANGE,
)


def meaning(status: int, message: str | None = None, service_class: str | None = None) -> str:
    """What a status says, in a few words without a full stop.

    ``message`` is the service or its response ("C-STORE", "C-STORE-RSP") and ``service_class`` the
    name that PS3.4 gives the service class ("Storage"). Without them a code that means one thing
    here and another there is described by its category only.
    """
    if service_class is not None:
        row = next(_rows(status, message, service_class), None)
        if row is not None:
            return row.meaning
    if status in _GENERAL:
        return _GENERAL[status][0]
    meanings = [row.meaning for row in _rows(status, message, None)]
    if meanings and (message is not None or len(set(meanings)) == 1):
        return meanings[0]  # the common service classes stand first
    if 0xA000 <= status <= 0xCFFF or category(status) is Category.PENDING:
        return f"{category(status)} as the service class defines it"
    return "unknown, taken for a failure"


def related_elements(
    status: int, message: str | None = None, service_class: str | None = None
) -> tuple[str, ...]:
    """The keywords of what a response with ``status`` may say about it; arguments as in `meaning`.

    "Identifier" stands for the data set of a match, "DataSet" for one with the offending values.
    """
    general = _GENERAL[status][1] if status in _GENERAL else ()
    if message is None and service_class is None:
        return general
    row = next(_rows(status, message, service_class), None)
    return row.related if row is not None and row.related else general


def _rows(status: int, message: str | None, service_class: str | None) -> Iterator[Row]:
    from twisted_dimse.dimse.status_tables import TABLES

    for table in TABLES:
        if service_class not in (None, table.service_class):
            continue
        if message is not None and not any(name.startswith(message) for name in table.messages):
            continue
        yield from (row for row in table.rows if row.first <= status <= row.last)


# The general statuses in words, and what may go with each (PS3.7 C.1 to C.5).
_GENERAL: dict[int, tuple[str, tuple[str, ...]]] = {
    SUCCESS: ("Success", ()),
    NO_SUCH_ATTRIBUTE: ("No such attribute", ("AttributeIdentifierList",)),
    INVALID_ATTRIBUTE_VALUE: ("Invalid attribute value", ("DataSet",)),
    ATTRIBUTE_LIST_ERROR: (
        "Attribute list error",
        ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "AttributeIdentifierList"),
    ),
    PROCESSING_FAILURE: (
        "Processing failure",
        ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "ErrorComment", "ErrorID"),
    ),
    DUPLICATE_SOP_INSTANCE: ("Duplicate SOP Instance", ("AffectedSOPInstanceUID",)),
    NO_SUCH_SOP_INSTANCE: ("No such SOP Instance", ("AffectedSOPInstanceUID",)),
    NO_SUCH_EVENT_TYPE: ("No such event type", ("AffectedSOPClassUID", "EventTypeID")),
    NO_SUCH_ARGUMENT: (
        "No such argument",
        ("AffectedSOPClassUID", "EventTypeID", "ActionTypeID"),
    ),
    INVALID_ARGUMENT_VALUE: (
        "Invalid argument value",
        (
            "AffectedSOPClassUID",
            "AffectedSOPInstanceUID",
            "EventTypeID",
            "ActionTypeID",
            "DataSet",
        ),
    ),
    ATTRIBUTE_VALUE_OUT_OF_RANGE: ("Attribute value out of range", ("DataSet",)),
    INVALID_SOP_INSTANCE_UID: ("Invalid SOP Instance UID", ("AffectedSOPInstanceUID",)),
    NO_SUCH_SOP_CLASS: ("No such SOP Class", ("AffectedSOPClassUID",)),
    CLASS_INSTANCE_CONFLICT: (
        "SOP Instance is not of the SOP Class",
        ("AffectedSOPClassUID", "AffectedSOPInstanceUID"),
    ),
    MISSING_ATTRIBUTE: ("Missing attribute", ("AttributeIdentifierList",)),
    MISSING_ATTRIBUTE_VALUE: ("Missing attribute value", ("DataSet",)),
    SOP_CLASS_NOT_SUPPORTED: ("Refused, SOP Class not supported", ("ErrorComment",)),
    NO_SUCH_ACTION_TYPE: ("No such action type", ("AffectedSOPClassUID", "ActionTypeID")),
    NOT_AUTHORIZED: ("Refused, not authorized", ("ErrorComment",)),
    DUPLICATE_INVOCATION: ("Duplicate invocation, Message ID already in use", ()),
    UNRECOGNIZED_OPERATION: ("Unrecognized operation", ()),
    MISTYPED_ARGUMENT: ("Mistyped argument", ()),
    RESOURCE_LIMITATION: ("Resource limitation", ()),
    CANCEL: ("Canceled", ()),
}
