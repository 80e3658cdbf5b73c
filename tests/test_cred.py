"""User identities and Twisted Cred: who is known is admitted, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_dimse import VERIFICATION, Handler, UserIdentity
from twisted_dimse.cred import cred_authenticator
from twisted_dimse.server import AssociationFactory
from twisted_dimse.upperlayer import negotiation, pdu
from twisted_dimse.upperlayer.framing import Framer


def answer_to(identity: UserIdentity | None) -> Any:
    """What an acceptor that knows one user says to a requestor with ``identity``."""
    checker: Any = InMemoryUsernamePasswordDatabaseDontUse(gantry=b"open sesame")
    factory = AssociationFactory(
        Handler(), authenticate=cred_authenticator(checker), reactor=Clock()
    )
    protocol: Any = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    contexts = (negotiation.PresentationContext(VERIFICATION),)
    proposal = negotiation.Proposal("SCP", "SCU", contexts, user_identity=identity)
    protocol.dataReceived(negotiation.propose(proposal).encode())
    [answer] = Framer().receive(transport.value())
    return answer


def test_a_known_user_is_admitted_and_answered_without_a_word() -> None:
    answer = answer_to(UserIdentity.password("gantry", "open sesame", response=True))
    assert isinstance(answer, pdu.AssociateAC)
    assert answer.item(pdu.UserIdentityResponse) == pdu.UserIdentityResponse(b"")


@pytest.mark.parametrize(
    "identity",
    [
        None,
        UserIdentity.username("gantry"),
        UserIdentity.password("gantry", "wrong"),
        UserIdentity.password("stranger", "open sesame"),
        UserIdentity.jwt("a.b.c"),
    ],
    ids=["nobody", "no passcode", "wrong passcode", "unknown", "another type"],
)
def test_everybody_else_is_rejected(identity: UserIdentity | None) -> None:
    assert answer_to(identity) == pdu.AssociateRJ(1, 2, 1)
