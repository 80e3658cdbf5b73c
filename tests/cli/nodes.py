"""Two nodes, one with a printer and one that commits itself to keep things, run as a program which
says their ports.
"""

from __future__ import annotations

from typing import Any

from pydicom import Dataset
from twisted.internet import reactor

from twisted_dimse import Handler, StatusError, listen
from twisted_dimse.services.commitment import CommitmentHandler

PRINTER, PRINTER_INSTANCE = "1.2.840.10008.5.1.1.16", "1.2.840.10008.5.1.1.17"
FILM_SESSION, GRAYSCALE = "1.2.840.10008.5.1.1.1", "1.2.840.10008.5.1.1.9"
COMMITMENT = "1.2.840.10008.1.20.1"


class Node(Handler):
    contexts = (PRINTER, GRAYSCALE, COMMITMENT)
    roles = {COMMITMENT: "both"}  # noqa: RUF012

    def __init__(self) -> None:
        self.values = Dataset()
        self.values.PrinterStatus, self.values.PrinterName = "NORMAL", "Größe"
        self.values.SpecificCharacterSet = "ISO_IR 192"

    def n_get(self, request: Any) -> Dataset:
        if request.sop_instance_uid != PRINTER_INSTANCE:
            raise StatusError(0x0112, "no such printer")
        answer = Dataset()
        for element in self.values:
            if not request.attributes or element.tag in (*request.attributes, 0x00080005):
                answer.add(element)
        return answer

    def n_set(self, request: Any) -> Dataset:
        self.values.update(request.dataset)
        return self.values

    def n_create(self, request: Any) -> Dataset:
        answer = Dataset()
        answer.update(request.dataset or {})
        answer.SOPInstanceUID = request.sop_instance_uid or "1.2.3.4"
        return answer

    def n_action(self, request: Any) -> Dataset:
        answer = Dataset()
        answer.ErrorComment = f"action {request.action_type}"
        return answer

    def n_event_report(self, request: Any) -> int:
        return 0 if request.event_type == 2 else 0x0113

    def n_delete(self, _request: Any) -> int:
        return 0


class Keeper(CommitmentHandler):
    """Keeps what its UIDs do not say is lost: that is, all but those that end with ``.2``."""

    def commit(self, _request: Any, references: Any) -> dict[str, int | None]:
        uids = [reference.sop_instance_uid for reference in references]
        return {uid: 0x0112 if uid.endswith(".2") else None for uid in uids}


def tell(port: Any, name: str) -> None:
    print(name, port.getHost().port, flush=True)


if __name__ == "__main__":
    listen("tcp:0:interface=127.0.0.1", Node()).addCallback(tell, "NODE")
    listen("tcp:0:interface=127.0.0.1", Keeper()).addCallback(tell, "KEEPER")
    reactor.run()  # type: ignore[attr-defined]
