"""Makes ``--reactor uvloop`` known to Twisted."""

from twisted.application.reactors import Reactor

uvloop = Reactor(
    "uvloop", "twisted_dimse.uvloop_reactor", "The asyncio reactor on uvloop, the fastest here."
)
