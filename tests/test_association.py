"""Associations from their beginning to each of their ends, both sides in memory (PS3.8 7, 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import raw
from facts import facts
from hypothesis import example, given
from hypothesis import strategies as st
from memory import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    Endpoint,
    Script,
    Serving,
    World,
    fired,
    outcome,
    source,
)
from twisted.internet import defer
from twisted.internet import error as transport_errors
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import formatEvent, globalLogPublisher

from twisted_dimse import (
    STUDY_ROOT,
    VERIFICATION,
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    ConnectionLost,
    ContextNotAccepted,
    DimseError,
    Peer,
    ProtocolViolation,
    Timeouts,
    UserIdentity,
    Window,
    listen,
)
from twisted_dimse.upperlayer import pdu

REJECTIONS = [
    (1, int(source), int(reason))
    for source, reasons in facts("negotiation")["associate_rj"]["reasons"].items()
    for reason in reasons
]
NO_TIME = Timeouts(None, None, None, None, None)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# --- both sides see what was agreed


def test_both_sides_know_who_talks_to_whom(world: World) -> None:
    requestor, acceptor = world.associate(calling_ae_title="MODALITY3")
    for side in (requestor, acceptor):
        assert (side.calling_ae_title, side.called_ae_title) == ("MODALITY3", "SERVER")
        assert side.address == "10.0.0.1"
    assert (requestor.peer, acceptor.peer) == ("SERVER", "MODALITY3")
    assert requestor.number != acceptor.number


def test_both_sides_have_the_same_contexts(world: World) -> None:
    contexts = [VERIFICATION, (CT, [JPEG, IMPLICIT]), ("1.2.3.4", [EXPLICIT])]
    requestor, acceptor = world.associate(contexts=contexts)
    agreed = [
        [(context.id, context.abstract_syntax, context.transfer_syntax) for context in accepted]
        for accepted in (requestor.accepted, acceptor.accepted)
    ]
    assert agreed[0] == agreed[1] == [(1, VERIFICATION, EXPLICIT), (3, CT, JPEG)]
    assert requestor.agreement is not None
    assert requestor.agreement.results == {1: 0, 3: 0, 5: 3}


def test_each_side_has_its_own_roles(world: World) -> None:
    requestor, acceptor = world.associate(contexts=[VERIFICATION, CT], roles={CT: "scp"})
    assert [(one.scu, one.scp) for one in requestor.accepted] == [(True, False), (False, True)]
    assert [(one.scu, one.scp) for one in acceptor.accepted] == [(False, True), (True, False)]


def test_a_handler_limits_the_roles_that_a_requestor_gets(world: World) -> None:
    handler = Serving()
    handler.roles = {CT: "scu"}
    wanted = {CT: "both", VERIFICATION: "both"}
    requestor, _ = world.associate(handler, contexts=[VERIFICATION, CT], roles=wanted)
    assert [(context.scu, context.scp) for context in requestor.accepted] == [
        (True, True),
        (True, False),
    ]


def test_storage_beside_a_get_has_both_roles_unasked(world: World) -> None:
    requestor, _ = world.associate(contexts=[CT, STUDY_ROOT.get])
    assert [(one.scu, one.scp) for one in requestor.accepted] == [(True, True), (True, False)]


@pytest.mark.parametrize(
    ("asked", "ours", "invoked", "performed"),
    [
        (None, 16, 1, 1),
        (8, 16, 8, 8),
        (8, 3, 3, 3),
        ((5, 1), 16, 5, 1),
        ((0, 0), 16, 16, 16),
        (Window(0, 0), 0, 0, 0),
    ],
)
def test_the_window_is_the_smaller_of_what_both_allow(
    world: World, asked: Any, ours: int, invoked: int, performed: int
) -> None:
    requestor, acceptor = world.associate(server={"window": ours}, window=asked)
    assert requestor.window == Window(invoked, performed)
    assert acceptor.window == Window(performed, invoked)


@pytest.mark.parametrize(
    ("of_the_server", "of_the_handler", "taken"),
    [((), (), IMPLICIT), ((), (EXPLICIT,), EXPLICIT), ((EXPLICIT,), (IMPLICIT,), EXPLICIT)],
)
def test_what_a_server_prefers_goes_before_what_its_handler_does(
    world: World, of_the_server: Any, of_the_handler: Any, taken: str
) -> None:
    handler = Serving()
    handler.prefer = of_the_handler
    wanted = [(CT, [IMPLICIT, EXPLICIT])]
    requestor, _ = world.associate(handler, {"prefer": of_the_server}, contexts=wanted)
    assert [context.transfer_syntax for context in requestor.accepted] == [taken]


def test_no_window_is_proposed_unless_asked_for(world: World) -> None:
    world.associate()
    assert b"\x53\x00\x00\x04" not in world.link.to_acceptor.record


def test_each_side_knows_what_the_other_takes(world: World) -> None:
    requestor, acceptor = world.associate(server={"max_pdu_length": 4096}, max_pdu_length=8192)
    assert requestor.agreement is not None
    assert acceptor.agreement is not None
    assert requestor.agreement.max_send_length == acceptor.agreement.max_receive_length == 4096
    assert requestor.agreement.max_receive_length == acceptor.agreement.max_send_length == 8192


def test_each_side_knows_the_other_implementation(world: World) -> None:
    requestor, acceptor = world.associate(implementation=("1.2.3", "OURS"))
    assert acceptor.agreement is not None
    assert requestor.agreement is not None
    assert acceptor.agreement.implementation_class_uid == "1.2.3"
    assert acceptor.agreement.implementation_version_name == "OURS"
    assert requestor.agreement.implementation_version_name == "TWISTED_DIMSE"


def test_extended_negotiation_is_offered_answered_and_seen(world: World) -> None:
    handler = Serving()
    handler.extended = {CT: lambda offered: offered[::-1]}
    requestor, acceptor = world.associate(
        handler,
        extended={CT: b"\1\2", VERIFICATION: b"\3"},
        common_extended={CT: ("1.2.840.10008.4.2", ["1.2.3"])},
    )
    assert requestor.agreement is not None
    assert acceptor.agreement is not None
    assert requestor.agreement.extended == {CT: b"\2\1"}
    assert acceptor.agreement.extended == {CT: b"\1\2", VERIFICATION: b"\3"}
    assert acceptor.agreement.common_extended == {CT: ("1.2.840.10008.4.2", ("1.2.3",))}


def test_where_nothing_is_accepted_the_answer_says_so_and_connect_releases(world: World) -> None:
    handler = Serving()
    connecting = world.connect(world.serve(handler), contexts=["1.2.3", (CT, ["1.2.4"])])
    handler.contexts = [(CT, [EXPLICIT])]
    world.run()
    with pytest.raises(ContextNotAccepted):
        outcome(connecting)
    answers = dict(raw.stream(bytes(world.link.to_requestor.record)))
    results = [b[:4] for k, b in raw.items(answers[raw.ASSOCIATE_AC][68:]) if k == 0x21]
    assert results == [b"\1\0\3\0", b"\3\0\4\0"]
    kinds = [kind for kind, _ in raw.stream(bytes(world.link.to_acceptor.record))]
    assert kinds == [raw.ASSOCIATE_RQ, raw.RELEASE_RQ]
    assert handler.ends == [None]


def test_a_handler_class_makes_a_handler_for_each_association(world: World) -> None:
    endpoint = world.serve(Serving)
    handlers = set()
    for _ in range(2):
        world.result(world.connect(endpoint))
    handlers = {association.handler for association in endpoint.factory.associations}
    assert len(handlers) == 2


def away() -> Any:
    raise RuntimeError("the database is away")


@pytest.mark.parametrize(("make", "why"), [(away, RuntimeError), (object, TypeError)])
def test_an_association_whose_handler_cannot_be_made_is_rejected_for_the_moment(
    world: World, make: Any, why: type[Exception]
) -> None:
    endpoint = world.serve(make)
    with pytest.raises(AssociationRejected) as caught:
        world.result(world.connect(endpoint))
    assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 1, 1)
    world.logged(why)


# --- to admit and to reject


@pytest.mark.parametrize(
    ("result", "origin", "reason"), [*REJECTIONS, (2, 1, 1), (2, 3, 1), (2, 3, 2)]
)
def test_a_rejection_reaches_the_requestor_as_the_handler_raised_it(
    world: World, result: int, origin: int, reason: int
) -> None:
    def associate(_request: Any) -> None:
        raise AssociationRejected(result, origin, reason)

    handler = Serving(associate=associate)
    with pytest.raises(AssociationRejected) as caught:
        world.associate(handler)
    error = caught.value
    assert (error.result, error.source, error.reason) == (result, origin, reason)
    assert handler.ends == []  # it never was an association


@pytest.mark.parametrize(
    ("server", "client", "codes"),
    [
        ({"ae_title": "OTHER", "require_called": True}, {}, (1, 1, 7)),
        ({"allow_calling": ["FRIEND"]}, {}, (1, 1, 3)),
        ({"max_associations": 0}, {}, (2, 3, 2)),
    ],
)
def test_access_rules_reject_with_their_reason(
    world: World, server: Any, client: Any, codes: tuple[int, int, int]
) -> None:
    with pytest.raises(AssociationRejected) as caught:
        world.associate(server=server, **client)
    assert (caught.value.result, caught.value.source, caught.value.reason) == codes


@pytest.mark.parametrize(
    "server",
    [
        {"ae_title": "SERVER", "require_called": True},
        {"allow_calling": ["FRIEND", "DIMSE-SCU"]},
        {"ae_title": "OTHER"},
    ],
)
def test_access_rules_admit_what_fits_them(world: World, server: Any) -> None:
    requestor, _ = world.associate(server=server)
    assert world.result(requestor.echo()).status == 0


@pytest.mark.parametrize(
    ("request_", "codes"),
    [
        (raw.associate_rq(application_context="1.2.3"), (1, 1, 2)),
        (raw.associate_rq()[:6] + b"\0\2" + raw.associate_rq()[8:], (1, 2, 2)),
    ],
    ids=["application context", "protocol version"],
)
def test_another_protocol_is_rejected(world: World, request_: bytes, codes: Any) -> None:
    _, script = world.call(request=request_)
    ((kind, body),) = raw.stream(bytes(script.received))
    assert (kind, *body[1:4]) == (raw.ASSOCIATE_RJ, *codes)


def test_slots_come_back(world: World) -> None:
    endpoint = world.serve(max_associations=1)
    first = world.result(world.connect(endpoint))
    with pytest.raises(AssociationRejected) as caught:
        world.result(world.connect(endpoint))
    assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
    world.result(first.release())
    second = world.result(world.connect(endpoint))
    second.abort()
    world.run()
    third = world.result(world.connect(endpoint))
    assert len(endpoint.factory.associations) == 1
    world.link.lose()
    assert outcome(third.closed)
    assert not endpoint.factory.associations


def test_a_factory_says_when_no_association_is_left(world: World) -> None:
    endpoint = world.serve()
    assert fired(endpoint.factory.drained())
    associations = [world.result(world.connect(endpoint)) for _ in range(3)]
    drained = endpoint.factory.drained()
    world.result(associations[0].release())
    assert not drained.called
    endpoint.factory.abort_all()
    world.run()
    assert outcome(drained) is None
    assert all(isinstance(outcome(one.closed), AssociationAborted) for one in associations[1:])


async def _admits(_request: Any) -> None:
    pass


async def _rejects(_request: Any) -> None:
    raise AssociationRejected(1, 1, 3)


@pytest.mark.parametrize("admit", [lambda _: None, lambda _: succeed(1), _admits])
def test_associate_admits_by_returning(world: World, admit: Callable[..., Any]) -> None:
    requestor, _ = world.associate(Serving(associate=admit))
    assert requestor.accepted


@pytest.mark.parametrize("reject", [lambda _: fail(AssociationRejected(1, 1, 3)), _rejects])
def test_associate_rejects_by_failing(world: World, reject: Callable[..., Any]) -> None:
    with pytest.raises(AssociationRejected) as caught:
        world.associate(Serving(associate=reject))
    assert caught.value.reason == 3


@pytest.mark.parametrize(
    "broken", [lambda _: 1 / 0, lambda _: fail(ZeroDivisionError())], ids=["raises", "fails"]
)
def test_an_associate_that_fails_rejects_for_now_and_is_logged_once(
    world: World, broken: Callable[..., Any]
) -> None:
    with pytest.raises(AssociationRejected) as caught:
        world.associate(Serving(associate=broken))
    assert caught.value.result == 2
    world.logged(ZeroDivisionError)


def test_associate_may_take_its_time(world: World) -> None:
    decision: Deferred[None] = Deferred()
    connecting = world.connect(world.serve(Serving(associate=lambda _: decision)))
    world.advance(20)
    assert not connecting.called
    decision.callback(None)
    assert world.result(connecting).accepted


@pytest.mark.parametrize("admitted", [True, False])
def test_a_decision_that_comes_too_late_does_nothing(world: World, admitted: bool) -> None:
    decision: Deferred[None] = Deferred()
    connecting = world.connect(world.serve(Serving(associate=lambda _: decision)))
    world.run()
    world.link.lose()
    if admitted:
        decision.callback(None)
    else:
        decision.errback(AssociationRejected(1, 1, 1))
    with pytest.raises(ConnectionLost):
        world.result(connecting)


def test_associate_sees_the_request(world: World) -> None:
    seen: list[Any] = []
    identity = UserIdentity.username("doe")
    world.associate(
        Serving(associate=seen.append),
        calling_ae_title="ME",
        contexts=[(CT, [JPEG])],
        user_identity=identity,
    )
    (request,) = seen
    assert (request.calling_ae_title, request.called_ae_title) == ("ME", "SERVER")
    assert [(c.abstract_syntax, c.transfer_syntaxes) for c in request.proposed] == [(CT, (JPEG,))]
    assert request.user_identity == request.association.user_identity == identity
    assert (request.address, request.peer_certificate) == ("10.0.0.1", None)


@pytest.mark.parametrize("how", ["release", "abort"])
def test_a_handler_hears_of_the_end_with_the_request_that_it_admitted(
    world: World, how: str
) -> None:
    heard: list[tuple[str, Any]] = []
    requestor, acceptor = world.associate(
        Serving(
            associate=lambda request: heard.append(("associate", request)),
            released=lambda request: heard.append(("release", request)),
            aborted=lambda request: heard.append(("abort", request)),
        )
    )
    getattr(requestor, how)()
    world.run()
    (_, asked), (what, told) = heard
    assert (what, told) == (how, asked)
    assert told.association is acceptor
    assert type(told.reason) is {"release": type(None), "abort": AssociationAborted}[how]


# --- who it is


async def _known(identity: Any, _request: Any) -> bytes:
    return b"ticket for " + identity.primary


@pytest.mark.parametrize(
    ("authenticate", "response"),
    [
        (lambda *_: True, b""),
        (lambda *_: b"ticket", b"ticket"),
        (lambda *_: succeed(b"later"), b"later"),
        (_known, b"ticket for doe"),
    ],
)
def test_a_known_user_is_admitted_and_answered(
    world: World, authenticate: Any, response: bytes
) -> None:
    requestor, acceptor = world.associate(
        server={"authenticate": authenticate},
        user_identity=UserIdentity.password("doe", "secret", response=True),
    )
    assert requestor.user_identity_response == acceptor.user_identity_response == response
    assert acceptor.user_identity is not None
    assert acceptor.user_identity.primary == b"doe"
    assert acceptor.user_identity.secondary == b"secret"


def test_a_user_who_asks_for_no_answer_gets_none(world: World) -> None:
    requestor, _ = world.associate(
        server={"authenticate": lambda *_: b"ticket"}, user_identity=UserIdentity.username("doe")
    )
    assert requestor.user_identity_response is None


def test_without_an_authenticator_a_user_is_admitted_unanswered(world: World) -> None:
    requestor, acceptor = world.associate(user_identity=UserIdentity.username("doe", response=True))
    assert acceptor.user_identity is not None
    assert requestor.user_identity_response is None


def test_an_authenticator_is_asked_about_those_without_identity_too(world: World) -> None:
    asked: list[Any] = []

    def authenticate(identity: Any, request: Any) -> bool:
        asked.append((identity, request.calling_ae_title))
        return False

    with pytest.raises(AssociationRejected):
        world.associate(server={"authenticate": authenticate})
    assert asked == [(None, "DIMSE-SCU")]


@pytest.mark.parametrize(
    "authenticate", [lambda *_: False, lambda *_: None, lambda *_: succeed(False)]
)
def test_an_unknown_user_is_rejected_before_the_handler_is_asked(
    world: World, authenticate: Any
) -> None:
    seen: list[Any] = []
    with pytest.raises(AssociationRejected) as caught:
        world.associate(
            Serving(associate=seen.append),
            {"authenticate": authenticate},
            user_identity=UserIdentity.username("doe"),
        )
    assert caught.value.result == 1
    assert seen == []


def test_an_authenticator_that_fails_rejects_for_now_and_is_logged_once(world: World) -> None:
    with pytest.raises(AssociationRejected) as caught:
        world.associate(server={"authenticate": lambda *_: 1 / 0})
    assert caught.value.result == 2
    world.logged(ZeroDivisionError)


# --- release


@pytest.mark.parametrize("by", [0, 1], ids=["requestor", "acceptor"])
def test_either_side_releases(world: World, by: int) -> None:
    handler = Serving()
    sides = world.associate(handler)
    assert world.result(sides[by].release()) is None
    assert [outcome(side.closed) for side in sides] == [None, None]
    assert handler.ends == [None]
    assert [end.lost for end in world.link.ends] == [True, True]


@pytest.mark.parametrize("cut", [None, 1, 3])
def test_a_release_collision_releases_both(world: World, cut: int | None) -> None:
    sides = world.associate()
    world.most = cut
    released = [side.release() for side in sides]
    world.run()
    assert [outcome(one) for one in released] == [None, None]
    assert [outcome(side.closed) for side in sides] == [None, None]
    kinds = [[kind for kind, _ in raw.stream(bytes(w.record))] for w in world.link.wires]
    assert kinds[0][1:] == kinds[1][1:] == [raw.RELEASE_RQ, raw.RELEASE_RP]


def test_a_release_waits_for_what_is_outstanding_and_queued(world: World) -> None:
    answer: Deferred[int] = Deferred()
    requestor, _ = world.associate(Serving(echo=lambda _: answer))
    echoes = [world.watch(requestor.echo()) for _ in range(3)]
    released = requestor.release()
    world.advance(10)
    assert not released.called
    answer.callback(0)
    world.run()
    assert [outcome(echo).status for echo in echoes] == [0, 0, 0]
    assert outcome(released) is None


def test_a_release_waits_for_what_is_being_performed(world: World) -> None:
    answer: Deferred[int] = Deferred()
    requestor, acceptor = world.associate(
        handler=Serving(echo=lambda _: answer), roles={VERIFICATION: "both"}
    )
    echo = world.watch(acceptor.echo())
    world.run()
    released = requestor.release()
    world.run()
    assert not released.called
    answer.callback(0)
    assert world.result(released) is None
    assert outcome(echo).status == 0


def test_the_acceptor_sends_what_it_has_before_it_answers_a_release(world: World) -> None:
    requestor, acceptor = world.associate(roles={CT: "both"})
    sent = world.watch(acceptor.store(source(size=500_000)))
    world.link.to_requestor.stalled = True
    released = requestor.release()
    world.run()
    assert not released.called
    world.link.to_requestor.stalled = False
    assert world.result(released) is None
    with pytest.raises(ConnectionLost):
        outcome(sent)  # there was nobody left who could answer
    assert [m.data for m in raw.messages(bytes(world.link.to_requestor.record))] == [
        source(size=500_000).data
    ]


def test_nothing_can_be_asked_of_a_released_association(world: World) -> None:
    requestor, acceptor = world.associate(roles={VERIFICATION: "both"})
    released = requestor.release()
    with pytest.raises(ConnectionLost):
        outcome(requestor.echo())
    world.run()
    for side in (requestor, acceptor):
        with pytest.raises(ConnectionLost):
            outcome(side.echo())
    assert outcome(released) is None


def test_a_second_release_ends_as_the_first(world: World) -> None:
    requestor, _ = world.associate()
    released = [requestor.release(), requestor.release()]
    world.run()
    assert [outcome(one) for one in [*released, requestor.release()]] == [None, None, None]


def test_a_release_of_what_is_lost_fails_with_the_reason(world: World) -> None:
    requestor, _ = world.associate()
    before = requestor.release()
    world.link.lose()
    for released in (before, requestor.release()):
        with pytest.raises(ConnectionLost):
            outcome(released)


def test_a_release_tells_the_truth_after_somebody_has_waited_for_the_end(world: World) -> None:
    requestor, _ = world.associate()

    async def wait() -> object:
        return await requestor.closed

    waiting = Deferred.fromCoroutine(wait())
    world.link.lose()
    assert isinstance(outcome(waiting), ConnectionLost)
    with pytest.raises(ConnectionLost):
        outcome(requestor.release())


def test_who_waits_for_the_end_does_not_change_it_for_others(world: World) -> None:
    requestor, _ = world.associate()
    impatient, patient, changing = (requestor.closed for _ in range(3))
    impatient.addTimeout(1, world.clock)
    patient.addCallback(lambda _end: changing.cancel())
    world.advance(1)
    with pytest.raises(defer.TimeoutError):
        outcome(impatient)
    released = requestor.release()
    assert not released.called
    world.run()
    assert [outcome(released), outcome(patient), outcome(requestor.closed)] == [None] * 3
    with pytest.raises(CancelledError):
        outcome(changing)


def test_a_release_that_nobody_waits_for_any_more_goes_on(world: World) -> None:
    requestor, _ = world.associate()
    released = requestor.release()
    released.cancel()
    with pytest.raises(CancelledError):
        world.result(released)
    assert outcome(requestor.closed) is None


def test_leaving_the_block_releases(world: World) -> None:
    async def use() -> None:
        async with await world.connect(endpoint) as association:
            await association.echo()

    handler = Serving()
    endpoint = world.serve(handler)
    world.result(use())
    assert handler.ends == [None]


def test_an_error_in_the_block_aborts_and_passes(world: World) -> None:
    async def use() -> None:
        async with await world.connect(endpoint):
            raise ZeroDivisionError

    handler = Serving()
    endpoint = world.serve(handler)
    with pytest.raises(ZeroDivisionError):
        world.result(use())
    (end,) = handler.ends
    assert isinstance(end, AssociationAborted)
    assert not end.by_us


def test_a_block_may_be_left_after_the_end(world: World) -> None:
    async def use() -> None:
        async with await world.connect(endpoint) as association:
            await association.release()

    endpoint = world.serve()
    world.result(use())


# --- abort


@pytest.mark.parametrize("by", [0, 1], ids=["requestor", "acceptor"])
def test_either_side_aborts_and_what_is_under_way_ends_on_both(world: World, by: int) -> None:
    cancelled: list[Any] = []

    def echo(request: Any) -> Deferred[None]:
        return Deferred(lambda _: cancelled.append(request.message_id))

    handler = Serving(echo=echo)
    sides = world.associate(handler)
    echoes = [world.watch(sides[0].echo()) for _ in range(2)]
    world.run()
    sides[by].abort()
    world.run()
    ends = [outcome(side.closed) for side in sides]
    assert [type(end) for end in ends] == [AssociationAborted, AssociationAborted]
    assert [end.by_us for end in ends] == [side is sides[by] for side in sides]
    for echo_ in echoes:
        with pytest.raises(AssociationAborted):
            outcome(echo_)
    assert cancelled == [1]
    assert [type(end) for end in handler.ends] == [AssociationAborted]


def test_an_abort_overtakes_what_is_queued(world: World) -> None:
    requestor, _ = world.associate(server={"max_pdu_length": 4096})
    world.link.to_acceptor.stalled = True
    stored = world.watch(requestor.store(source(size=1_000_000)))
    world.run()
    requestor.abort()
    world.run()
    pdus = list(raw.stream(bytes(world.link.to_acceptor.record)))
    assert pdus[-1] == (raw.ABORT, b"\0\0\0\0")
    assert len(pdus) < 100
    with pytest.raises(AssociationAborted):
        outcome(stored)


def test_an_abort_by_the_peer_says_source_and_reason(world: World) -> None:
    requestor, script = world.called()
    script.send(raw.pdu(raw.ABORT, b"\0\0\2\6"))
    world.run()
    end: Any = outcome(requestor.closed)
    assert (type(end), end.source, end.reason, end.by_us) == (AssociationAborted, 2, 6, False)


@pytest.mark.parametrize("times", [2, 5])
def test_aborting_again_changes_nothing(world: World, times: int) -> None:
    requestor, _ = world.associate()
    for _ in range(times):
        requestor.abort()
    world.run()
    requestor.abort()
    assert isinstance(outcome(requestor.closed), AssociationAborted)
    kinds = [kind for kind, _ in raw.stream(bytes(world.link.to_acceptor.record))]
    assert kinds == [raw.ASSOCIATE_RQ, raw.ABORT]


def test_what_is_released_or_lost_can_no_longer_be_aborted(world: World) -> None:
    requestor, acceptor = world.associate()
    world.result(requestor.release())
    requestor.abort()
    acceptor.abort()
    assert [outcome(requestor.closed), outcome(acceptor.closed)] == [None, None]


@pytest.mark.parametrize("method", ["associate", "echo", "store", "find"])
def test_a_handler_may_abort_in_the_middle(world: World, method: str) -> None:
    def abort(request: Any, *_: Any) -> None:
        request.association.abort()

    endpoint = world.serve(Serving(**{method: abort}))
    connecting = world.connect(endpoint)
    if method == "associate":
        with pytest.raises(AssociationAborted):
            world.result(connecting)
        return
    requestor = world.result(connecting)
    call = {
        "echo": requestor.echo,
        "store": lambda: requestor.store(source()),
        "find": lambda: requestor.find({}),
    }
    with pytest.raises(AssociationAborted) as caught:
        world.result(call[method]())
    assert not caught.value.by_us


def test_a_handler_that_fails_at_the_end_is_logged_and_the_slot_is_free(world: World) -> None:
    endpoint = world.serve(Serving(released=lambda _: 1 / 0))
    requestor = world.result(world.connect(endpoint))
    world.result(requestor.release())
    world.logged(ZeroDivisionError)
    assert not endpoint.factory.associations


# --- the connection is lost


def _everything(world: World, ends: list[Any]) -> Any:
    """Connect, echo, store and release; what became of each step is put in ``ends``."""

    async def use() -> None:
        association = await world.connect(endpoint, window=4, contexts=[VERIFICATION, CT])
        association.closed.addCallback(ends.append)
        operations = [
            association.echo(),
            association.store(source(size=3000)),
            association.store(source("1.2.3.5", size=100)),
        ]
        for operation in operations:
            world.watch(operation)
            operation.addErrback(lambda failure: failure.trap(DimseError) and None)
        released = world.watch(association.release())
        for operation in operations:
            await operation
        await released

    endpoint = world.serve(max_pdu_length=1000)
    return use()


def _lengths() -> tuple[int, int]:
    """The octets that go each way when nothing is lost."""
    with World() as world:
        world.result(_everything(world, []))
        return tuple(wire.delivered for wire in world.link.wires)  # type: ignore[return-value]


LENGTHS = _lengths()


@given(
    direction=st.sampled_from([0, 1]),
    share=st.floats(0, 1),
    most=st.sampled_from([None, 1, 7, 100]),
)
@example(direction=0, share=0.0, most=None)
@example(direction=0, share=1.0, most=None)
@example(direction=1, share=1.0, most=None)
def test_whatever_octet_is_the_last_everything_ends_once(
    direction: int, share: float, most: int | None
) -> None:
    with World() as world:
        ends: list[Any] = []
        world.most = most
        using = Deferred.fromCoroutine(_everything(world, ends))
        wire = world.link.wires[direction]
        wire.breaks_at = round(share * LENGTHS[direction])
        world.run()
        world.link.lose()
        world.run()
        try:
            outcome(using)
        except DimseError as error:
            assert isinstance(error, ConnectionLost)  # noqa: PT017
        for association in world.associations:
            end: Any = outcome(association.closed)
            assert end is None or isinstance(end, ConnectionLost)


def test_a_peer_that_hangs_up_instead_of_answering_is_a_lost_connection(world: World) -> None:
    script = Script(answers=False)
    connecting = world.connect(Endpoint(world, script))
    world.run()
    script.transport.loseConnection()
    with pytest.raises(ConnectionLost, match="hung up"):
        world.result(connecting)


def test_a_peer_that_hangs_up_instead_of_confirming_a_release_is_no_release(world: World) -> None:
    requestor, script = world.called()
    script.answers_release = False
    released = requestor.release()
    world.run()
    script.transport.loseConnection()
    with pytest.raises(ConnectionLost):
        world.result(released)


def test_a_requestor_that_hangs_up_before_asking_leaves_nothing(world: World) -> None:
    handler = Serving()
    acceptor, script = world.call(handler)
    script.transport.loseConnection()
    world.run()
    assert isinstance(outcome(acceptor.closed), ConnectionLost)
    assert handler.ends == []


# --- to connect


def test_a_refused_connection_names_the_peer(world: World) -> None:
    endpoint = world.serve()
    endpoint.refusal = transport_errors.ConnectionRefusedError()
    with pytest.raises(ConnectionFailed, match="SERVER"):
        world.result(world.connect(endpoint))


def test_cancelling_a_connect_before_the_connection_stops_it(world: World) -> None:
    endpoint = world.serve()
    endpoint.held = True
    connecting = world.connect(endpoint)
    connecting.cancel()
    with pytest.raises(CancelledError):
        outcome(connecting)
    assert endpoint.cancelled == 1
    endpoint.open()
    assert not world.links


def test_cancelling_a_connect_during_the_negotiation_aborts(world: World) -> None:
    script = Script(answers=False)
    connecting = world.connect(Endpoint(world, script))
    world.run()
    connecting.cancel()
    with pytest.raises(CancelledError):
        outcome(connecting)
    world.run()
    assert script.kinds == [raw.ASSOCIATE_RQ, raw.ABORT]


def test_an_answer_after_the_cancel_is_too_late(world: World) -> None:
    script = Script(answers=False)
    connecting = world.connect(Endpoint(world, script))
    world.run()
    world.link.to_requestor.stalled = True
    script.answers = True
    script._read = 0
    script.dataReceived(b"")
    connecting.cancel()
    world.link.to_requestor.stalled = False
    world.run()
    with pytest.raises(CancelledError):
        outcome(connecting)
    (association,) = world.associations
    assert not association.accepted


def test_an_established_connect_can_no_longer_be_cancelled(world: World) -> None:
    endpoint = world.serve()
    connecting = world.connect(endpoint)
    world.run()
    connecting.cancel()
    assert world.result(outcome(connecting).echo()).status == 0


@pytest.mark.parametrize(
    "options",
    [
        {"contexts": []},
        {"calling_ae_title": "over sixteen characters"},
        {"roles": {CT: "server"}},
        {"timeouts": -1},
        {"timeouts": float("nan")},
        {"window": 70_000},
        {"contexts": [STUDY_ROOT]},
        {"contexts": [7]},
    ],
)
def test_what_cannot_be_proposed_fails_the_deferred(world: World, options: Any) -> None:
    connecting = world.connect(world.serve(), **options)
    with pytest.raises(ValueError):
        outcome(connecting)
    assert world.links == []


def test_an_endpoint_that_raises_is_a_connection_that_failed(world: World) -> None:
    class Raising(Endpoint):
        def connect(self, factory: Any) -> Any:
            raise ZeroDivisionError("no route")

    connecting = world.connect(Raising(world, Script()))
    with pytest.raises(ConnectionFailed, match="no route"):
        outcome(connecting)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_connection_that_comes_after_all_is_not_taken(world: World, how: str) -> None:
    """From an endpoint that cannot be cancelled."""

    class Deaf(Endpoint):
        def connect(self, factory: Any) -> Any:
            self.ours = factory
            return Deferred()

    endpoint = Deaf(world, Script())
    connecting = world.connect(endpoint, timeouts=5)
    if how == "cancel":
        connecting.cancel()
    world.advance(5)
    with pytest.raises((CancelledError, AssociationTimeout)):
        outcome(connecting)
    assert endpoint.ours.buildProtocol(None) is None


@pytest.mark.parametrize(
    ("endpoint", "options", "error"),
    [
        ("nowhere", {}, ValueError),
        ("tcp:x", {}, ValueError),
        ("tcp:0", {"timeouts": -1}, ValueError),
        ("tcp:0", {"ae_title": "SEVENTEEN LETTERS"}, ValueError),
        ("tcp:0", {"window": 70_000}, ValueError),
        ("tcp:0", {"max_pdu_length": -1}, ValueError),
        ("tcp:0", {"no_such_option": 1}, TypeError),
    ],
)
def test_what_cannot_be_listened_on_fails_the_deferred(
    world: World, endpoint: str, options: Any, error: type[Exception]
) -> None:
    listening = listen(endpoint, Serving(), reactor=world.clock, **options)
    with pytest.raises(error):
        outcome(listening)


@pytest.mark.parametrize("stage", ["connection", "negotiation"])
def test_one_deadline_covers_everything(world: World, stage: str) -> None:
    endpoint: Any = Endpoint(world, Script(answers=False))
    endpoint.held = stage == "connection"
    connecting = world.connect(endpoint, timeouts=Timeouts(connect=12))
    world.advance(11.5)
    assert not connecting.called
    world.advance(0.5)
    with pytest.raises(AssociationTimeout, match=r"SERVER.* in 12 s"):
        outcome(connecting)
    endpoint.open()
    world.run()
    if stage == "negotiation":
        assert endpoint.factory.kinds == [raw.ASSOCIATE_RQ, raw.ABORT]


def test_the_deadline_is_for_connection_and_negotiation_together(world: World) -> None:
    endpoint = Endpoint(world, Script(answers=False))
    endpoint.held = True
    connecting = world.connect(endpoint, timeouts=Timeouts(connect=12, acse=10))
    world.advance(7)
    endpoint.open()
    world.advance(4.5)
    assert not connecting.called
    world.advance(0.5)
    with pytest.raises(AssociationTimeout, match="12 s"):
        outcome(connecting)


def test_a_deadline_ends_with_the_negotiation(world: World) -> None:
    requestor, _ = world.associate(timeouts=Timeouts(connect=12))
    world.advance(500)
    assert not requestor.closed.called


def test_without_a_deadline_the_answer_still_has_its_time(world: World) -> None:
    connecting = world.connect(
        Endpoint(world, Script(answers=False)), timeouts=Timeouts(connect=None, acse=40)
    )
    world.advance(39.5)
    assert not connecting.called
    world.advance(0.5)
    with pytest.raises(AssociationTimeout, match="association request within 40 s"):
        outcome(connecting)


@pytest.mark.parametrize(
    "options",
    [
        {"contexts": []},
        {"contexts": [(CT, [])]},
        {"contexts": [f"1.2.{n}" for n in range(129)]},
        {"calling_ae_title": "over sixteen characters"},
        {"calling_ae_title": ""},
        {"roles": {CT: "master"}},
        {"window": -1},
        {"window": 70000},
        {"max_pdu_length": -1},
        {"max_pdu_length": 1 << 32},
    ],
    ids=str,
)
def test_what_cannot_be_proposed_is_refused_before_connecting(world: World, options: Any) -> None:
    endpoint = world.serve()
    with pytest.raises(ValueError):
        world.result(world.connect(endpoint, **options))
    assert not world.links


def test_a_peer_may_be_given_ready_made(world: World) -> None:
    endpoint = world.serve(ae_title="ARCHIVE", require_called=True)
    requestor = world.result(world.connect(Peer("ARCHIVE", endpoint)))
    assert requestor.called_ae_title == "ARCHIVE"


# --- answers that break the rules


@pytest.mark.parametrize(
    "answer",
    [
        raw.pdu(raw.RELEASE_RP, bytes(4)),
        raw.p_data((1, 3, raw.echo_rq())),
        raw.associate_rq(),
        b"\x2a\0\0\0\0\0",
    ],
    ids=["release", "data", "request", "nonsense"],
)
def test_another_answer_than_an_answer_is_aborted(world: World, answer: bytes) -> None:
    script = Script(answers=False)
    connecting = world.connect(Endpoint(world, script))
    world.run()
    script.send(answer)
    with pytest.raises(ProtocolViolation):
        world.result(connecting)
    assert script.abort is not None


def test_an_acceptance_of_what_was_not_proposed_accepts_nothing(world: World) -> None:
    answer = pdu.AssociateAC("SERVER", "ME", (pdu.ContextResult(99, 0, EXPLICIT),), ())
    script = Script(answers=False)
    connecting = world.connect(Endpoint(world, script))
    world.run()
    script.send(answer.encode())
    script.answers_release = True
    with pytest.raises(ContextNotAccepted):
        world.result(connecting)


@pytest.mark.parametrize("octets", [1, 7])
def test_a_maximum_length_without_room_for_data_ends_the_negotiation(
    world: World, octets: int
) -> None:
    with pytest.raises(DimseError) as caught:
        world.called(Script(max_length=octets))
    assert isinstance(caught.value, ProtocolViolation)
    acceptor, script = world.call(request=raw.associate_rq(max_length=octets))
    assert script.kinds == [raw.ASSOCIATE_RJ]
    script.transport.loseConnection()
    world.run()
    assert isinstance(outcome(acceptor.closed), AssociationRejected)


# --- time


def _silent(world: World) -> Any:
    acceptor, _ = world.call(timeouts=Timeouts(artim=25))
    return acceptor


def _half_a_request(world: World) -> Any:
    acceptor, script = world.call(timeouts=Timeouts(artim=25))
    script.send(raw.associate_rq()[:40])
    return acceptor


def _idle(world: World) -> Any:
    return world.associate(timeouts=Timeouts(idle=25, dimse=400))[0]


def _idle_acceptor(world: World) -> Any:
    return world.associate(server={"timeouts": Timeouts(idle=25, dimse=400)})[1]


def _no_response(world: World) -> Any:
    requestor, _ = world.associate(
        Serving(echo=lambda _: Deferred()), timeouts=Timeouts(idle=400, dimse=25)
    )
    world.watch(requestor.echo()).addErrback(lambda f: f.trap(AssociationTimeout))
    return requestor


STORE = raw.p_data((3, 3, raw.store_rq("1.2.3", sop_class=CT)))
DATA_SET = raw.dataset("1.2.3", 100, sop_class=CT)

#: What a peer sends before it sends no more.
UNFINISHED = {
    "half a header": STORE[:4],
    "half a command": raw.p_data((3, 1, raw.store_rq("1.2.3", sop_class=CT)[:40])),
    "half a fragment of a command": STORE[:40],
    "no data set": STORE,
    "half a data set": STORE + raw.p_data((3, 0, DATA_SET[:100])),
    "half a fragment of a data set": STORE + raw.p_data((3, 2, DATA_SET))[:-50],
}


def _unfinished(octets: bytes) -> Callable[[World], Any]:
    def begin(world: World) -> Any:
        acceptor, script = world.call(
            request=raw.associate_rq([(3, CT, [EXPLICIT])]),
            timeouts=Timeouts(idle=400, dimse=25),
        )
        script.send(octets)
        return acceptor

    return begin


def _takes_no_data(world: World) -> Any:
    requestor, _ = world.associate(timeouts=Timeouts(idle=400, dimse=25))
    world.link.to_acceptor.stalled = True
    world.watch(requestor.store(source(size=1_000_000))).addErrback(
        lambda f: f.trap(AssociationTimeout)
    )
    return requestor


def _takes_no_data_and_asks_for_release(world: World) -> Any:
    requestor, acceptor = world.associate(
        server={"timeouts": Timeouts(idle=400, dimse=25)},
        timeouts=NO_TIME,
        roles={CT: "both"},
    )
    world.link.to_requestor.stalled = True
    world.watch(acceptor.store(source(size=1_000_000))).addErrback(lambda f: f.trap(DimseError))
    world.watch(requestor.release()).addErrback(lambda f: f.trap(DimseError))
    return acceptor


def _no_release(world: World) -> Any:
    requestor, script = world.called(timeouts=Timeouts(acse=25))
    script.answers_release = False
    world.watch(requestor.release()).addErrback(lambda f: f.trap(AssociationTimeout))
    return requestor


def _releases_too(world: World) -> Any:
    """The peer collides with our release, and then does not answer it."""
    requestor, script = world.called(timeouts=Timeouts(acse=25))
    script.answers_release = False
    world.watch(requestor.release()).addErrback(lambda f: f.trap(AssociationTimeout))
    script.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
    return requestor


SITUATIONS = {
    "no request": (_silent, "no A-ASSOCIATE-RQ within 25 s"),
    "half a request": (_half_a_request, "no A-ASSOCIATE-RQ within 25 s"),
    "idle requestor": (_idle, "nothing happened for 25 s"),
    "idle acceptor": (_idle_acceptor, "nothing happened for 25 s"),
    "no response": (_no_response, "no response for 25 s"),
    **{
        what: (_unfinished(octets), "a message did not go on for 25 s")
        for what, octets in UNFINISHED.items()
    },
    "no room": (_takes_no_data, "the peer took no data for 25 s"),
    "no room, release": (_takes_no_data_and_asks_for_release, "the peer took no data for 25 s"),
    "no release": (_no_release, "no answer to the release request within 25 s"),
    "collision": (_releases_too, "no answer to the release request within 25 s"),
}


FROM_THE_BEGINNING = ("no request", "idle requestor", "idle acceptor")


@pytest.mark.parametrize(
    ("situation", "later"),
    [
        (situation, later)
        for situation in SITUATIONS
        for later in ([0] if situation in FROM_THE_BEGINNING else [0, 3, 30, 61])
    ],
)
def test_a_time_out_comes_exactly_at_its_time(world: World, situation: str, later: float) -> None:
    begin, text = SITUATIONS[situation]
    world.advance(later)
    association: Association = begin(world)
    world.advance(24.5)
    assert not association._over
    world.advance(0.5)
    assert isinstance(association._reason, AssociationTimeout)
    assert str(association._reason) == text


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_time_out_is_the_reason_of_the_end(world: World, situation: str) -> None:
    begin, text = SITUATIONS[situation]
    association: Association = begin(world)
    world.advance(25)
    world.link.lose()
    assert str(outcome(association.closed)) == text
    assert len(world.lines(text)) == 1


@pytest.mark.parametrize("late", [1, 59, 60, 119])
def test_a_wait_that_begins_late_has_its_whole_time(world: World, late: int) -> None:
    requestor, _ = world.associate(Serving(echo=lambda _: Deferred()))
    world.advance(late)
    echo = world.watch(requestor.echo())
    world.advance(59.5)
    assert not echo.called
    world.advance(0.5)
    with pytest.raises(AssociationTimeout):
        outcome(echo)


def test_what_goes_out_slowly_is_not_late(world: World) -> None:
    """However long it takes, as long as the transport gets rid of something."""
    requestor, _ = world.associate()
    world.link.to_acceptor.stalled = True
    stored = world.watch(requestor.store(source(size=6_000_000)))
    world.run()
    for _ in range(3):
        world.link.to_acceptor.stalled = False
        world.link.to_acceptor.turn()
        world.link.to_acceptor.stalled = True
        world.advance(59.5)
    assert not stored.called
    world.link.to_acceptor.stalled = False
    assert world.result(stored).status == 0


def test_what_comes_in_slowly_is_not_late(world: World) -> None:
    _, script = world.call(request=raw.associate_rq([(3, CT, [EXPLICIT])]))
    for octet in STORE + raw.p_data((3, 2, DATA_SET)):
        world.advance(59.5)
        script.send(bytes((octet,)))
    world.run()
    assert [message.status for message in script.messages] == [0]


def test_an_operation_that_is_performed_keeps_the_association_alive(world: World) -> None:
    answer: Deferred[int] = Deferred()
    requestor, _ = world.associate(
        Serving(echo=lambda _: answer), {"timeouts": Timeouts(idle=10)}, timeouts=NO_TIME
    )
    echo = world.watch(requestor.echo())
    world.advance(1000)
    answer.callback(0)
    assert world.result(echo).status == 0
    world.advance(9.5)
    assert not requestor.closed.called
    world.advance(0.5)
    assert requestor.closed.called


def test_traffic_puts_the_idle_end_off(world: World) -> None:
    requestor, acceptor = world.associate(server={"timeouts": Timeouts(idle=10)}, timeouts=NO_TIME)
    for _ in range(5):
        world.advance(9)
        world.result(requestor.echo())
    world.advance(9.5)
    assert not acceptor.closed.called
    world.advance(0.5)
    assert isinstance(outcome(acceptor.closed), AssociationTimeout)
    assert isinstance(outcome(requestor.closed), AssociationAborted)


def test_without_time_outs_nothing_is_ever_late(world: World) -> None:
    requestor, acceptor = world.associate(
        Serving(echo=lambda _: Deferred()), {"timeouts": NO_TIME}, timeouts=NO_TIME
    )
    echo = requestor.echo()
    world.advance(1e7)
    assert not echo.called
    assert not world.clock.getDelayedCalls()
    acceptor.abort()
    with pytest.raises(AssociationAborted):
        world.result(echo)


@pytest.mark.parametrize("how", ["release", "abort", "reject"])
def test_a_peer_that_does_not_close_at_the_end_is_cut_off_after_artim(
    world: World, how: str
) -> None:
    handler = Serving()
    if how == "reject":
        handler = Serving(associate=lambda _: fail(AssociationRejected()))
    acceptor, script = world.call(handler, raw.associate_rq(), timeouts=Timeouts(artim=25))
    if how == "release":
        script.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
    elif how == "abort":
        acceptor.abort()
    world.advance(24.5)
    assert not world.link.acceptor.lost
    world.advance(0.5)
    assert world.link.acceptor.lost
    assert (
        type(outcome(acceptor.closed))
        is {
            "release": type(None),
            "abort": AssociationAborted,
            "reject": AssociationRejected,
        }[how]
    )


def test_a_peer_that_reads_nothing_at_the_end_is_cut_off_after_artim(world: World) -> None:
    requestor, script = world.called(timeouts=Timeouts(artim=25))
    world.link.to_acceptor.stalled = True
    script.send(raw.pdu(raw.ABORT, bytes(4)))
    stored = world.watch(requestor.store(source(size=200_000)))
    world.advance(24.5)
    assert not world.link.requestor.lost
    world.advance(0.5)
    assert world.link.requestor.lost
    with pytest.raises(AssociationAborted):
        outcome(stored)


def test_one_number_of_seconds_is_for_all_that_the_interface_names() -> None:
    timeouts = Timeouts.of(5)
    assert timeouts == Timeouts(connect=5, acse=5, dimse=5, idle=5)
    assert Timeouts.of(None) == Timeouts()
    assert Timeouts.of(timeouts) is timeouts


# --- what is reported


def test_the_line_counts_instances_where_some_moved(world: World) -> None:
    requestor, acceptor = world.associate(Serving())
    world.result(requestor.echo())
    world.result(requestor.store(source()))
    world.result(requestor.release())
    for association in (requestor, acceptor):
        assert (
            world.lines(f"association {association.number},")[-1]
            .split(": ")[1]
            .startswith("released after 1 instance, ")
        )


def test_the_line_counts_one_message(world: World) -> None:
    requestor, acceptor = world.associate(Serving())
    world.result(requestor.echo())
    world.result(requestor.release())
    (line,) = world.lines(f"association {acceptor.number},")
    assert "released after 1 message, " in line


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("release", "released after 2 messages"),
        ("abort", "association aborted by us after 2 messages"),
        ("lose", "the connection was lost after 2 messages"),
    ],
)
def test_each_association_has_one_line_for_its_end(world: World, end: str, words: str) -> None:
    requestor, acceptor = world.associate(Serving(), calling_ae_title="MODALITY3")
    for _ in range(2):
        world.result(requestor.echo())
    world.events.clear()
    world.advance(3)
    if end == "lose":
        world.link.lose()
    else:
        getattr(acceptor, end)()
    world.run()
    (line,) = world.lines(f"association {acceptor.number},")
    assert f"MODALITY3 at 10.0.0.1 to SERVER: {words}" in line
    assert line.endswith("in 3.0 s")


def test_the_log_says_where_a_peer_without_an_address_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that connects through a Unix socket."""
    monkeypatch.setattr("memory.Address.host", "")
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "twisted_dimse.ending":
            lines.append(str(formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    requestor, _ = world.associate()
    world.result(requestor.release())
    globalLogPublisher.removeObserver(observe)
    assert [" at an unnamed address to " in line for line in lines] == [True, True]


def test_a_place_is_free_when_the_answer_to_the_release_goes_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has it may connect to another process of the same server at once."""
    requestor, acceptor = world.associate()
    (factory,) = world.factories
    free: list[bool] = []
    answer = acceptor.protocol.answer_release

    def answered() -> None:
        free.append(not factory.open)
        answer()

    monkeypatch.setattr(acceptor.protocol, "answer_release", answered)
    assert len(factory.open) == 1
    world.result(requestor.release())
    assert free == [True]
