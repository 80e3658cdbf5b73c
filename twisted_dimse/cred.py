"""User identities (PS3.7 D.3.3.7) checked by Twisted Cred.

checker = FilePasswordDB("users")
listen("tcp:11112", handler, authenticate=cred_authenticator(checker))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed

from twisted_dimse.handler import AssociationRequest
from twisted_dimse.upperlayer.pdu import UserIdentity

USERNAME, USERNAME_AND_PASSCODE = 1, 2


def cred_authenticator(
    checker: Any,
) -> Callable[[UserIdentity | None, AssociationRequest], Awaitable[bool]]:
    """An ``authenticate`` option that asks an `ICredentialsChecker` for user name and passcode.

    A requestor without an identity, of another type than these, or whom the checker does not know
    is rejected (permanent, service-provider, no reason given).
    """

    async def authenticate(identity: UserIdentity | None, request: AssociationRequest) -> bool:
        if identity is None or identity.type not in (USERNAME, USERNAME_AND_PASSCODE):
            return False
        credentials: Any = UsernamePassword(identity.primary, identity.secondary)
        try:
            await checker.requestAvatarId(credentials)
        except LoginFailed:
            return False
        return True

    return authenticate
