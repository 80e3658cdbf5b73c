"""A DICOM receiver and a web page in one process: the page lists what has come since the start.

    python examples/node_with_web_page.py

Send something to port 11112 of this machine, and look at http://127.0.0.1:8080/.
"""

from collections import Counter
from html import escape

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_dimse import Handler, listen

PAGE = """<!doctype html>
<title>Received</title>
<table>
<tr><th>from<th>modality<th>images
{rows}
</table>
"""
ROW = "<tr><td>{sender}<td>{modality}<td>{count}"


class Tally(Handler):
    """Counts images by sender and modality, and keeps none."""

    def __init__(self):
        self.images = Counter()

    def store(self, request, dataset):
        self.images[request.association.calling_ae_title, dataset.get("Modality", "?")] += 1


class Page(Resource):
    isLeaf = True

    def __init__(self, tally):
        super().__init__()
        self.tally = tally

    def render_GET(self, request):
        rows = "\n".join(
            ROW.format(sender=escape(sender), modality=escape(modality), count=count)
            for (sender, modality), count in sorted(self.tally.images.items())
        )
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return PAGE.format(rows=rows).encode()


async def main(reactor):
    tally = Tally()
    await serverFromString(reactor, "tcp:8080:interface=127.0.0.1").listen(Site(Page(tally)))
    await listen("tcp:11112:interface=127.0.0.1", tally, ae_title="TALLY", reactor=reactor)
    await Deferred()


if __name__ == "__main__":
    react(main)
