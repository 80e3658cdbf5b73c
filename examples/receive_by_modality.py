"""Receive images and file them by modality, without ever holding one in memory.

    python examples/receive_by_modality.py [ENDPOINT [FOLDER]]

The octets of each data set go to a file as they arrive. Only when the last has come, and the sender
has not gone away meanwhile, does the file get its name: ``FOLDER/CT/1.2.3….dcm``.
"""

import os
import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_dimse import Handler, StatusError, listen
from twisted_dimse.datastream import part10_header


class ToFile:
    """Takes the data set of one C-STORE."""

    def __init__(self, folder, request):
        self.folder = folder
        self.name = f"{request.sop_instance_uid}.dcm"
        self.partial = folder / f"{self.name}.{id(self)}.part"
        self.file = self.partial.open("wb")
        self.file.write(
            part10_header(
                request.sop_class_uid, request.sop_instance_uid, request.context.transfer_syntax
            )
        )

    def write(self, data):
        self.file.write(data)

    def finish(self):
        self.file.close()
        head = dcmread(self.partial, specific_tags=["Modality"], stop_before_pixels=True)
        modality = "".join(c for c in head.get("Modality", "") if c.isalnum()) or "unknown"
        (self.folder / modality).mkdir(exist_ok=True)
        os.replace(self.partial, self.folder / modality / self.name)
        print(f"{modality} {self.name}")
        return 0

    def abandon(self):
        self.file.close()
        self.partial.unlink()


class ByModality(Handler):
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def store_sink(self, request):
        if not UID(request.sop_instance_uid).is_valid:  # it becomes the name of a file
            raise StatusError(0x0117, "the SOP Instance UID is not a UID")
        return ToFile(self.folder, request)


async def main(reactor, endpoint="tcp:11112:interface=127.0.0.1", folder="received"):
    await listen(endpoint, ByModality(Path(folder)), ae_title="BY-MODALITY", reactor=reactor)
    print(f"receiving on {endpoint} into {folder}/")
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
