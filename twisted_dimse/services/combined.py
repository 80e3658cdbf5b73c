"""Several service classes at one address.

    port = await listen(
        "tcp:11112", CombinedHandler(FilingHandler(files), WorklistHandler(items), receiver)
    )

Each request goes to the first of the handlers that accepts the abstract syntax it came by.
"""

from __future__ import annotations

import inspect
from typing import Any

from pydicom import Dataset
from twisted.internet.defer import Deferred

from twisted_dimse.datastream import Sink
from twisted_dimse.handler import AssociationRequest, Handler, Request


class CombinedHandler(Handler):
    """Accepts what any of ``handlers`` does, and has the first of those serve it.

    All of them are asked to `associate` and told of the end; the first that knows a C-MOVE
    destination resolves it.
    """

    def __init__(self, *handlers: Handler) -> None:
        if not handlers:
            raise ValueError("nothing to combine")
        self._handlers = handlers
        self._by_syntax: dict[str, Handler] = {}
        self._contexts: dict[str, tuple[str, ...]] = {}
        self.roles = {}
        self.extended = {}
        for handler in handlers:
            self._add(handler)
        self.prefer = next((handler.prefer for handler in handlers if handler.prefer), ())
        any_kind = [handler for handler in handlers if handler.storage_of_any_kind]
        self._of_any_kind = any_kind[0] if any_kind else handlers[0]
        self.storage_of_any_kind = bool(any_kind)  # type: ignore[misc]

    def _add(self, handler: Handler) -> None:
        for uid, syntaxes in handler.accepted_contexts().items():
            if uid not in self._by_syntax:
                self._by_syntax[uid] = handler
                self._contexts[uid] = syntaxes
        self.roles = {**handler.roles, **self.roles}
        self.extended = {**handler.extended, **self.extended}

    def accepted_contexts(self) -> dict[str, tuple[str, ...]]:
        return dict(self._contexts)

    def _serving(self, request: Request) -> Handler:
        return self._by_syntax.get(request.context.abstract_syntax, self._of_any_kind)

    async def associate(self, request: AssociationRequest) -> None:
        for handler in self._handlers:
            answer = handler.associate(request)
            if isinstance(answer, Deferred) or inspect.isawaitable(answer):
                await answer

    def resolve(self, ae_title: str) -> Any:
        for handler in self._handlers:
            found = handler.resolve(ae_title)
            if found is not None:
                return found
        return None

    def released(self, request: AssociationRequest) -> None:
        for handler in self._handlers:
            handler.released(request)

    def aborted(self, request: AssociationRequest) -> None:
        for handler in self._handlers:
            handler.aborted(request)

    def echo(self, request: Request) -> Any:
        return self._serving(request).echo(request)

    def store_sink(self, request: Request) -> Sink:
        return self._serving(request).store_sink(request)

    def store(self, request: Request, dataset: Dataset | None) -> Any:
        return self._serving(request).store(request, dataset)

    def find(self, request: Request) -> Any:
        return self._serving(request).find(request)

    def move(self, request: Request) -> Any:
        return self._serving(request).move(request)

    def get(self, request: Request) -> Any:
        return self._serving(request).get(request)

    def n_event_report(self, request: Request) -> Any:
        return self._serving(request).n_event_report(request)

    def n_get(self, request: Request) -> Any:
        return self._serving(request).n_get(request)

    def n_set(self, request: Request) -> Any:
        return self._serving(request).n_set(request)

    def n_action(self, request: Request) -> Any:
        return self._serving(request).n_action(request)

    def n_create(self, request: Request) -> Any:
        return self._serving(request).n_create(request)

    def n_delete(self, request: Request) -> Any:
        return self._serving(request).n_delete(request)
