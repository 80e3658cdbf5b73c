"""The status page of ``--http``: ``/`` for people, ``/metrics``, ``/healthz`` and ``/readyz``.

It shows titles, addresses and counts, never patient data.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_dimse.scp.metrics import Metrics
from twisted_dimse.server import AssociationFactory

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


class _Page(Resource):
    isLeaf = True

    def __init__(self, content_type: str, render: Callable[[], tuple[int, str]]) -> None:
        super().__init__()
        self._content_type = content_type
        self._render = render

    def render_GET(self, request: Any) -> bytes:
        code, text = self._render()
        request.setResponseCode(code)
        request.setHeader("content-type", self._content_type)
        return text.encode()


class _QuietSite(Site):
    """Probes come every few seconds: they are not worth a log line each."""

    noisy = False

    def log(self, request: Any) -> None:
        pass


def status_site(factory: AssociationFactory, metrics: Metrics, ready: Callable[[], bool]) -> Site:
    """The web site of one server. ``ready`` tells whether it takes associations now."""

    def overview() -> tuple[int, str]:
        rows = [
            "<tr>"
            + "".join(
                f"<td>{html.escape(str(cell))}</td>"
                for cell in (
                    association.number,
                    association.calling_ae_title,
                    association.address,
                    association.called_ae_title,
                    association.messages,
                )
            )
            + "</tr>"
            for association in sorted(factory.associations, key=lambda one: one.number)[:200]
        ]
        page = _PAGE.format(
            title=html.escape(factory.ae_title),
            count=len(factory.associations),
            limit=factory.max_associations,
            rows="\n".join(rows),
        )
        return 200, page

    def readiness() -> tuple[int, str]:
        return (200, "ready\n") if ready() else (503, "not ready\n")

    root: Any = Resource()
    root.putChild(b"", _Page("text/html; charset=utf-8", overview))
    root.putChild(b"metrics", _Page("text/plain; version=0.0.4", lambda: (200, metrics.text())))
    root.putChild(b"healthz", _Page("text/plain", lambda: (200, "ok\n")))
    root.putChild(b"readyz", _Page("text/plain", readiness))
    return _QuietSite(root)
