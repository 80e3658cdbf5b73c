"""`twistd dimse-scp` keeps what real senders send, octet for octet.

Every file of pydicom and pydicom-data goes to one server in batches without two files of the same
instance, through a relay that records what is on the wire; the folder is emptied in between.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import corpus
import peers
import pydicom
import pytest
import raw
from corpus import Image

pytestmark = pytest.mark.interop

_NO_UIDS = "no SOP Class and SOP Instance UID in the data set"
_UIDS_AS_UN = "the UIDs stand in elements of VR UN, where DCMTK does not look"
_NO_META = "pynetdicom wants a transfer syntax from the file meta information"

#: What a peer's library does not send of what `dimse store` does, and why.
NOT_SENT: dict[str, dict[str, str]] = {
    "dimse": {},
    "DCMTK": {
        "charset_files/chrSQEncoding.dcm": _NO_UIDS,
        "charset_files/chrSQEncoding1.dcm": _NO_UIDS,
        "test_files/UN_sequence.dcm": _NO_UIDS,
        "test_files/no_meta_group_length.dcm": _NO_UIDS,
        "test_files/priv_SQ.dcm": _NO_UIDS,
        "test_files/rtdose_rle.dcm": _UIDS_AS_UN,
        "test_files/rtdose_rle_1frame.dcm": _UIDS_AS_UN,
        "explicit_VR-UN.dcm": _UIDS_AS_UN,
        "test_files/MR_truncated.dcm": "cut off in the pixels",
        "test_files/rtplan_truncated.dcm": "cut off in an element",
        "emri_small_jpeg_2k_lossless_too_short.dcm": "cut off in the pixels",
        "test_files/SC_rgb_jpeg.dcm": "not in the transfer syntax that it says",
    },
    "pynetdicom": {
        "charset_files/chrSQEncoding.dcm": _NO_UIDS,
        "charset_files/chrSQEncoding1.dcm": _NO_UIDS,
        "test_files/UN_sequence.dcm": _NO_UIDS,
        "test_files/no_meta_group_length.dcm": _NO_UIDS,
        "test_files/priv_SQ.dcm": _NO_UIDS,
        "test_files/ExplVR_BigEndNoMeta.dcm": _NO_META,
        "test_files/ExplVR_LitEndNoMeta.dcm": _NO_META,
        "test_files/rtstruct.dcm": _NO_META,
        "OT-PAL-8-face.dcm": _NO_META,
        "emri_small_jpeg_2k_lossless_too_short.dcm": "cut off in the pixels",
        "test_files/SC_rgb_jpeg.dcm": "not in the transfer syntax that it says",
    },
}
#: What a peer's library calls by something that is no UID: answered 0117H and not kept.
REFUSED: dict[str, set[str]] = {
    "dimse": set(),  # which calls it by the UID of its file meta information
    "DCMTK": {"bad_sequence.dcm"},
    "pynetdicom": {"bad_sequence.dcm"},
}


@dataclass
class Delivery:
    """What became of one file: the message on the wire, and the file that is kept of it."""

    message: raw.Message
    place: str | None
    kept: bytes | None


def by_dimse(port: int, batch: list[Image], _folder: Path) -> None:
    done = peers.dimse("store", f"ANY-SCP@127.0.0.1:{port}", *(image.path for image in batch))
    assert done.out.startswith(f"{len(batch)} sent;"), done.said
    done.succeeded()


def by_storescu(port: int, batch: list[Image], folder: Path) -> None:
    profile = folder / "profile.cfg"
    profile.write_text(dcmtk_profile(batch))
    words = ["-nh", "-pdu", 131072, "-xf", profile, "Default", "127.0.0.1", port]
    peers.run(peers.dcmtk("storescu"), *words, *(image.path for image in batch))


def dcmtk_profile(batch: list[Image]) -> str:
    """An association profile with a context for each SOP class and transfer syntax."""
    pairs = sorted({(image.sop_class, image.syntax) for image in batch})
    syntaxes = sorted({syntax for _, syntax in pairs})
    lines = ["[[TransferSyntaxes]]"]
    for number, syntax in enumerate(syntaxes):
        lines += [f"[Syntax{number}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[Contexts]"]
    lines += [
        f"PresentationContext{number} = {sop_class}\\Syntax{syntaxes.index(syntax)}"
        for number, (sop_class, syntax) in enumerate(pairs, 1)
    ]
    lines += ["[[Profiles]]", "[Default]", "PresentationContexts = Contexts"]
    return "\n".join(lines) + "\n"


def by_pynetdicom(port: int, batch: list[Image], _folder: Path) -> None:
    from pynetdicom import AE

    entity = AE(ae_title="PYNETDICOM")
    for sop_class, syntax in sorted({(image.sop_class, image.syntax) for image in batch}):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, image in enumerate(batch, 1):
            with suppress(AttributeError, NameError, ValueError):  # see NOT_SENT
                dataset = pydicom.dcmread(image.path, force=True)
                # Now and then pynetdicom ends an association by itself: it gets another.
                for _ in range(3):
                    if not association.is_established:
                        association = entity.associate("127.0.0.1", port)
                    if "Status" in association.send_c_store(dataset, number):
                        break
    association.release()


def by_pynetdicom_app(port: int, batch: list[Image], _folder: Path) -> None:
    words = ["127.0.0.1", port, *(image.path for image in batch), "-cx"]
    peers.run(peers.pynetdicom("storescu"), *words)


def one_of_each_kind() -> list[list[Image]]:
    """The first file of each SOP class and transfer syntax. pynetdicom's storescu proposes all
    syntaxes of a SOP class in one context, so a batch has one syntax for each."""
    kinds: dict[tuple[str, str], Image] = {}
    for image in corpus.images():
        kinds.setdefault((image.sop_class, image.syntax), image)
    rounds: list[list[Image]] = []
    for image in kinds.values():
        number = sum(image.sop_class == other.sop_class for one in rounds for other in one)
        rounds += [[]] if number == len(rounds) else []
        rounds[number].append(image)
    return [batch for one in rounds for batch in corpus.batches(one)]


def everything() -> list[list[Image]]:
    return corpus.batches(corpus.images())


Send = Callable[[int, list[Image], Path], None]


@dataclass
class Sender:
    """A program that sends, the library that it is made of, and what it is given to send."""

    library: str
    send: Send
    batches: Callable[[], list[list[Image]]] = everything

    def among(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that it is given."""
        return {image.name for batch in self.batches() for image in batch} & set(names)


SENDERS = {
    "dimse-store": Sender("dimse", by_dimse),
    "storescu-of-DCMTK": Sender("DCMTK", by_storescu),
    "pynetdicom": Sender("pynetdicom", by_pynetdicom),
    "storescu-of-pynetdicom": Sender("pynetdicom", by_pynetdicom_app, one_of_each_kind),
}
Deliveries = dict[Image, Delivery | None]
Deliver = Callable[[str], Deliveries]


def serving() -> AbstractContextManager[peers.Server]:
    return peers.serving("--store-only", "--durability", "commit")


@pytest.fixture(scope="module")
def server() -> Iterator[peers.Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def deliver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deliver]:
    """What became of every file that a sender was given; None where it sent nothing.

    Two senders at once, each with a server of its own.
    """
    with ThreadPoolExecutor(2) as pool:
        running = {
            name: pool.submit(delivered_by, sender, tmp_path_factory.mktemp(name))
            for name, sender in SENDERS.items()
        }
        yield lambda name: running[name].result()


def delivered_by(sender: Sender, folder: Path) -> Deliveries:
    deliveries: Deliveries = {}
    with serving() as server:
        recorder = raw.Recorder(server.port)
        for batch in sender.batches():
            deliveries.update(delivered(server, recorder, sender.send, batch, folder))
        recorder.close()
    return deliveries


def delivered(
    server: peers.Server, recorder: raw.Recorder, send: Send, batch: list[Image], folder: Path
) -> Deliveries:
    assert not server.stored
    send(recorder.port, batch, folder)
    messages = {
        message.instance: message for octets in recorder.take() for message in raw.messages(octets)
    }
    kept = {path.stem: path for path in server.stored}
    found: Deliveries = {}
    for image in batch:
        name = image.uid if image.uid in messages else image.data_uid
        message, path = messages.pop(name, None), kept.pop(name, None)
        found[image] = message and Delivery(
            message,
            path and str(path.relative_to(server.directory)),
            path and corpus.data_set_of(path),
        )
    assert not messages, "sent, and nobody knows what it is"
    assert not kept, "kept, and nobody knows what it is"
    assert not server.partial
    server.empty()
    return found


@pytest.mark.parametrize("program", ["dcmtk", "pynetdicom", "dimse"])
def test_an_echo_is_answered(server: peers.Server, program: str) -> None:
    if program == "dimse":
        peers.dimse("echo", server.peer).succeeded()
    else:
        command = (peers.dcmtk if program == "dcmtk" else peers.pynetdicom)("echoscu")
        done = peers.run(command, "-v", "127.0.0.1", server.port).succeeded()
        assert "Success" in done.out + done.err, done.said


@pytest.mark.parametrize("syntax", corpus.syntaxes(), ids=corpus.syntax_name)
@pytest.mark.parametrize("sender", SENDERS)
def test_what_is_kept_is_what_was_on_the_wire(deliver: Deliver, sender: str, syntax: str) -> None:
    wrong, seen = [], 0
    for image, delivery in deliver(sender).items():
        if image.syntax != syntax or delivery is None or delivery.kept is None:
            continue
        seen += 1
        if delivery.kept != delivery.message.data:
            wrong.append(f"{image.name}: other octets")
        if delivery.place != image.place(delivery.message.instance):
            wrong.append(f"{image.name}: kept as {delivery.place}")
    assert seen
    assert not wrong


@pytest.mark.parametrize("syntax", corpus.syntaxes(), ids=corpus.syntax_name)
def test_dimse_store_sends_what_the_file_holds(deliver: Deliver, syntax: str) -> None:
    sent = [(i, d) for i, d in deliver("dimse-store").items() if i.syntax == syntax]
    assert sent
    assert [i.name for i, d in sent if d is None or d.message.data != i.data] == []


@pytest.mark.parametrize("sender", SENDERS)
def test_a_sender_sends_everything_but_what_is_named(deliver: Deliver, sender: str) -> None:
    unsent = {image.name for image, delivery in deliver(sender).items() if delivery is None}
    assert unsent == SENDERS[sender].among(NOT_SENT[SENDERS[sender].library])


@pytest.mark.parametrize("sender", SENDERS)
def test_everything_is_kept_but_what_has_no_uid(deliver: Deliver, sender: str) -> None:
    lost = {image.name for image, d in deliver(sender).items() if d is not None and d.kept is None}
    assert lost == SENDERS[sender].among(REFUSED[SENDERS[sender].library])


def test_only_data_sets_of_odd_length_get_a_pad(
    deliver: Deliver,
) -> None:
    padded = {
        image.name
        for image, delivery in deliver("dimse-store").items()
        if delivery and len(delivery.kept or b"") != image.path.stat().st_size - image.offset
    }
    assert padded == corpus.ODD_LENGTH


def test_a_folder_is_sent_whole_and_what_cannot_be_sent_is_skipped(server: peers.Server) -> None:
    done = peers.dimse("store", server.peer, *corpus.roots(), "-v").succeeded()
    skipped = [line for line in done.err.splitlines() if line.startswith("dimse: skipped ")]
    python = [line for line in skipped if corpus.is_python(line.split(": ")[1].split()[-1])]
    named = sorted(line for line in skipped if line not in python)
    assert len(named) == len(corpus.NOT_TO_BE_SENT), named
    for name in corpus.NOT_TO_BE_SENT:
        assert any(f"/{name}: " in line for line in named), name
    assert f"{len(corpus.images())} sent, {len(skipped)} skipped" in done.out
    server.empty()
