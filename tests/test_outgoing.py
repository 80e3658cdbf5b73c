"""What is to be sent, cut for the peer: whole, in order, bounded, and never mixed."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import raw
from hypothesis import example, given
from hypothesis import strategies as st
from memory import Tracked, _Pipe

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.outgoing import BLOCK, SPARE, Outgoing, OutgoingMessage, SourceFailed

STORE = raw.store_rq("1.2.3")
ECHO = raw.echo_rq()
LIMITS = [8, 9, 10, 11, 20, 33, 100, 1001, 16384, BLOCK, BLOCK + 7, 1 << 20, 0]


def drained(outgoing: Outgoing) -> bytes:
    """All that it gives, piece by piece."""
    sent = bytearray()
    while outgoing:
        pieces = outgoing.gather()
        assert pieces
        sent += b"".join(pieces)
    assert outgoing.gather() == []
    return bytes(sent)


def checked(stream: bytes, limit: int) -> list[Any]:
    """The messages of a stream, after a look at each fragment (PS3.8 9.3.5.1, D.1, E.1)."""
    inside: tuple[int, int] | None = None
    for kind, body in raw.stream(stream):
        assert kind == raw.P_DATA
        assert not limit or len(body) <= limit
        for context, control, data in raw.values(body):
            is_command, last = control & raw.COMMAND, control & raw.LAST
            if inside is not None:
                assert (context, is_command) == inside, "two messages are mixed"
            assert last or data
            assert len(data) % 2 == 0
            inside = None if last else (context, is_command)
    assert inside is None
    return raw.messages(stream)


def file_of(data: bytes, kind: str, folder: Path) -> Any:
    """The same octets in each kind of thing that can be sent."""
    match kind:
        case "octets":
            return data
        case "file":
            path = folder / "data"
            path.write_bytes(b"head" + data)
            file = path.open("rb", buffering=0)
            file.seek(4)
            return file
        case "buffered":
            path = folder / "data"
            path.write_bytes(data)
            return path.open("rb")
        case "memory":
            return io.BytesIO(data)
    tracked = Tracked()
    tracked.data = data
    tracked.seekable = kind != "pipe"
    return tracked.open()


KINDS = ["octets", "file", "buffered", "memory", "tracked", "pipe"]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 99, 3000])
def test_a_message_comes_out_whole_in_fragments_that_fit(
    tmp_path: Path, limit: int, kind: str, size: int
) -> None:
    data = bytes(number % 251 for number in range(size))
    file = file_of(data, kind, tmp_path)
    outgoing = Outgoing(limit)
    outgoing.put(OutgoingMessage(3, STORE, file))
    outgoing.put(OutgoingMessage(5, ECHO))
    store, echo = checked(drained(outgoing), limit)
    assert store.command == raw.elements(STORE)
    assert store.data == data + bytes(size & 1)
    assert echo.command == raw.elements(ECHO)
    assert getattr(file, "closed", True)
    assert Tracked.open_files == 0


@given(
    limit=st.one_of(st.sampled_from(LIMITS), st.integers(8, 400)),
    sizes=st.lists(
        st.one_of(st.none(), st.integers(0, 5000), st.sampled_from([BLOCK, 700_000])), max_size=8
    ),
)
@example(limit=BLOCK, sizes=[262_092, 100])
def test_messages_come_out_one_after_the_other(limit: int, sizes: list[int | None]) -> None:
    if 0 < limit < 300:
        sizes = [size if size is None else min(size, 3000) for size in sizes]
    datas = [None if size is None else bytes([number]) * size for number, size in enumerate(sizes)]
    outgoing = Outgoing(limit)
    for number, data in enumerate(datas):
        command = ECHO if data is None else STORE
        outgoing.put(
            OutgoingMessage(2 * number + 1, command, None if data is None else io.BytesIO(data))
        )
    messages = checked(drained(outgoing), limit)
    assert [message.context for message in messages] == [2 * n + 1 for n in range(len(datas))]
    assert [message.data for message in messages] == [
        None if data is None else data + bytes(len(data) & 1) for data in datas
    ]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_gather_is_bounded(limit: int) -> None:
    outgoing = Outgoing(limit)
    size = 3_000_000 if limit == 0 or limit > 1000 else 30_000
    for _ in range(3):
        outgoing.put(OutgoingMessage(1, STORE, io.BytesIO(bytes(size))))
    for _ in range(3000):
        outgoing.put(OutgoingMessage(1, ECHO))
    while outgoing:
        pieces = outgoing.gather()
        assert len(pieces) <= 1024  # what one sendmsg takes
        assert sum(map(len, pieces)) <= BLOCK + SPARE + 12 * len(pieces) + 1000


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_limit_without_room_is_refused(limit: int) -> None:
    with pytest.raises(ProtocolViolation):
        Outgoing(limit)
    outgoing = Outgoing(100)
    with pytest.raises(ProtocolViolation):
        outgoing.set_limit(limit)


def test_who_sends_is_told_when_all_is_handed_on() -> None:
    sent: list[tuple[str, int]] = []
    outgoing = Outgoing(1000)
    outgoing.put(OutgoingMessage(1, STORE, bytes(999_999), lambda size: sent.append(("a", size))))
    outgoing.put(OutgoingMessage(1, ECHO, None, lambda size: sent.append(("b", size))))
    outgoing.gather()
    assert sent == []
    drained(outgoing)
    assert sent == [("a", 1_000_000), ("b", 0)]


def test_each_pdu_is_told_with_its_size() -> None:
    told: list[int] = []
    outgoing = Outgoing(100)
    outgoing.on_pdu = told.append
    for message in (OutgoingMessage(1, STORE, bytes(333)), OutgoingMessage(1, ECHO)):
        outgoing.put(message)
    stream = drained(outgoing)
    sizes = [len(body) + 6 for _, body in raw.stream(stream)]
    assert sorted(told) == sorted(sizes)
    assert sum(told) == len(stream)


def test_what_has_not_begun_can_be_taken_back() -> None:
    outgoing = Outgoing(1000)
    first, second = (OutgoingMessage(1, STORE, Tracked(size=400_000).open()) for _ in range(2))
    outgoing.put(first)
    outgoing.put(second)
    assert outgoing.gather()
    assert not outgoing.withdraw(first)
    assert outgoing.withdraw(second)
    assert not outgoing.withdraw(second)
    assert Tracked.open_files == 1
    assert drained(outgoing)
    assert Tracked.open_files == 0


def test_the_first_can_be_taken_back_while_nothing_of_it_has_gone() -> None:
    outgoing = Outgoing()
    first, second = OutgoingMessage(1, STORE, Tracked().open()), OutgoingMessage(3, ECHO)
    outgoing.put(first)
    outgoing.put(second)
    assert outgoing.withdraw(first)
    assert Tracked.open_files == 0
    assert [message.context for message in checked(drained(outgoing), 0)] == [3]


def test_clearing_lets_go_of_every_file() -> None:
    outgoing = Outgoing(1000)
    for _ in range(3):
        outgoing.put(OutgoingMessage(1, STORE, Tracked(size=400_000).open()))
    outgoing.gather()
    assert Tracked.open_files == 3
    outgoing.clear()
    assert Tracked.open_files == 0
    assert not outgoing
    assert outgoing.gather() == []


@pytest.mark.parametrize("pipe", [True, False])
@pytest.mark.parametrize("fails_at", [0, 100, 300_000])
def test_a_file_that_cannot_be_read_to_its_end_fails(pipe: bool, fails_at: int) -> None:
    tracked = Tracked(size=500_000, fails_at=fails_at)
    outgoing = Outgoing()
    outgoing.put(OutgoingMessage(1, STORE, _Pipe(tracked.open()) if pipe else tracked.open()))
    with pytest.raises(SourceFailed, match="the disk is broken"):
        drained(outgoing)
    outgoing.clear()
    assert Tracked.open_files == 0


def test_a_file_that_gets_shorter_under_way_fails(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(600_000))
    outgoing = Outgoing()
    outgoing.put(OutgoingMessage(1, STORE, path.open("rb", buffering=0)))
    outgoing.gather()
    with path.open("r+b") as file:
        file.truncate(400_000)
    with pytest.raises(SourceFailed, match="200000 octets early"):
        drained(outgoing)
    outgoing.clear()


# --- against the plain way to encode the same


LENGTHS = [8, 10, 16, 1024, 16384, 131072, 0]  # maximum lengths that peers ask for


def plainly(messages: Iterable[tuple[int, bytes, bytes | None]], limit: int) -> bytes:
    """The P-DATA-TFs of messages, one fragment each and each as long as it may be."""
    longest = (limit - 6) & ~1 if limit else BLOCK
    sent = []
    for context, command, data in messages:
        for octets, kind in ((command, raw.COMMAND), (data, 0)):
            if octets is None:
                continue
            octets += bytes(len(octets) & 1)
            for start in range(0, len(octets) or 1, longest):
                last = raw.LAST if start + longest >= len(octets) else 0
                sent.append(raw.p_data((context, kind | last, octets[start : start + longest])))
    return b"".join(sent)


def borders(limit: int) -> list[int]:
    """Sizes of data sets around the ends of fragments and of the blocks that files are read in."""
    fragment = min((limit - 6) & ~1 if limit else BLOCK, BLOCK)
    block = min(BLOCK // fragment, 250) * fragment
    ends = (fragment, block, block + min(fragment, SPARE))
    return sorted({0, 1, 2, *(end + more for end in ends for more in (-1, 0, 1))})


@pytest.mark.parametrize("limit", LENGTHS)
@pytest.mark.parametrize("kind", ["octets", "octets, watched", "memory", "pipe"])
def test_the_octets_are_those_of_the_plain_way(tmp_path: Path, limit: int, kind: str) -> None:
    pattern = bytes(range(251)) * (2 * BLOCK // 251)
    stores = [(3, STORE, pattern[:size]) for size in borders(limit)]
    with_echoes = [message for store in stores for message in (store, (5, ECHO, None))]
    for messages in (*([one] for one in stores), with_echoes):
        outgoing = Outgoing(limit)
        if kind == "octets, watched":
            outgoing.on_pdu = lambda _size: None
        for context, command, data in messages:
            file = None if data is None else file_of(data, kind.partition(",")[0], tmp_path)
            outgoing.put(OutgoingMessage(context, command, file))
        assert drained(outgoing) == plainly(messages, limit)
