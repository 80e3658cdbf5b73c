"""What each service class of PS3.4 means by a status: the tables of its response messages.

`status` reads them when somebody asks what a code means, which no message needs to be sent or
understood; so they are a module of their own, imported then. Which category a code is of is not
here: that is the same for every service class (see `status.category`).

    table = TABLES[1]
    table.service_class, table.messages      # 'Storage', ('C-STORE-RSP',)
    table.rows[0]                            # Row(0xA700, 0xA7FF, 'Refused, out of resources', …)
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """The codes from `first` to `last`; a receiver takes each of them as the same. `related` names
    the elements that a response with them may carry, "Identifier" standing for its data set."""

    first: int
    last: int
    meaning: str
    related: tuple[str, ...] = ()


class Table(NamedTuple):
    """One table of PS3.4: what `service_class` puts into the status of `messages`. A message that
    has several tables is followed by what tells them apart, in parentheses."""

    service_class: str
    messages: tuple[str, ...]
    rows: tuple[Row, ...]


def _code(code: int, meaning: str, related: tuple[str, ...] = ()) -> Row:
    return Row(code, code, meaning, related)


_COMMENT = ("ErrorComment",)
_OFFENDING = ("OffendingElement", "ErrorComment")
_IDENTIFIER = ("Identifier",)
_COUNTS = (
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
)
_ALL_COUNTS = ("NumberOfRemainingSuboperations", *_COUNTS)

# The query service classes share the table of Query/Retrieve (PS3.4 Table C.4-1).
_FIND = (
    _code(0xA700, "Refused, out of resources", _COMMENT),
    _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
    Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
    _code(0xFE00, "Matching stopped by cancel"),
    _code(0x0000, "Matching complete, no Identifier"),
    _code(0xFF00, "A match; optional keys supported like required keys", _IDENTIFIER),
    _code(0xFF01, "A match; some optional key not supported", _IDENTIFIER),
)

TABLES = (
    # PS3.4 A
    Table("Verification", ("C-ECHO-RSP",), (_code(0x0000, "Echo done"),)),
    # PS3.4 B.2.3 Table B.2-1
    Table(
        "Storage",
        ("C-STORE-RSP",),
        (
            Row(0xA700, 0xA7FF, "Refused, out of resources", _COMMENT),
            Row(0xA900, 0xA9FF, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Cannot understand", _OFFENDING),
            _code(0xB000, "Data elements coerced", _OFFENDING),
            _code(0xB006, "Elements discarded", _OFFENDING),
            _code(0xB007, "Stored, although data set does not match SOP Class", _OFFENDING),
            _code(0x0000, "Stored"),
        ),
    ),
    # PS3.4 C.4.1.1.4 Table C.4-1
    Table("Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 C.4.2.1.5 Table C.4-2
    Table(
        "Query/Retrieve",
        ("C-MOVE-RSP",),
        (
            _code(0xA701, "Refused, cannot calculate the number of matches", _COMMENT),
            _code(0xA702, "Refused, cannot perform sub-operations", _COUNTS),
            _code(0xA801, "Refused, move destination unknown", _COMMENT),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
            _code(0xFE00, "Sub-operations stopped by cancel", _ALL_COUNTS),
            _code(
                0xB000, "Sub-operations complete, one or more failed (or gave a warning)", _COUNTS
            ),
            _code(0x0000, "Sub-operations complete, none failed", _COUNTS),
            _code(0xFF00, "Sub-operations continue", _ALL_COUNTS),
        ),
    ),
    # PS3.4 C.4.3.1.4 Table C.4-3
    Table(
        "Query/Retrieve",
        ("C-GET-RSP",),
        (
            _code(0xA701, "Refused, cannot calculate the number of matches", _COMMENT),
            _code(0xA702, "Refused, cannot perform sub-operations", _COUNTS),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
            _code(0xFE00, "Sub-operations stopped by cancel", _ALL_COUNTS),
            _code(
                0xB000, "Sub-operations complete, one or more failed (or gave a warning)", _COUNTS
            ),
            _code(0x0000, "Sub-operations complete, none failed", _COUNTS),
            _code(0xFF00, "Sub-operations continue", _ALL_COUNTS),
        ),
    ),
    # PS3.4 C.6.4
    Table(
        "Query/Retrieve (Repository Query)",
        ("C-FIND-RSP",),
        (
            *_FIND,
            _code(0xA710, "Invalid prior record key"),
            _code(0xB001, "Response limit reached, ask again for more"),
        ),
    ),
    # PS3.4 Y.4.1.1.4 Table Y.4-1
    Table(
        "Composite Instance Root Retrieve",
        ("C-MOVE-RSP",),
        (
            _code(0xA701, "Refused, cannot calculate the number of matches", _COMMENT),
            _code(0xA702, "Refused, cannot perform sub-operations", _ALL_COUNTS),
            _code(0xA801, "Refused, move destination unknown", _COMMENT),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
            _code(0xFE00, "Sub-operations stopped by cancel", _ALL_COUNTS),
            _code(
                0xB000,
                "Sub-operations complete, one or more failed (or gave a warning)",
                _ALL_COUNTS,
            ),
            _code(0x0000, "Sub-operations complete, none failed", _ALL_COUNTS),
            _code(0xFF00, "Sub-operations continue", _ALL_COUNTS),
            _code(0xAA00, "None of the requested frames found", _COMMENT),
            _code(0xAA01, "Cannot create a new object of this SOP Class", _COMMENT),
            _code(0xAA02, "Cannot extract frames", _COMMENT),
            _code(0xAA03, "Time based request for an instance that is not time based", _COMMENT),
            _code(0xAA04, "Invalid request", _OFFENDING),
        ),
    ),
    # PS3.4 Y.4.2.1.4 Table Y.4-2
    Table(
        "Composite Instance Root Retrieve",
        ("C-GET-RSP",),
        (
            _code(0xA701, "Refused, cannot calculate the number of matches", _COMMENT),
            _code(0xA702, "Refused, cannot perform sub-operations", _ALL_COUNTS),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
            _code(0xFE00, "Sub-operations stopped by cancel", _ALL_COUNTS),
            _code(
                0xB000,
                "Sub-operations complete, one or more failed (or gave a warning)",
                _ALL_COUNTS,
            ),
            _code(0x0000, "Sub-operations complete, none failed", _ALL_COUNTS),
            _code(0xFF00, "Sub-operations continue", _ALL_COUNTS),
            _code(0xAA00, "None of the requested frames found", _COMMENT),
            _code(0xAA01, "Cannot create a new object of this SOP Class", _COMMENT),
            _code(0xAA02, "Cannot extract frames", _COMMENT),
            _code(0xAA03, "Time based request for an instance that is not time based", _COMMENT),
            _code(0xAA04, "Invalid request", _OFFENDING),
        ),
    ),
    # PS3.4 Z.4.2.1.4 Table Z.4-1
    Table(
        "Composite Instance Retrieve Without Bulk Data",
        ("C-GET-RSP",),
        (
            _code(0xA701, "Refused, cannot calculate the number of matches", _COMMENT),
            _code(0xA702, "Refused, cannot perform sub-operations", _ALL_COUNTS),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            Row(0xC000, 0xCFFF, "Unable to process", _OFFENDING),
            _code(0xFE00, "Sub-operations stopped by cancel", _ALL_COUNTS),
            _code(
                0xB000,
                "Sub-operations complete, one or more failed (or gave a warning)",
                _ALL_COUNTS,
            ),
            _code(0x0000, "Sub-operations complete, none failed", _ALL_COUNTS),
            _code(0xFF00, "Sub-operations continue", _ALL_COUNTS),
        ),
    ),
    # PS3.4 K.4.1.1.4 Table K.4-1
    Table("Modality Worklist", ("C-FIND-RSP",), _FIND),
    # PS3.4 F.7.2.2.2 Table F.7.2-2
    Table(
        "Modality Performed Procedure Step",
        ("N-SET-RSP",),
        (
            _code(
                0x0110,
                "The step is COMPLETED or DISCONTINUED and may no longer be updated",
                ("ErrorComment", "ErrorID"),
            ),
        ),
    ),
    # PS3.4 F.8.2.1.3 Table F.8.2-2
    Table(
        "Modality Performed Procedure Step Retrieve",
        ("N-GET-RSP",),
        (_code(0x0001, "Requested optional attributes not supported"),),
    ),
    # PS3.4 H.4.1.2.1.2
    Table(
        "Print Management (Basic Film Session)",
        ("N-CREATE-RSP", "N-SET-RSP"),
        (
            _code(0x0000, "Film session created"),
            _code(0xB600, "Memory allocation not supported"),
        ),
    ),
    # PS3.4 H.4.1.2.4 Table H.4-4
    Table(
        "Print Management (Basic Film Session)",
        ("N-ACTION-RSP",),
        (
            _code(0x0000, "Accepted for printing"),
            _code(0xB601, "Collated printing of the session not supported"),
            _code(0xB602, "Session holds no image boxes, empty page"),
            _code(0xB604, "Image larger than image box, demagnified"),
            _code(0xB609, "Image larger than image box, cropped"),
            _code(0xB60A, "Image or combined print image larger than image box, decimated"),
            _code(0xC600, "Session holds no film boxes"),
            _code(0xC601, "Print queue is full"),
            _code(0xC603, "Image larger than image box"),
            _code(0xC613, "Combined print image larger than image box"),
        ),
    ),
    # PS3.4 H.4.2.2.1.2
    Table(
        "Print Management (Basic Film Box)",
        ("N-CREATE-RSP",),
        (
            _code(0x0000, "Film box created"),
            _code(0xB605, "Requested density outside printer range, printer limit used"),
            _code(
                0xC616,
                "An earlier film box is not yet printed and session level printing is not "
                "supported",
            ),
        ),
    ),
    # PS3.4 H.4.2.2.4 Table H.4-9
    Table(
        "Print Management (Basic Film Box)",
        ("N-ACTION-RSP",),
        (
            _code(0x0000, "Accepted for printing"),
            _code(0xB603, "Film box holds no image boxes, empty page"),
            _code(0xB604, "Image larger than image box, demagnified"),
            _code(0xB609, "Image larger than image box, cropped"),
            _code(0xB60A, "Image or combined print image larger than image box, decimated"),
            _code(0xC602, "Print queue is full"),
            _code(0xC603, "Image larger than image box"),
            _code(0xC613, "Combined print image larger than image box"),
        ),
    ),
    # PS3.4 H.4.3.1.2.1.2
    Table(
        "Print Management (Basic Grayscale Image Box)",
        ("N-SET-RSP",),
        (
            _code(0x0000, "Image stored in the box"),
            _code(0xB604, "Image larger than image box, demagnified"),
            _code(0xB605, "Requested density outside printer range, printer limit used"),
            _code(0xB609, "Image larger than image box, cropped"),
            _code(0xB60A, "Image or combined print image larger than image box, decimated"),
            _code(0xC603, "Image larger than image box"),
            _code(0xC605, "Not enough printer memory for the image"),
            _code(0xC613, "Combined print image larger than image box"),
        ),
    ),
    # PS3.4 H.4.3.2.2.1.2
    Table(
        "Print Management (Basic Color Image Box)",
        ("N-SET-RSP",),
        (
            _code(0xB604, "Image larger than image box, demagnified"),
            _code(0xB609, "Image larger than image box, cropped"),
            _code(0xB60A, "Image or combined print image larger than image box, decimated"),
            _code(0xC603, "Image larger than image box"),
            _code(0xC605, "Not enough printer memory for the image"),
            _code(0xC613, "Combined print image larger than image box"),
        ),
    ),
    # PS3.4 H.4.9.2.1.2
    Table(
        "Print Management (Presentation LUT)",
        ("N-CREATE-RSP",),
        (
            _code(0x0000, "Presentation LUT created"),
            _code(0xB605, "Requested density outside printer range, printer limit used"),
        ),
    ),
    # PS3.4 J.3.2, J.3.3
    Table(
        "Storage Commitment Push Model",
        ("N-ACTION-RSP", "N-EVENT-REPORT-RSP"),
        (_code(0x0000, "Accepted"),),
    ),
    # PS3.4 P.2.2.4 Table P.2-3
    Table(
        "Procedural Event Logging",
        ("N-ACTION-RSP",),
        (
            _code(0x0000, "Logged"),
            _code(0xB101, "Synchronization frame of reference differs from that of the SCP"),
            _code(0xB102, "Logged under another Study Instance UID"),
            _code(0xB104, "IDs inconsistent, logged"),
            _code(0xC101, "Logging not available for the study"),
            _code(0xC102, "Event does not match the template"),
            _code(0xC103, "No current study matches"),
            _code(0xC104, "IDs inconsistent, not logged"),
        ),
    ),
    # PS3.4 P.3.2.4 Table P.3-3
    Table(
        "Substance Administration Logging",
        ("N-ACTION-RSP",),
        (
            _code(0x0000, "Logged"),
            _code(0xC10E, "Operator not authorized"),
            _code(0xC110, "Patient cannot be identified"),
            _code(0xC111, "Update of the record failed"),
        ),
    ),
    # PS3.4 Q.2.1.1.4 Table Q.2-1
    Table(
        "Relevant Patient Information Query",
        ("C-FIND-RSP",),
        (
            _code(0xA700, "Refused, out of resources", _COMMENT),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            _code(0xC000, "Unable to process", _OFFENDING),
            _code(0xC100, "More than one match", _OFFENDING),
            _code(0xC200, "Requested template not supported", _OFFENDING),
            _code(0xFE00, "Matching stopped by cancel"),
            _code(0x0000, "Matching complete, no Identifier"),
            _code(0xFF00, "The match", _IDENTIFIER),
        ),
    ),
    # PS3.4 S.3.2.2.4
    Table(
        "Media Creation Management",
        ("N-ACTION-RSP (initiate)",),
        (_code(0xA510, "Already initiated for this SOP Instance"),),
    ),
    # PS3.4 S.3.2.3.4
    Table(
        "Media Creation Management",
        ("N-ACTION-RSP (cancel)",),
        (
            _code(0xC201, "Already completed"),
            _code(0xC202, "In progress, cannot be interrupted"),
            _code(0xC203, "Cancel denied, reason not given"),
        ),
    ),
    # PS3.4 S.3.2.4.4
    Table(
        "Media Creation Management",
        ("N-GET-RSP",),
        (_code(0x0001, "Requested optional attributes not supported"),),
    ),
    # PS3.4 U.4.1
    Table("Hanging Protocol Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 X.4
    Table("Color Palette Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 BB.4
    Table("Implant Template Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 HH.4
    Table("Defined Procedure Protocol Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 II.4
    Table("Protocol Approval Query/Retrieve", ("C-FIND-RSP",), _FIND),
    # PS3.4 V.4.1.1.4 Table V.4-1
    Table("Substance Administration Query", ("C-FIND-RSP",), _FIND),
    # PS3.4 CC.2.1.4 Table CC.2.1-2
    Table(
        "Unified Procedure Step",
        ("N-ACTION-RSP (change state)",),
        (
            _code(0x0000, "State changed"),
            _code(0xB304, "Already CANCELED"),
            _code(0xB306, "Already COMPLETED"),
            _code(0xC300, "May no longer be updated"),
            _code(0xC301, "Wrong Transaction UID"),
            _code(0xC302, "Already IN PROGRESS"),
            _code(0xC303, "Only N-CREATE makes a UPS SCHEDULED"),
            _code(0xC304, "Final state requirements not met"),
            _code(0xC307, "UPS does not exist or is not managed by this SCP"),
            _code(0xC310, "Not yet IN PROGRESS"),
        ),
    ),
    # PS3.4 CC.2.2.4 Table CC.2.2-2
    Table(
        "Unified Procedure Step",
        ("N-ACTION-RSP (request cancel)",),
        (
            _code(0x0000, "Cancel request taken"),
            _code(0xB304, "Already CANCELED"),
            _code(0xC311, "Already COMPLETED"),
            _code(0xC313, "Performer will not cancel"),
            _code(0xC307, "UPS does not exist or is not managed by this SCP"),
            _code(0xC312, "Performer cannot be reached"),
        ),
    ),
    # PS3.4 CC.2.3.4 Table CC.2.3-3
    Table(
        "Unified Procedure Step",
        ("N-ACTION-RSP (subscribe, unsubscribe, suspend)",),
        (
            _code(0x0000, "Subscription changed"),
            _code(0xB301, "Deletion lock not granted"),
            _code(0xC307, "UPS does not exist or is not managed by this SCP"),
            _code(0xC308, "Receiving AE title unknown"),
            _code(0xC314, "Action not appropriate for the instance"),
            _code(0xC315, "SCP has no event reports"),
        ),
    ),
    # PS3.4 CC.2.5.4 Table CC.2.5-4
    Table(
        "Unified Procedure Step",
        ("N-CREATE-RSP",),
        (
            _code(0x0000, "Created"),
            _code(0xB300, "Created with modifications"),
            _code(0xC309, "UPS State given was not SCHEDULED"),
        ),
    ),
    # PS3.4 CC.2.6.4 Table CC.2.6-1
    Table(
        "Unified Procedure Step",
        ("N-SET-RSP",),
        (
            _code(0x0000, "Modified"),
            _code(0x0001, "Requested optional attributes not supported"),
            _code(0xB305, "Invalid values coerced to valid ones"),
            _code(0xC310, "Not IN PROGRESS"),
            _code(0xC301, "Wrong Transaction UID"),
            _code(0xC300, "May no longer be updated"),
            _code(0xC307, "UPS does not exist or is not managed by this SCP"),
        ),
    ),
    # PS3.4 CC.2.7.4 Table CC.2.7-1
    Table(
        "Unified Procedure Step",
        ("N-GET-RSP",),
        (
            _code(0x0001, "Requested optional attributes not supported"),
            _code(0xC307, "UPS does not exist or is not managed by this SCP"),
        ),
    ),
    # PS3.4 CC.2.8.4 Table CC.2.8-2
    Table(
        "Unified Procedure Step",
        ("C-FIND-RSP",),
        (
            *_FIND,
            _code(0x0122, "Refused, SOP Class not supported"),
        ),
    ),
    # PS3.4 GG.4 Table GG.4-1
    Table(
        "Non-Patient Object Storage",
        ("C-STORE-RSP",),
        (
            _code(0xA700, "Refused, out of resources", _COMMENT),
            _code(0xA900, "Data set does not match SOP Class", _OFFENDING),
            _code(0xC000, "Cannot understand", _OFFENDING),
            _code(0x0000, "Stored"),
        ),
    ),
    # PS3.4 R.3.2
    Table("Instance Availability Notification", ("N-CREATE-RSP",), (_code(0x0000, "Taken"),)),
    # PS3.4 EE.2
    Table("Display System Management", ("N-GET-RSP",), (_code(0x0000, "Read"),)),
    # PS3.4 KK.2
    Table(
        "Storage Management (Inventory Creation)",
        ("N-ACTION-RSP",),
        (_code(0xB010, "Some key attributes not supported for matching"),),
    ),
    # PS3.4 DD.3.2 Table DD.3.2.1.2-1
    Table(
        "RT Machine Verification",
        ("N-CREATE-RSP",),
        (
            _code(0x0000, "Done"),
            _code(0xC227, "Referenced RT Plan not found"),
            _code(0xC221, "Referenced fraction group number not in the plan"),
            _code(0xC222, "No beams in the fraction group"),
            _code(0xC223, "Already verifying"),
        ),
    ),
    # PS3.4 DD.3.2 Table DD.3.2.1.2-2
    Table(
        "RT Machine Verification",
        ("N-SET-RSP",),
        (
            _code(0x0000, "Done"),
            _code(0xC224, "Referenced beam number not in the fraction group"),
            _code(0xC225, "Referenced device or accessory not supported"),
            _code(0xC226, "Referenced device or accessory not in the beam"),
        ),
    ),
    # PS3.4 DD.3.2 Table DD.3.2.2.3-1
    Table(
        "RT Machine Verification",
        ("N-GET-RSP",),
        (
            _code(0x0000, "Done"),
            _code(0xC112, "Machine verification instance not found"),
        ),
    ),
    # PS3.4 DD.3.2 Table DD.3.2.3-2
    Table(
        "RT Machine Verification",
        ("N-ACTION-RSP",),
        (
            _code(0x0000, "Done"),
            _code(0xC112, "Machine verification instance not found"),
        ),
    ),
)
