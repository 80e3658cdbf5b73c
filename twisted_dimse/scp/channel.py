"""Questions and answers between the master and a worker: one JSON object a line, over two pipes.

{"ask": 7, "what": "status", "value": null}         either side asks
{"answer": 7, "value": {…}}                         or {"answer": 7, "error": "…"}

channel = Channel(write, {"status": snapshot})
channel.received(octets)
status = await channel.ask("status")
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure


class Channel:
    """One end. ``write`` takes octets; ``answers`` are called with the value of a question, and
    give a value that goes into JSON, or a Deferred of it."""

    def __init__(
        self, write: Callable[[bytes], object], answers: Mapping[str, Callable[[Any], Any]]
    ) -> None:
        self._write = write
        self._answers = answers
        self._numbers = itertools.count(1)
        self._asked: dict[int, Deferred[Any]] = {}
        self._partial = b""
        self._lost = False

    def ask(self, what: str, value: Any = None) -> Deferred[Any]:
        """Fires with the answer; fails with `ConnectionError` where there is none."""
        if self._lost:
            return fail(ConnectionResetError("the other process has ended"))
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._asked[number] = answer
        self._send({"ask": number, "what": what, "value": value})
        return answer

    def received(self, octets: bytes) -> None:
        """Take what came."""
        *lines, self._partial = (self._partial + octets).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def lost(self) -> None:
        """The other side is gone."""
        self._lost = True
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(ConnectionResetError("the other process has ended"))

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)

    def _take(self, words: dict[str, Any]) -> None:
        if "ask" in words:
            number = words["ask"]
            answered = maybeDeferred(self._answers[words["what"]], words["value"])
            answered.addCallback(lambda value: self._send({"answer": number, "value": value}))
            answered.addErrback(lambda failure: self._send_error(number, failure))
            return
        answer = self._asked.pop(words["answer"], None)
        if answer is None:
            return  # which nobody waits for any more
        if "error" in words:
            answer.errback(ConnectionError(words["error"]))
        else:
            answer.callback(words["value"])

    def _send_error(self, number: int, failure: Failure) -> None:
        self._send({"answer": number, "error": failure.getErrorMessage()})

    def _send(self, words: dict[str, Any]) -> None:
        if not self._lost:
            self._write(json.dumps(words).encode() + b"\n")
