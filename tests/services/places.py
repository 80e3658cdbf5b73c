"""Addresses in a `memory.World`: somebody may listen there, for a while, and others connect.

place = Place(world)
port = world.result(listen(place, handler, reactor=world.clock))
await connect(Peer("PACS", place), ...)
"""

from __future__ import annotations

from typing import Any

from memory import Address, World
from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from zope.interface import implementer

from twisted_dimse import AssociationFactory, Handler, Peer


@implementer(IStreamClientEndpoint, IStreamServerEndpoint)
class Place:
    """One address. `connections` counts those that were made to it."""

    def __init__(self, world: World, title: str = "SERVER") -> None:
        self.connections = 0
        self.factory: Any = None
        self.peer = Peer(title, self)
        self._world = world

    def listen(self, factory: Any) -> Deferred[Any]:
        assert self.factory is None, "two listen at one address"
        self.factory = factory
        self._world.factories.append(factory)
        return succeed(self)

    def stopListening(self) -> None:
        self.factory = None

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.factory is None:
            return fail(error.ConnectionRefusedError())
        self.connections += 1
        requestor = factory.buildProtocol(Address())
        self._world.join(requestor, self.factory.buildProtocol(Address()))
        return succeed(requestor)


def serving(world: World, handler: Handler, title: str = "SERVER", **options: Any) -> Place:
    """A place at which a handler serves."""
    place = Place(world, title)
    place.listen(AssociationFactory(handler, ae_title=title, reactor=world.clock, **options))
    return place
