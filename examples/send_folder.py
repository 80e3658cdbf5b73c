"""Send all images of a folder over one association, several at a time.

    python examples/send_folder.py [PEER [FOLDER]]

``dimse store`` does the same and more; this shows how: look at the heads of the files, propose what
is needed, and let the window keep the line busy.
"""

import sys
from pathlib import Path

from twisted.internet.defer import DeferredList
from twisted.internet.task import react

from twisted_dimse import connect
from twisted_dimse.datastream import FileSource, NotDicom


def images(folder):
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            try:
                yield FileSource.of(path)
            except NotDicom as error:
                print(f"skipped {error}")


async def main(reactor, peer="PACS@127.0.0.1:11112", folder="images"):
    sources = list(images(folder))
    contexts = {(source.sop_class_uid, source.transfer_syntax) for source in sources}
    async with await connect(
        peer,
        contexts=[(sop_class, [syntax]) for sop_class, syntax in sorted(contexts)],
        window=8,
        reactor=reactor,
    ) as association:
        outcomes = await DeferredList(
            [association.store(source) for source in sources], consumeErrors=True
        )
    for source, (stored, outcome) in zip(sources, outcomes, strict=True):
        print(f"{source.path}: {'stored' if stored else outcome.getErrorMessage()}")
    if not all(stored for stored, _ in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    react(main, sys.argv[1:])
