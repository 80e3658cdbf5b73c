"""Incremental framing: any cut of the byte stream in, whole control PDUs and slices of
presentation data values out (PS3.8 9.3).

P-DATA-TFs are never assembled. `Framer` keeps where it is (octets left of the PDU and of the
presentation data value) and hands on slices of what it was given, so a chunk that lies wholly
inside one value costs one comparison. A header that announces more than was offered, or a type
that does not exist, is refused before anything behind it is kept.

    framer = Framer(max_pdu_length=262144)
    for part in framer.receive(chunk):      # Fragment or a control PDU of `pdu`
        ...
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import pdu

MAX_ASSOCIATION_PDU = 1 << 20

_SMALL = 512  # octets that cost less to copy than to keep a view of

_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
_PDU_AND_PDV_HEADER = struct.Struct(">BxIIBB")
# Of a value's message control header: whether it is of a command, and whether it is the last.
_CONTROL = ((False, False), (True, False), (False, True), (True, True))


class Fragment(NamedTuple):
    """A slice of one presentation data value. `ends_value` says that the value ends with it,
    `is_last` that the command set or data set does."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview
    ends_value: bool = True


class Framer:
    """Cuts one direction of a connection into PDUs.

    `max_pdu_length` is what we told the peer (PS3.8 D.1), 0 for no limit. Once `receive` has
    raised `ProtocolViolation` the stream has no known boundary any more, and later octets are
    dropped. `on_pdu`, if set, is told the type and size of each PDU, and the PDU itself unless
    it is a P-DATA-TF, at whose header it is called.
    """

    def __init__(self, max_pdu_length: int = 0) -> None:
        self.max_pdu_length = max_pdu_length
        self.failed = False
        self.on_pdu: Callable[[int, int, pdu.PDU | None], None] | None = None
        self._header = b""  # an incomplete header
        self._kind = 0  # type of the control PDU under way
        self._body = bytearray()
        self._body_left = 0
        self._pdu_left = 0  # octets of the P-DATA-TF behind the value under way
        self._value_left = 0
        self._context_id = 0
        self._control = 0

    @property
    def between_pdus(self) -> bool:
        """Whether nothing of a PDU has come of which the rest is still due."""
        return not (self._header or self._body_left or self._pdu_left or self._value_left)

    def receive(self, data: bytes) -> list[Fragment | pdu.PDU]:
        """What ``data`` completes or continues, in order. Raises `ProtocolViolation`, with what
        came before it in the same call as its ``parts``."""
        size = len(data)
        if size < self._value_left:
            self._value_left -= size
            control = self._control
            return [Fragment(self._context_id, bool(control & 1), False, data, False)]
        if 12 < size < _SMALL and self.between_pdus:
            # Most command sets come as one P-DATA-TF with one value, and nothing else.
            kind, length, value_length, context_id, control = _PDU_AND_PDV_HEADER.unpack_from(data)
            if (
                kind == pdu.P_DATA_TF
                and length == size - 6 == value_length + 4
                and not 0 < self.max_pdu_length < length
                and not self.failed
            ):
                if self.on_pdu is not None:
                    self.on_pdu(kind, size, None)
                return [Fragment(context_id, bool(control & 1), bool(control & 2), data[12:])]
        if self.failed:
            return []
        parts: list[Fragment | pdu.PDU] = []
        try:
            self._cut(data, parts)
        except ProtocolViolation as violation:
            self.failed = True
            self._body = bytearray()
            self._value_left = 0
            violation.parts = parts  # type: ignore[attr-defined]
            raise
        return parts

    def _cut(self, data: bytes, parts: list[Fragment | pdu.PDU]) -> None:
        if self._header:
            data = self._header + data
            self._header = b""
        view = memoryview(data)
        offset, end = 0, len(data)
        while offset < end:
            if end - offset > 12 and not (self._value_left or self._pdu_left or self._body_left):
                offset = self._both_headers(view, offset)
            if left := self._value_left:
                # In line: this is what a data set mostly is.
                is_command, is_last = _CONTROL[self._control & 3]
                stop = offset + left
                if stop > end:
                    self._value_left = stop - end
                    parts.append(
                        Fragment(self._context_id, is_command, False, view[offset:], False)
                    )
                    return
                self._value_left = 0
                parts.append(Fragment(self._context_id, is_command, is_last, view[offset:stop]))
                offset = stop
            elif self._body_left:
                offset = self._control_body(view, offset, end, parts)
            elif end - offset < 6:
                self._check_first_octet(view[offset])
                self._header = bytes(view[offset:])
                return
            elif self._pdu_left:
                offset = self._value_header(view, offset, parts)
            else:
                offset = self._pdu_header(view, offset)

    def _both_headers(self, view: memoryview, offset: int) -> int:
        """The headers of a P-DATA-TF with a single value, which most are, at one stroke."""
        kind, length, value_length, context_id, control = _PDU_AND_PDV_HEADER.unpack_from(
            view, offset
        )
        if (
            kind != pdu.P_DATA_TF
            or value_length + 4 != length
            or value_length < 3
            or 0 < self.max_pdu_length < length
        ):
            return self._pdu_header(view, offset)
        if self.on_pdu is not None:
            self.on_pdu(kind, length + 6, None)
        self._value_left = value_length - 2
        self._context_id = context_id
        self._control = control
        return offset + 12

    def _value_header(self, view: memoryview, offset: int, parts: list[Fragment | pdu.PDU]) -> int:
        length, context_id, control = _PDV_HEADER.unpack_from(view, offset)
        left = self._pdu_left - length - 4
        if length < 2 or left < 0:
            raise ProtocolViolation(
                f"presentation data value of {length} octets in the last {self._pdu_left} "
                "of a P-DATA-TF"
            )
        if 0 < left < 6:
            raise ProtocolViolation(f"{left} octets behind the last value of a P-DATA-TF")
        self._pdu_left = left
        self._value_left = length - 2
        self._context_id = context_id
        self._control = control
        if length == 2:  # must not be sent, but should be taken (PS3.8 annex E.1)
            parts.append(Fragment(context_id, bool(control & 1), bool(control & 2), b""))
        return offset + 6

    def _pdu_header(self, view: memoryview, offset: int) -> int:
        kind, length = _PDU_HEADER.unpack_from(view, offset)
        pdu.check_header(kind, length)
        if kind == pdu.P_DATA_TF:
            if self.max_pdu_length and length > self.max_pdu_length:
                raise ProtocolViolation(
                    f"P-DATA-TF of {length} octets, over the {self.max_pdu_length} offered"
                )
            if length < 6:
                raise ProtocolViolation(f"P-DATA-TF of {length} octets without a value")
            self._pdu_left = length
            if self.on_pdu is not None:
                self.on_pdu(kind, length + 6, None)
        else:
            if length > MAX_ASSOCIATION_PDU:
                raise ProtocolViolation(
                    f"PDU of type {kind:02X}H of {length} octets, over {MAX_ASSOCIATION_PDU}"
                )
            self._kind = kind
            self._body_left = length
        return offset + 6

    def _control_body(
        self, view: memoryview, offset: int, end: int, parts: list[Fragment | pdu.PDU]
    ) -> int:
        stop = min(end, offset + self._body_left)
        self._body += view[offset:stop]
        self._body_left -= stop - offset
        if not self._body_left:
            body, self._body = self._body, bytearray()
            part = pdu.decode(self._kind, bytes(body))
            parts.append(part)
            if self.on_pdu is not None:
                self.on_pdu(self._kind, len(body) + 6, part)
        return stop

    def _check_first_octet(self, kind: int) -> None:
        """An unknown PDU type is known from its first octet, however slowly the rest comes."""
        if not self._pdu_left:
            pdu.check_type(kind)


def p_data_header(context_id: int, is_command: bool, is_last: bool, size: int) -> bytes:
    """The 12 octets before a fragment of ``size`` octets that is alone in its P-DATA-TF."""
    control = is_command | is_last << 1
    return _PDU_AND_PDV_HEADER.pack(pdu.P_DATA_TF, size + 6, size + 2, context_id, control)
