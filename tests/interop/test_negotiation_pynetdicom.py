"""Each item of negotiation with pynetdicom, in both roles: what is offered, what is answered, and
what handlers of the acceptor see of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import peers
import pytest
from loop import Loop

from twisted_dimse import (
    VERIFICATION,
    AssociationRejected,
    Handler,
    UserIdentity,
    connect,
)
from twisted_dimse.upperlayer.negotiation import Window

if find_spec("pynetdicom") is None:
    peers.absent("pynetdicom")

from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

pytestmark = pytest.mark.interop

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STORAGE_SERVICE = "1.2.840.10008.4.2"
SECONDS = 60

#: The five types of PS3.7 D.3.3.7, by number.
IDENTITIES = {
    1: UserIdentity.username("müller"),
    2: UserIdentity.password("müller", "secret"),
    3: UserIdentity.kerberos(b"\x60ticket"),
    4: UserIdentity.saml(b"<saml/>"),
    5: UserIdentity.jwt(b"a.b.c"),
}
#: What each type is answered with, where an answer is asked for.
ANSWERS = {1: b"", 2: b"", 3: b"\x6fticket", 4: b"<answer/>", 5: b"d.e.f"}
#: The role proposed for each SOP class that is SCU, SCP or both, and whether we are then SCU, SCP.
ROLES = {
    "scu": (True, False),
    "scp": (False, True),
    "both": (True, True),
}


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


# --- pynetdicom calls us


class Watching(Handler):
    """Takes CT and MR, and keeps what it sees of each association."""

    contexts = (VERIFICATION, CT, MR)
    extended = {CT: lambda offered: offered[::-1]}  # noqa: RUF012

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def echo(self, request: Any) -> int:
        self.seen.append(request.association)
        return 0


class Ours:
    def __init__(self, loop: Loop) -> None:
        self.handler = Watching()
        self.identities: list[Any] = []
        self.port = loop.listen(self.handler, window=4, authenticate=self._known)

    def _known(self, identity: Any, _request: Any) -> Any:
        self.identities.append(identity)
        if identity is None:
            return True
        return identity.primary != b"stranger" and ANSWERS[identity.type]


@pytest.fixture(scope="module")
def ours(loop: Loop) -> Ours:
    return Ours(loop)


def called(ours: Ours, *items: Any) -> tuple[Any, Any]:
    """An association of pynetdicom's, which has echoed and is released, and what we saw of it."""
    ae = AE(ae_title="PYNETDICOM")
    ae.dimse_timeout = ae.acse_timeout = SECONDS
    for uid in (VERIFICATION, CT, MR):
        ae.add_requested_context(uid)
    association = ae.associate("127.0.0.1", ours.port, ext_neg=list(items))
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    return association, ours.handler.seen[-1]


def identity_of(number: int, *, response: bool) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = number
    item.primary_field = IDENTITIES[number].primary
    if number == 2:
        item.secondary_field = IDENTITIES[number].secondary
    item.positive_response_requested = response
    return item


@pytest.mark.parametrize("response", [True, False], ids=["answered", "unanswered"])
@pytest.mark.parametrize("number", IDENTITIES)
def test_its_user_identity_is_seen_and_answered(ours: Ours, number: int, response: bool) -> None:
    association, seen = called(ours, identity_of(number, response=response))
    identity = ours.identities[-1]
    assert seen.user_identity == identity
    assert (identity.type, identity.primary, identity.secondary) == (
        number,
        IDENTITIES[number].primary,
        IDENTITIES[number].secondary,
    )
    answer = association.acceptor.user_identity
    assert (answer and answer.server_response) == (ANSWERS[number] if response else None)


def test_a_user_identity_that_is_not_known_is_rejected(ours: Ours) -> None:
    ae = AE()
    ae.add_requested_context(VERIFICATION)
    item = UserIdentityNegotiation()
    item.user_identity_type, item.primary_field = 1, b"stranger"
    for _ in range(3):  # on a busy machine it hangs up by itself now and then
        association = ae.associate("127.0.0.1", ours.port, ext_neg=[item])
        assert not association.is_established
        if association.is_rejected:
            break
    assert association.is_rejected
    assert association.acceptor.primitive.result == 1


def test_its_window_is_answered_with_the_smaller(ours: Ours) -> None:
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked, item.maximum_number_operations_performed = 7, 2
    association, seen = called(ours, item)
    assert association.acceptor.asynchronous_operations == (4, 2)
    assert seen.window == Window(invoked=2, performed=4)


@pytest.mark.parametrize("role", ROLES)
def test_its_roles_are_answered_and_seen(ours: Ours, role: str) -> None:
    scu, scp = ROLES[role]
    association, seen = called(ours, build_role(CT, scu_role=scu, scp_role=scp))
    answer = association.acceptor.role_selection[CT]
    assert (bool(answer.scu_role), bool(answer.scp_role)) == (scu, scp)
    (theirs,) = [one for one in association.accepted_contexts if one.abstract_syntax == CT]
    assert (theirs.as_scu, theirs.as_scp) == (scu, scp)
    (context,) = [one for one in seen.agreement.contexts.values() if one.abstract_syntax == CT]
    assert (context.scp, context.scu) == (scu, scp)


def test_its_extended_negotiation_is_answered_and_seen(ours: Ours) -> None:
    offered = []
    for uid, information in ((CT, b"\1\2"), (MR, b"\3")):
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = uid, information
        offered.append(item)
    association, seen = called(ours, *offered)
    assert association.acceptor.sop_class_extended == {CT: b"\2\1"}
    assert seen.agreement.extended == {CT: b"\1\2", MR: b"\3"}


def test_its_common_extended_negotiation_is_seen(ours: Ours) -> None:
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = MR, STORAGE_SERVICE
    item.related_general_sop_class_identification = [CT]
    _, seen = called(ours, item)
    assert seen.agreement.common_extended == {MR: (STORAGE_SERVICE, (CT,))}


def test_each_knows_the_other_s_implementation_when_it_calls(ours: Ours) -> None:
    from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

    association, seen = called(ours)
    assert association.acceptor.implementation_version_name == "TWISTED_DIMSE"
    assert seen.agreement.implementation_class_uid == PYNETDICOM_IMPLEMENTATION_UID
    assert seen.agreement.implementation_version_name == PYNETDICOM_IMPLEMENTATION_VERSION


# --- we call pynetdicom


class Theirs:
    """A server of pynetdicom's that keeps what it is offered."""

    def __init__(self) -> None:
        self.port = peers.free_port()
        self.offered: dict[str, Any] = {}
        self.requestors: list[Any] = []
        ae = AE(ae_title="PYNETDICOM")
        ae.add_supported_context(VERIFICATION)
        for uid in (CT, MR):
            ae.add_supported_context(uid, scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_ASYNC_OPS, self._window),
            (evt.EVT_SOP_EXTENDED, self._extended),
            (evt.EVT_SOP_COMMON, self._common_extended),
            (evt.EVT_USER_ID, self._identity),
        ]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _echo(self, event: Any) -> int:
        self.requestors.append(event.assoc.requestor)
        return 0

    def _window(self, event: Any) -> tuple[int, int]:
        self.offered["window"] = (event.nr_invoked, event.nr_performed)
        return 1, 1

    def _extended(self, event: Any) -> dict[str, bytes]:
        self.offered["extended"] = dict(event.app_info)
        return {CT: b"\7"}

    def _common_extended(self, event: Any) -> dict[str, Any]:
        self.offered["common"] = event.items
        return dict(event.items)

    def _identity(self, event: Any) -> tuple[bool, bytes | None]:
        self.offered["identity"] = event.user_id_type, event.primary_field, event.secondary_field
        return event.primary_field != b"stranger", ANSWERS[event.user_id_type]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Theirs]:
    made = Theirs()
    yield made
    made.server.shutdown()


def calling(theirs: Theirs, loop: Loop, **options: Any) -> Any:
    """An association of ours with it, which has echoed and is released."""

    async def conversation() -> Any:
        association = await connect(
            f"PYNETDICOM@127.0.0.1:{theirs.port}",
            contexts=[VERIFICATION, CT, MR],
            reactor=loop.reactor,
            timeouts=SECONDS,
            **options,
        )
        async with association:
            await association.echo()
        return association

    return loop.run(conversation)


@pytest.mark.parametrize("response", [True, False], ids=["answered", "unanswered"])
@pytest.mark.parametrize("number", IDENTITIES)
def test_it_sees_our_user_identity(theirs: Theirs, loop: Loop, number: int, response: bool) -> None:
    ours = IDENTITIES[number]
    association = calling(theirs, loop, user_identity=replace(ours, response=response))
    assert theirs.offered["identity"] == (number, ours.primary, ours.secondary)
    # Of the first two types pynetdicom answers none.
    expected = ANSWERS[number] if response and number > 2 else None
    assert association.user_identity_response == expected


def test_it_rejects_a_user_identity_that_it_does_not_know(theirs: Theirs, loop: Loop) -> None:
    with pytest.raises(AssociationRejected):
        calling(theirs, loop, user_identity=UserIdentity.username("stranger"))


def test_it_is_offered_a_window_and_wants_none(theirs: Theirs, loop: Loop) -> None:
    association = calling(theirs, loop, window=(7, 2))
    assert theirs.offered["window"] == (7, 2)
    assert association.window == Window(invoked=1, performed=1)


@pytest.mark.parametrize("role", ROLES)
def test_it_takes_the_roles_that_we_propose(theirs: Theirs, loop: Loop, role: str) -> None:
    scu, scp = ROLES[role]
    association = calling(theirs, loop, roles={CT: role})
    (context,) = [one for one in association.accepted if one.abstract_syntax == CT]
    assert (context.scu, context.scp) == (scu, scp)
    offered = theirs.requestors[-1].role_selection[CT]
    assert (bool(offered.scu_role), bool(offered.scp_role)) == (scu, scp)


def test_it_answers_our_extended_negotiation(theirs: Theirs, loop: Loop) -> None:
    association = calling(theirs, loop, extended={CT: b"\1\2", MR: b"\3"})
    assert theirs.offered["extended"] == {CT: b"\1\2", MR: b"\3"}
    assert association.agreement.extended == {CT: b"\7"}


def test_it_sees_our_common_extended_negotiation(theirs: Theirs, loop: Loop) -> None:
    calling(theirs, loop, common_extended={MR: (STORAGE_SERVICE, [CT])})
    item = theirs.offered["common"][MR]
    assert item.service_class_uid == STORAGE_SERVICE
    assert item.related_general_sop_class_identification == [CT]


def test_each_knows_the_other_s_implementation_when_we_call(theirs: Theirs, loop: Loop) -> None:
    from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID

    association = calling(theirs, loop, implementation=("1.2.3", "OURS"))
    assert association.agreement.implementation_class_uid == PYNETDICOM_IMPLEMENTATION_UID
    requestor = theirs.requestors[-1]
    assert requestor.implementation_class_uid == "1.2.3"
    assert requestor.implementation_version_name == "OURS"
