"""Every way out sends the same octets: past the transport by ``sendmsg``, through one that has no
plain socket, and through TLS; in memory, over sockets that take little, and over loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import raw
from certificates import Authority
from loop import Loop
from memory import CONTEXTS, STEP, Serving, World, source
from OpenSSL import SSL
from pydicom import Dataset
from sockets import Sockets
from twisted.internet import tcp
from twisted.internet.defer import gatherResults

from twisted_dimse import connect, listen
from twisted_dimse import sender as sending
from twisted_dimse.outgoing import BLOCK, SPARE
from twisted_dimse.upperlayer.provider import Provider

LENGTHS = [8, 10, 16, 1024, 16384, 131072, 0]  # maximum lengths that peers ask for
WINDOW = 8


def borders(limit: int) -> list[int]:
    """Pixels of which the ends come around those of a fragment and of a block read from a file."""
    fragment = min((limit - 6) & ~1 if limit else BLOCK, BLOCK)
    block = min(BLOCK // fragment, 250) * fragment
    head = len(source(size=0).data)
    ends = (fragment, block, block + min(fragment, SPARE))
    return [0, 1, *(end - head + more for end in ends for more in (-2, 0, 2) if end > head)]


def served() -> Serving:
    """One that has large answers, and many."""
    large = Dataset()
    large.add_new(0x7FE00010, "OB", bytes(300_000))
    studies = []
    for number in range(100):
        studies.append(Dataset())
        studies[-1].PatientID = str(number)
    return Serving(n_get=large, find=lambda _request: list(studies))


async def ask(association: Any, limit: int) -> None:
    """One message after the other, several of a window, large and many answers, and the end."""
    for size in borders(limit):
        assert (await association.store(source(size=size))).status == 0
    together = [association.store(source(size=size)) for size in borders(limit)]
    together += [association.echo() for _ in range(2 * WINDOW)]
    if not 0 < limit < 1000:
        together.append(association.n_get(STEP, "1.2.3"))
    assert {answer.status for answer in await gatherResults(together)} == {0}
    assert len(await association.find({})) == 100
    await association.release()


def options(limit: int) -> dict[str, Any]:
    return {"contexts": CONTEXTS, "max_pdu_length": limit, "window": WINDOW}


Octets = list[bytes]  # what the acceptor received, and what the requestor did


def in_memory(limit: int, over: Callable[[], World] = World) -> Octets:
    with over() as world:
        requestor, _ = world.associate(served(), {"max_pdu_length": limit}, **options(limit))
        world.result(ask(requestor, limit))
        if isinstance(world, Sockets):
            return [world.received(0), world.received(1)]
        return [bytes(wire.record) for wire in world.link.wires]


@pytest.fixture(scope="module")
def plainly() -> Callable[[int], Octets]:
    """What goes through transports in memory, for each maximum length."""
    found: dict[int, Octets] = {}

    def octets(limit: int) -> Octets:
        if limit not in found:
            found[limit] = in_memory(limit)
        return found[limit]

    return octets


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Words of endpoints: those of a server with a certificate, and of a client that trusts it."""
    authority = Authority(tmp_path_factory.mktemp("sender"))
    server = authority.issue("server", "127.0.0.1")
    return f"dicomtls:0:interface=127.0.0.1:{server.words}", f":ca={authority.cert}"


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[bool, bytearray]]:
    """What each side receives: the requestor's is True's."""
    records = {True: bytearray(), False: bytearray()}
    receive = Provider.receive

    def received(provider: Provider, data: bytes) -> Any:
        records[provider.requestor] += data
        return receive(provider, data)

    with monkeypatch.context() as patch:
        patch.setattr(Provider, "receive", received)
        yield records


@pytest.mark.parametrize("limit", LENGTHS)
@pytest.mark.parametrize("way", ["plain socket", "other transport", "TLS"])
def test_over_loopback_it_is_the_same_octets(
    loop: Loop, secure: tuple[str, str], plainly: Callable[[int], Octets],
    monkeypatch: pytest.MonkeyPatch, way: str, limit: int,
) -> None:  # fmt: skip
    expected = plainly(limit)
    if way == "other transport":
        monkeypatch.setattr(sending, "plain_socket", lambda _transport: None)
    used: list[bool] = []
    start = sending.Sender.start

    def started(sender: sending.Sender, transport: Any) -> None:
        start(sender, transport)
        used.append(sender._socket is not None)

    monkeypatch.setattr(sending.Sender, "start", started)
    server, trust = secure if way == "TLS" else ("tcp:0:interface=127.0.0.1", "")

    async def talk() -> None:
        port = await listen(server, served(), reactor=loop.reactor, max_pdu_length=limit)
        number = port.getHost().port
        where = f"dicomtls:127.0.0.1:{number}{trust}" if trust else f"127.0.0.1:{number}"
        association = await connect(f"SERVER@{where}", reactor=loop.reactor, **options(limit))
        await ask(association, limit)
        await port.stopListening()

    with recorded(monkeypatch) as records:
        loop.run(talk)
    assert [bytes(records[False]), bytes(records[True])] == expected
    assert used == [way == "plain socket"] * 2


@pytest.mark.parametrize("limit", LENGTHS)
@pytest.mark.parametrize("octets", [2048, 100_000])
def test_over_sockets_that_take_little_at_a_time_it_is_the_same_octets(
    plainly: Callable[[int], Octets], limit: int, octets: int
) -> None:
    assert in_memory(limit, lambda: Sockets(octets)) == plainly(limit)


def test_all_sizes_and_answers_were_among_them(plainly: Callable[[int], Octets]) -> None:
    """Else these tests would show nothing."""
    for limit in (16, 1024, 0):
        stored, answers = (raw.messages(octets) for octets in plainly(limit))
        sizes = [len(message.data) for message in stored if message.data][:-1]
        assert len(sizes) == 2 * len(borders(limit))
        assert len(answers) == len(sizes) + 2 * WINDOW + 101 + (limit != 16)


def test_over_tls_a_piece_is_sent_before_the_next_is_encrypted(
    loop: Loop, secure: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the peer is idle meanwhile."""
    done: list[str] = []

    def note(what: str, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def noted(self: Any, data: bytes) -> Any:
            if len(data) > 10_000:  # not the answers
                done.append(what)
            return method(self, data)

        monkeypatch.setattr(owner, name, noted)

    note("encrypted", SSL.Connection, "sendall")
    note("sent", tcp.Connection, "writeSomeData")
    server, trust = secure

    async def talk() -> None:
        port = await listen(server, served(), reactor=loop.reactor)
        where = f"SERVER@dicomtls:127.0.0.1:{port.getHost().port}{trust}"
        association = await connect(where, reactor=loop.reactor, **options(131072))
        assert (await association.store(source(size=500_000))).status == 0
        await association.release()
        await port.stopListening()

    loop.run(talk)
    assert done.count("encrypted") > 3
    assert ("encrypted", "encrypted") not in pairwise(done)


def test_answers_go_out_while_others_of_the_same_read_are_performed() -> None:
    """Else the peer is idle meanwhile, and then we are."""
    out: list[int] = []
    with World() as world:

        def echo(_request: Any) -> int:
            out.append(len(raw.messages(bytes(world.link.to_requestor.record))))
            return 0

        requestor, _ = world.associate(Serving(echo=echo), window=WINDOW)
        asked = [requestor.echo() for _ in range(7)]
        assert [answer.status for answer in world.result(gatherResults(asked))] == [0] * 7
        world.result(requestor.release())
    assert out == [0, 0, 2, 2, 4, 4, 6]
