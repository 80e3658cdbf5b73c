"""What calls that do it all have in common: they give a Deferred, and have an association of
their own.

    @deferred
    async def worklist(peer: str, **options: Any) -> list[Dataset]:
        async with associated(peer, contexts=[MODALITY_WORKLIST_FIND], **options) as association:
            return await association.find(...)
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.errors import DimseError, StatusError
from twisted_dimse.handler import Handler
from twisted_dimse.server import AssociationFactory

P = ParamSpec("P")
T = TypeVar("T")

_LINGER = 10.0  # seconds that a receiver waits for its peers to release


def deferred(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Have a coroutine function begin at once and return a Deferred of its result, so that
    callbacks and `inlineCallbacks` can take it too. Cancelling that cancels what it waits for."""

    @functools.wraps(function)
    def begin(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return begin


@asynccontextmanager
async def associated(peer: Any, **options: Any) -> AsyncIterator[Association]:
    """An association for the time of a block. A status that the peer answered is no reason to
    abort it; any other failure is. A ``peer`` that is an `Association` already stays as it is."""
    if isinstance(peer, Association):
        yield peer
        return
    association: Association = await connect(peer, **options)
    try:
        yield association
    except StatusError:
        await _release(association)
        raise
    except BaseException:
        association.abort()
        raise
    await _release(association)


async def _release(association: Association) -> None:
    """Release an association that has done its work; if it is over already, so be it."""
    if not association.closed.called:
        with suppress(DimseError):
            await association.release()


def the_reactor(reactor: Any) -> Any:
    """The reactor that was given, or else the one there is."""
    if reactor is None:
        from twisted.internet import reactor
    return reactor


class Receiver:
    """A server for the time of one call."""

    def __init__(self, port: Any, factory: AssociationFactory, reactor: Any) -> None:
        self._port = port
        self._factory = factory
        self._reactor = reactor

    @classmethod
    async def listen(
        cls,
        where: Any,
        handler: Handler | Callable[[], Handler],
        title: str,
        reactor: Any,
        **options: Any,
    ) -> Receiver:
        """Listen at ``where``, a server endpoint or its string; ``options`` are those of
        `AssociationFactory`. Raises `CannotListenError`."""
        factory = AssociationFactory(handler, ae_title=title, reactor=reactor, **options)
        endpoint = serverFromString(reactor, where) if isinstance(where, str) else where
        return cls(await endpoint.listen(factory), factory, reactor)

    async def end(self) -> None:
        """Listen no more, and let peers release what is open; not for ever."""
        stopped = self._port.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        late = self._reactor.callLater(_LINGER, self._factory.abort_all)
        try:
            await self._factory.drained()
        finally:
            if late.active():
                late.cancel()
