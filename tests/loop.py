"""A reactor of its own in a thread, so that a test may talk to real programs in between.

It is not the global one, which other tests may want: everything here takes the reactor it is given.

    with Loop() as loop:
        port = loop.listen(MyHandler())
        association = loop.run(connect, f"ANY@127.0.0.1:{port}", reactor=loop.reactor)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from twisted_dimse import AssociationFactory, Handler, listen

SECONDS = 90.0


class Keeping(Handler):
    """Takes what it is sent and keeps the SOP Instance UIDs."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def store(self, request: Any, dataset: Any) -> int:
        self.kept.append(request.sop_instance_uid)
        return 0


class Loop:
    """`factories` are those of what listens; their associations are aborted in the end."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        self.factories: list[AssociationFactory] = []
        self._thread = threading.Thread(
            target=self.reactor.run, kwargs={"installSignalHandlers": False}, daemon=True
        )

    def __enter__(self) -> Self:
        started = threading.Event()
        self.reactor.callWhenRunning(started.set)
        self._thread.start()
        assert started.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function in the reactor's thread; the result of its Deferred or coroutine."""
        results: list[Any] = []
        begun: list[Deferred[Any]] = []
        ready = threading.Event()

        def done(result: Any) -> None:
            results.append(result)
            ready.set()

        def begin() -> None:
            begun.append(maybeDeferred(function, *args, **options).addBoth(done))

        self.reactor.callFromThread(begin)
        if not ready.wait(SECONDS):
            self.reactor.callFromThread(lambda: begun[0].cancel())
            ready.wait(5)
            raise AssertionError(f"no result in {SECONDS:g} s: {results}")
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def listen(self, handler: Handler | Callable[[], Handler], **options: Any) -> int:
        """Serve a handler on a free port of loopback."""
        port = self.run(
            listen, "tcp:0:interface=127.0.0.1", handler, reactor=self.reactor, **options
        )
        return int(port.getHost().port)
