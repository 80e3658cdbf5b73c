"""What was acknowledged survives a power cut: at each acknowledgement, all that was not synced is
dropped, and an archive is started on what is left. Without any one of the syncs it does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from archives import archive_in, asking, found, image, retrieved, stored, threads_of
from disks import Disk, Killed, Tree, write_out
from memory import CT, World, fired

from twisted_dimse.archive import journal
from twisted_dimse.archive.commitment import ArchiveCommitment
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.handler import Archive
from twisted_dimse.archive.maintenance import import_files
from twisted_dimse.datastream import part10_header
from twisted_dimse.dimse.status import NO_SUCH_SOP_INSTANCE
from twisted_dimse.services.commitment import Reference

#: Study, series, instance and size; of one UID the later has another size.
Sent = tuple[str, str, str, int]
SENDERS: list[list[Sent]] = [
    [("1.2.1", "1.2.1.1", f"1.2.1.1.{number}", 300) for number in range(1, 7)],
    [("1.2.1", f"1.2.1.{2 + number % 2}", f"1.2.1.2.{number}", 700) for number in range(1, 7)],
    [("1.2.2", "1.2.2.1", f"1.2.2.1.{number % 3}", 300 + 2 * number) for number in range(6)],
]


def source_of(sent: Sent) -> Any:
    study, series, uid, size = sent
    return image(uid, size, study=study, series=series)


def versions() -> dict[str, list[bytes]]:
    """What is sent of each instance, in order."""
    found: dict[str, list[bytes]] = {}
    for sent in (one for sender in SENDERS for one in sender):
        found.setdefault(sent[2], []).append(source_of(sent).data)
    return found


VERSIONS = versions()


class Cut(NamedTuple):
    """What a power cut leaves at the moment of an acknowledgement: the disk, the index as of its
    last commit, and of each instance that was acknowledged which of its `VERSIONS`."""

    disk: Tree
    index: bytes
    acknowledged: dict[str, int]


def version(octets: bytes, uid: str) -> int:
    """Which version of an instance a file or a data set ends with; ValueError for none."""
    return [octets.endswith(data) for data in VERSIONS[uid]].index(True)


def note_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
    acknowledged: dict[str, int],
    also: Callable[[], None] = lambda: None,
) -> None:
    """Have the version of each instance noted when it is about to be acknowledged."""
    real = Archive.stored

    def stored(archive: Archive, path: str) -> None:
        real(archive, path)
        file = Path(path)
        acknowledged[file.stem] = version(file.read_bytes(), file.stem)
        also()

    monkeypatch.setattr(Archive, "stored", stored)


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Disk, int], list[Cut]]:
    """A run of all `SENDERS`, in an order that a seed gives: a `Cut` at each acknowledgement."""

    def run(disk: Disk, seed: int) -> list[Cut]:
        chance = random.Random(seed)
        acknowledged: dict[str, int] = {}
        cuts: list[Cut] = []

        def cut() -> None:
            for tree in (disk.worst(), disk.mixed(chance)):
                cuts.append(Cut(tree, disk.index, dict(acknowledged)))

        with World() as world, monkeypatch.context() as patch:
            note_acknowledged(patch, acknowledged, cut)
            patch.setattr(journal, "_LARGEST", 100)  # so that several files come and go
            threads_of(world, patch)
            with archive_in(world, Path(disk.top, "new", "archive")) as archive:
                send_all(world, archive, chance)
        assert len(cuts) == 2 * sum(map(len, SENDERS))
        return cuts

    return run


def send_all(world: World, archive: Archive, chance: random.Random) -> None:
    """Octets, threads and pauses come as chance has them."""
    storing: list[Any] = []
    for sender in SENDERS:
        requestor = asking(world, archive, window=chance.choice([1, 4]))
        storing += [requestor.store(source_of(sent)) for sent in sender]
    while not all(map(fired, storing)):
        world.clock.threads_held = chance.random() < 0.8
        for link in chance.sample(world.links, len(world.links)):
            for wire in link.wires:
                wire.turn(chance.choice([200, 1000, 5000]))
        world.clock.turn()
        if chance.random() < 0.05:
            world.clock.threads_held = False
            world.advance(0.3)  # a pause, in which the index is written
    world.end()


def losses(cut: Cut, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start an archive on what is left. What was acknowledged and is not found, or does not come
    back; and what has an instance's name and is none."""
    write_out(cut.disk.get("new", {}).get("archive", {}), folder, cut.index)
    with World() as world, monkeypatch.context() as patch:
        threads_of(world, patch)
        with archive_in(world, folder) as archive:
            requestor = asking(world, archive)
            matches = found(world, requestor, cut.acknowledged)
            back: dict[str, bytes] = {}
            for study in ("1.2.1", "1.2.2"):
                back.update(retrieved(world, requestor, study))
            world.end()
    wrong = [f"{uid} is not found" for uid in cut.acknowledged if uid not in matches]
    for uid, least in cut.acknowledged.items():
        if uid not in back or version(back[uid], uid) < least:
            wrong.append(f"{uid} does not come back")
    for file in folder.glob("instances/*/*/*"):
        if not any(map(file.read_bytes().endswith, VERSIONS[file.stem])):
            wrong.append(f"{file.name} is damaged")
    return wrong


def different(cuts: list[Cut]) -> list[Cut]:
    """One of those that leave the same, the last: it has the most acknowledged."""
    return list({(repr(cut.disk), cut.index): cut for cut in cuts}.values())


@pytest.mark.parametrize("seed", range(2))
def test_what_was_acknowledged_survives_a_power_cut(
    cuts: Callable[[Disk, int], list[Cut]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    with monkeypatch.context() as patch:
        taken = cuts(Disk(tmp_path / "disk", patch), seed)
    for number, cut in enumerate(different(taken)):
        assert losses(cut, tmp_path / str(number), monkeypatch) == []


def archive_folder(disk: Disk) -> Path:
    return Path(disk.top, "new", "archive")


def cut_now(disk: Disk, acknowledged: dict[str, int]) -> Cut:
    return Cut(disk.worst(), disk.index, acknowledged)


def test_a_storage_commitment_is_a_promise_whatever_the_durability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [SENDERS[0][0], SENDERS[1][0], SENDERS[2][0]]
    acknowledged = {uid: 0 for _, _, uid, _ in sent}
    references = [Reference(CT, uid) for uid in [*acknowledged, "1.2.3.no-such"]]
    with World() as world, monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch)
        threads_of(world, patch)
        with archive_in(world, archive_folder(disk), durability="commit") as archive:
            assert stored(world, asking(world, archive), *map(source_of, sent)) == [0, 0, 0]
            before = cut_now(disk, acknowledged)
            commitment = ArchiveCommitment(archive, {})
            nowhere: Any = None
            reasons = world.result(commitment.commit(nowhere, references))
            after = cut_now(disk, acknowledged)
            [lost] = archive_folder(disk).glob("instances/*/*/1.2.1.1.1.dcm")
            lost.unlink()
            without = world.result(commitment.commit(nowhere, references))
            world.end()
    assert reasons == {**dict.fromkeys(acknowledged), "1.2.3.no-such": NO_SUCH_SOP_INSTANCE}
    assert without == {**reasons, "1.2.1.1.1": NO_SUCH_SOP_INSTANCE}
    assert losses(before, tmp_path / "before", monkeypatch)
    assert losses(after, tmp_path / "after", monkeypatch) == []


def test_what_is_kept_instead_of_a_second_one_is_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = source_of(SENDERS[0][0])
    with World() as world, monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch)
        threads_of(world, patch)
        for durability in ("commit", "sync"):
            options = {"durability": durability, "on_duplicate": "keep"}
            with archive_in(world, archive_folder(disk), **options) as archive:
                assert stored(world, asking(world, archive), one) == [0]
                cut = cut_now(disk, {one.sop_instance_uid: 0})
        world.end()
    assert losses(cut, tmp_path / "after", monkeypatch) == []


def test_what_was_imported_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number, sent in enumerate(SENDERS[0]):
        source = source_of(sent)
        meta = part10_header(CT, source.sop_instance_uid, source.transfer_syntax)
        (files / str(number)).write_bytes(meta + source.data)
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch)
        with ArchiveFolder(str(archive_folder(disk))) as folder:
            assert not [each for each in import_files(folder, [str(files)]) if each.problem]
        cut = cut_now(disk, {uid: 0 for _, _, uid, _ in SENDERS[0]})
    assert losses(cut, tmp_path / "after", monkeypatch) == []


def is_file(path: str) -> bool:
    return path.startswith("/new/archive/incoming/")


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(is_file, id="the octets of a file"),
        pytest.param(lambda path: path.count("/") == 5, id="the folder of a series"),
        pytest.param(lambda path: path.count("/") == 4 and "instances" in path, id="of a study"),
        pytest.param(lambda path: path.endswith("/instances"), id="of all studies"),
        pytest.param(lambda path: path.endswith(".log"), id="the journal"),
        pytest.param(lambda path: path.endswith("/journal"), id="the folder of the journal"),
        pytest.param(lambda path: path == "/new/archive", id="the folder of the archive"),
        pytest.param(lambda path: path == "/new", id="the folder above it"),
        pytest.param(lambda path: path == "", id="the folder above that"),
    ],
)
def test_without_one_of_the_syncs_a_power_cut_costs_what_was_acknowledged(
    cuts: Callable[[Disk, int], list[Cut]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left_out: Callable[[str], bool],
) -> None:
    with monkeypatch.context() as patch:
        taken = different(cuts(Disk(tmp_path / "disk", patch, left_out), 0)[::2])
    assert any(losses(cut, tmp_path / str(number), monkeypatch) for number, cut in enumerate(taken))


def test_what_was_acknowledged_survives_a_kill_at_whatever_call_and_then_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed leaves folders that it made and did not sync, half lines, and names
    without a record; the next takes them as they are."""
    at = 0
    while True:
        with monkeypatch.context() as patch:
            cut = killed_and_cut(tmp_path / f"disk-{at}", patch, at)
        if cut is None:
            break
        assert losses(cut, tmp_path / str(at), monkeypatch) == [], at
        at += 1
    assert at > 25


def killed_and_cut(top: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> Cut | None:
    """Kill an archive at its call ``at``, let the next store another instance of the series, and
    cut the power. None where it did all it had to do before that call."""
    disk = Disk(top, monkeypatch)
    folder = top / "new" / "archive"
    first, again, other = (SENDERS[2][number] for number in (0, 3, 1))
    acknowledged: dict[str, int] = {}
    note_acknowledged(monkeypatch, acknowledged)
    disk.dies_at = at
    world = World()
    threads_of(world, monkeypatch)
    try:
        with archive_in(world, folder) as archive:
            requestor = asking(world, archive)
            for sent in (first, again):
                requestor.store(source_of(sent)).addErrback(lambda _failure: None)
                world.run()
        if disk.calls < at:
            return None
    except Killed:
        pass
    disk.revive()
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, folder) as archive:
            assert stored(world, asking(world, archive), source_of(other)) == [0]
            cut = Cut(disk.worst(), disk.index, acknowledged)
            world.end()
    return cut
