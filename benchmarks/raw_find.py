"""C-FIND by a client as lean as `raw_peer`: questions made beforehand, answers counted unread.

with Asker(port) as asker:
    seconds, answers = asker.find(question({STUDY_DATE: "19950101-19951231"}))
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from time import perf_counter

from benchmarks import wire
from benchmarks.raw_peer import LONGEST_PDU, RawClient

STUDY_DATE, STUDY_UID = 0x00080020, 0x0020000D
_CONTEXT = 1
_KEYS = {
    0x00080005: (b"CS", "ISO_IR 192"),
    STUDY_DATE: (b"DA", ""),
    0x00080052: (b"CS", "STUDY"),
    0x00100010: (b"PN", ""),
    0x00100020: (b"LO", ""),
    STUDY_UID: (b"UI", ""),
}
_BUFFER = 1 << 18


def question(matching: Mapping[int, str]) -> bytes:
    """A C-FIND-RQ at study level that wants name, ID, date and UID, matched by some of them."""
    values = {tag: (vr, matching.get(tag, text)) for tag, (vr, text) in _KEYS.items()}
    data = b"".join(wire.element(tag, vr, text) for tag, (vr, text) in sorted(values.items()))
    return wire.find_request(_CONTEXT) + wire.p_data(_CONTEXT, wire.LAST, data)


class Asker(RawClient):
    """One association with an archive on loopback, for queries of the study root."""

    request = wire.associate_request(
        [(_CONTEXT, wire.STUDY_ROOT_FIND, [wire.EXPLICIT])], LONGEST_PDU
    )

    def find(self, asked: bytes) -> tuple[float, int]:
        """Send a question; the seconds until its last answer, and how many there were.

        An answer counts when its data set is whole. Raises `WireError` for any other end than
        success.
        """
        begun, answers = perf_counter(), 0
        self.connection.sendall(asked)
        with self.connection.makefile("rb", _BUFFER) as stream:
            while True:
                header = stream.read(6)
                if not header or len(header) < 6:
                    raise wire.WireError("no further answer came")
                kind, length = struct.unpack(">BxI", header)
                body = stream.read(length)
                if kind != wire.P_DATA:
                    raise wire.WireError(f"a PDU of type {kind} among the answers")
                for flags, value in wire.values(body):
                    if flags == wire.LAST:
                        answers += 1
                    elif flags & wire.COMMAND:
                        status = wire.short_after(wire.STATUS_TAG, value)
                        if status == 0:
                            return perf_counter() - begun, answers
                        if status not in wire.PENDING:
                            raise wire.WireError(f"status {status:04X}")
