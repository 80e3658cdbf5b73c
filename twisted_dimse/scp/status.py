"""The status page of ``--http``: ``/`` for people, ``/metrics``, ``/healthz`` and ``/readyz``.

It shows titles, addresses and counts, never patient data.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from twisted_dimse.scp.metrics import Counts, Metrics
from twisted_dimse.server import AssociationFactory

_MOST_ROWS = 200

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px sans-serif;margin:2em;color-scheme:light dark}}
td,th{{text-align:left;padding:.2em 1em .2em 0}}</style></head>
<body><h1>{title}</h1>
<p>{count} of at most {limit} associations are open.</p>
<table><tr><th>number</th><th>from</th><th>at</th><th>to</th><th>messages</th></tr>
{rows}</table>
<p><a href="metrics">metrics</a></p></body></html>
"""


#: Number, calling title, address, called title and messages of one association.
AssociationRow = tuple[int, str, str, str, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node does now: its counts, and its associations, by number."""

    counts: Counts
    associations: list[AssociationRow]

    @classmethod
    def of(cls, factory: AssociationFactory, metrics: Metrics) -> Snapshot:
        rows = (
            (
                association.number,
                association.calling_ae_title,
                association.address,
                association.called_ae_title,
                association.messages,
            )
            for association in factory.open
        )
        return cls(metrics.counts(), first_rows(rows))


def first_rows(rows: Iterable[AssociationRow]) -> list[AssociationRow]:
    """As many as a page shows, by number."""
    return sorted(rows)[:_MOST_ROWS]


class _Page(Resource):
    isLeaf = True

    def __init__(self, content_type: str, render: Callable[[], Any]) -> None:
        super().__init__()
        self._content_type = content_type
        self._render = render

    def render_GET(self, request: Any) -> int:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        rendered = maybeDeferred(self._render)
        rendered.addErrback(lambda failure: (503, f"{failure.getErrorMessage()}\n"))
        rendered.addCallback(self._send, request, gone)
        return NOT_DONE_YET

    def _send(self, rendered: tuple[int, str], request: Any, gone: list[object]) -> None:
        if gone:
            return
        code, text = rendered
        request.setResponseCode(code)
        request.setHeader("content-type", self._content_type)
        body = text.encode()
        request.setHeader("content-length", str(len(body)))
        request.write(body)
        request.finish()


class _QuietSite(Site):
    """Probes come every few seconds: they are not worth a log line each."""

    noisy = False

    def log(self, request: Any) -> None:
        pass


def status_site(
    ae_title: str,
    limit: int,
    look: Callable[[], Any],
    ready: Callable[[], bool],
) -> Site:
    """The web site of one server, of at most ``limit`` associations. ``look`` gives a
    `Snapshot`, or a Deferred of one; ``ready`` tells whether it takes associations now."""

    def overview(now: Snapshot) -> tuple[int, str]:
        rows = [
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in now.associations
        ]
        page = _PAGE.format(
            title=html.escape(ae_title),
            count=now.counts.active,
            limit=limit,
            rows="\n".join(rows),
        )
        return 200, page

    def page() -> Deferred[tuple[int, str]]:
        return maybeDeferred(look).addCallback(overview)

    def metrics() -> Deferred[tuple[int, str]]:
        return maybeDeferred(look).addCallback(lambda now: (200, now.counts.text(limit)))

    def readiness() -> tuple[int, str]:
        return (200, "ready\n") if ready() else (503, "not ready\n")

    root: Any = Resource()
    root.putChild(b"", _Page("text/html; charset=utf-8", page))
    root.putChild(b"metrics", _Page("text/plain; version=0.0.4", metrics))
    root.putChild(b"healthz", _Page("text/plain", lambda: (200, "ok\n")))
    root.putChild(b"readyz", _Page("text/plain", readiness))
    return _QuietSite(root)
