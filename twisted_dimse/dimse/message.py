"""Messages (PS3.7 6.3, PS3.8 annex E): a command set, and a data set as a stream.

`Assembler` takes the fragments of one direction in order. It collects command sets, which are
small, and never a data set: it only says what may come next.

    command = assembler.command_fragment(fragment)      # a CommandSet, once it is whole
    assembler.data_fragment(fragment)                   # checks; the slice goes to its sink
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted_dimse.dimse.command import CommandSet, decode
from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer.framing import Fragment

MAX_COMMAND_SET = 1 << 16
_UNEXPECTED_PARAMETER = 5


class Assembler:
    """Where one direction of an association is between messages."""

    def __init__(self) -> None:
        self.expects_data = False
        self.context_id = 0
        self._command = bytearray()

    @property
    def between_messages(self) -> bool:
        return not self.expects_data and not self._command

    def command_fragment(self, fragment: Fragment) -> CommandSet | None:
        """The command set that ``fragment`` completes, or None while more is due.

        Raises `ProtocolViolation` where a data set is due instead, the context changes in the
        middle, or the command set does not end.
        """
        context_id, _, is_last, part, _ = fragment
        data: bytes | bytearray | memoryview = part
        if self.expects_data:
            raise ProtocolViolation("a command before the end of the data set", reason=2)
        if self._command:
            if context_id != self.context_id:
                raise ProtocolViolation("one command set in two contexts", _UNEXPECTED_PARAMETER)
            self._command += data
            data = self._command
        self.context_id = context_id
        if len(data) > MAX_COMMAND_SET:
            raise ProtocolViolation(f"a command set of over {MAX_COMMAND_SET} octets")
        if not is_last:
            if not self._command:
                self._command = bytearray(data)
            return None
        command = decode(data)
        self._command = bytearray()
        self.expects_data = command.has_data_set
        return command

    def data_fragment(self, fragment: Fragment) -> None:
        """Check that a slice of a data set may come now, and notice the last."""
        if not self.expects_data:
            raise ProtocolViolation("data without a command that announces it", reason=2)
        if fragment.context_id != self.context_id:
            raise ProtocolViolation("command and data set in two contexts", _UNEXPECTED_PARAMETER)
        if fragment.is_last:
            self.expects_data = False


def fragment_size(limit: int) -> int:
    """The most octets of a fragment in a P-DATA-TF of at most ``limit`` (PS3.8 D.1): even, the
    six octets of the value's header less. 0 for no limit.

    Raises `ProtocolViolation` where ``limit`` leaves no room (1 to 7).
    """
    if 0 < limit < 8:
        raise ProtocolViolation(f"a maximum length of {limit} leaves no room for a fragment")
    return (limit - 6) & ~1 if limit else 0


def fragments(data: bytes | memoryview, limit: int) -> Iterator[memoryview]:
    """Cut a data value for P-DATA-TFs of at most ``limit`` octets (PS3.8 9.3.5.1).

    Each fragment has an even length, the last one the parity of ``data``; ``limit`` 0 means one
    fragment. Raises `ProtocolViolation` where ``limit`` leaves no room (1 to 7).
    """
    view = memoryview(data)
    size = fragment_size(limit) or len(view)
    for start in range(0, len(view), size or 1):
        yield view[start : start + size]
