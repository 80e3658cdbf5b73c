"""Instances on disk: where they lie, what a second one does, and what is left when it fails."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import raw
from memory import CT, EXPLICIT, IMPLICIT, Serving, World, encoded, fired, outcome, source
from pydicom import Dataset, dcmread
from twisted.internet.defer import Deferred

from twisted_dimse import DimseError
from twisted_dimse.datastream import BytesSource, encode_dataset
from twisted_dimse.services.files import DURABILITIES, ON_DUPLICATE, InstanceFiles
from twisted_dimse.services.storage import FilingHandler

STUDY, SERIES = "1.2.3", "1.2.3.4"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def filing(
    world: World, folder: Path, *, stored: Any = None, **options: Any
) -> tuple[InstanceFiles, FilingHandler]:
    options.setdefault("durability", "commit")
    files = InstanceFiles(str(folder), reactor=world.clock, **options)
    handler = FilingHandler(files, stored)
    handler.contexts = Serving.contexts
    return files, handler


def received(folder: Path) -> list[str]:
    """The files below ``instances``."""
    return sorted(
        path.relative_to(folder / "instances").as_posix()
        for path in (folder / "instances").rglob("*")
        if path.is_file()
    )


def incoming(folder: Path) -> list[str]:
    return os.listdir(folder / "incoming")


def stored(world: World, requestor: Any, *sources: Any) -> list[int]:
    """The status of each."""
    results = [requestor.store(one, check=False) for one in sources]
    world.run()
    return [outcome(result).status for result in results]


def instance(uid: str, *, study: str = STUDY, series: str = SERIES, text: str = "") -> BytesSource:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, uid
    if study:
        dataset.StudyInstanceUID = study
    if series:
        dataset.SeriesInstanceUID = series
    dataset.PatientComments = text
    return BytesSource(CT, uid, EXPLICIT, encode_dataset(dataset, EXPLICIT))


# --- where they lie


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_instance_lies_by_its_uids_with_the_octets_that_came(
    world: World, tmp_path: Path, durability: str
) -> None:
    _, handler = filing(world, tmp_path, durability=durability)
    requestor, _ = world.associate(handler, calling_ae_title="MODALITY3")
    one = source("1.2.9", 300_000)
    assert stored(world, requestor, one) == [0]
    assert received(tmp_path) == ["1.2.3/1.2.3.4/1.2.9.dcm"]
    assert incoming(tmp_path) == []
    path = tmp_path / "instances" / received(tmp_path)[0]
    assert path.read_bytes().endswith(one.data)
    meta = dcmread(path).file_meta
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == "1.2.9"
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.SourceApplicationEntityTitle == "MODALITY3"


def test_while_it_comes_it_has_no_final_name(world: World, tmp_path: Path) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler)
    storing = requestor.store(source("1.2.9", 300_000))
    for _ in range(10):
        world.link.turn(20_000)
    assert len(incoming(tmp_path)) == 1
    assert received(tmp_path) == []
    assert world.result(storing).status == 0


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["lose", "abort"])
def test_what_is_not_complete_is_removed(
    world: World, tmp_path: Path, durability: str, how: str
) -> None:
    _, handler = filing(world, tmp_path, durability=durability)
    requestor, _ = world.associate(handler)
    storing = requestor.store(source("1.2.9", 900_000))
    for _ in range(30):
        world.link.turn(20_000)
        world.clock.turn()
    assert len(incoming(tmp_path)) == 1
    if how == "lose":
        world.link.lose()
    else:
        requestor.abort()
    world.run()
    with pytest.raises(DimseError):
        outcome(storing)
    assert (incoming(tmp_path), received(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    ("study", "series"),
    [("", SERIES), (STUDY, ""), ("", ""), ("../../x", SERIES), ("1.2.", SERIES), ("1." * 40, "1")],
)
def test_without_study_and_series_it_lies_in_a_place_of_its_own(
    world: World, tmp_path: Path, study: str, series: str
) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, instance("1.2.9", study=study, series=series)) == [0]
    assert received(tmp_path) == ["no-study/no-series/1.2.9.dcm"]


@pytest.mark.parametrize(
    ("study", "series", "missing"),
    [("", SERIES, ["Study"]), (STUDY, "", ["Series"]), ("", "", ["Study", "Series"])],
)
def test_without_study_and_series_it_is_refused_with_what_is_missing(
    world: World, tmp_path: Path, study: str, series: str, missing: list[str]
) -> None:
    _, handler = filing(world, tmp_path, require_uids=True)
    requestor, _ = world.associate(handler)
    storing = requestor.store(instance("1.2.9", study=study, series=series), check=False)
    response = world.result(storing)
    assert response.status == 0xA900
    assert [name for name in ("Study", "Series") if name in response.comment] == missing
    assert (incoming(tmp_path), received(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    "uid", ["../../x", "1.2/3", "", "1..2", "1.02", "1." + "2" * 63, "abc", "1.2.3\\4", ".", ".."]
)
def test_a_uid_that_is_none_never_becomes_a_path(world: World, tmp_path: Path, uid: str) -> None:
    folder = tmp_path / "archive"
    _, handler = filing(world, folder)
    contexts = raw.associate_rq([(3, CT, [EXPLICIT])])
    _, script = world.call(handler, contexts)
    script.command(3, raw.store_rq(uid, 5, CT), encoded("1.2.9"))
    script.command(3, raw.store_rq("1.2.9", 6, CT), encoded("1.2.9"))
    world.run()
    assert [message.status for message in script.messages] == [0x0117, 0]
    assert received(folder) == ["1.2.3/1.2.3.4/1.2.9.dcm"]
    assert os.listdir(tmp_path) == ["archive"]


def test_a_data_set_without_octets_is_a_file_too(world: World, tmp_path: Path) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, BytesSource(CT, "1.2.9", EXPLICIT, b"")) == [0]
    assert received(tmp_path) == ["no-study/no-series/1.2.9.dcm"]


def test_who_wants_to_know_is_told_before_the_answer(world: World, tmp_path: Path) -> None:
    told: list[tuple[str, str, bool]] = []

    def note(request: Any, path: str) -> None:
        told.append((request.sop_instance_uid, path, Path(path).exists()))

    _, handler = filing(world, tmp_path, stored=note)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, source("1.2.9")) == [0]
    assert told == [("1.2.9", str(tmp_path / "instances/1.2.3/1.2.3.4/1.2.9.dcm"), True)]


def test_what_an_earlier_run_left_is_removed_when_asked(world: World, tmp_path: Path) -> None:
    files, _ = filing(world, tmp_path)
    for name in ("1-1.part", "1-2.part"):
        (tmp_path / "incoming" / name).touch()
    (tmp_path / "incoming" / "lost+found").mkdir()
    assert files.remove_partial() == 2
    assert incoming(tmp_path) == ["lost+found"]


def test_a_folder_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        InstanceFiles(str(tmp_path / "file" / "archive"), reactor=object())
    for wrong in ({"durability": "maybe"}, {"on_duplicate": "panic"}):
        with pytest.raises(ValueError):
            InstanceFiles(str(tmp_path), reactor=object(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["keep", "reject"])
def test_a_file_system_without_hard_links_is_an_error_at_once_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match=f"on-duplicate {rule} needs a file system with hard links"):
        InstanceFiles(str(tmp_path), on_duplicate=rule, reactor=object())
    assert list((tmp_path / "incoming").iterdir()) == []
    InstanceFiles(str(tmp_path), reactor=object())


# --- the same once more


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize(
    ("rule", "statuses", "kept"),
    [("replace", [0, 0], "second"), ("keep", [0, 0], "first"), ("reject", [0, 0x0111], "first")],
)
def test_a_second_instance_of_the_same_uid(
    world: World, tmp_path: Path, durability: str, rule: str, statuses: list[int], kept: str
) -> None:
    _, handler = filing(world, tmp_path, durability=durability, on_duplicate=rule)
    requestor, _ = world.associate(handler)
    both = [instance("1.2.9", text=text) for text in ("first", "second")]
    assert stored(world, requestor, *both) == statuses
    (name,) = received(tmp_path)
    assert dcmread(tmp_path / "instances" / name).PatientComments == kept
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("rule", ON_DUPLICATE)
@pytest.mark.parametrize("durability", DURABILITIES)
def test_two_at_once_are_two_whole_files_one_after_the_other(
    world: World, tmp_path: Path, rule: str, durability: str
) -> None:
    _, handler = filing(world, tmp_path, durability=durability, on_duplicate=rule)
    endpoint = world.serve(handler)
    requestors = [world.result(world.connect(endpoint)) for _ in range(2)]
    texts = ["a" * 50_000, "b" * 50_000]
    storing = [
        requestor.store(instance("1.2.9", text=text), check=False)
        for requestor, text in zip(requestors, texts, strict=True)
    ]
    world.most = 3000
    world.run()
    statuses = sorted(outcome(one).status for one in storing)
    assert statuses == ([0, 0x0111] if rule == "reject" else [0, 0])
    (name,) = received(tmp_path)
    assert dcmread(tmp_path / "instances" / name).PatientComments in texts
    assert incoming(tmp_path) == []


# --- too large, too full, broken


@pytest.mark.parametrize(("spare", "status"), [(0, 0), (-1, 0xA700), (-100_000, 0xA700)])
def test_a_data_set_over_the_limit_is_discarded_and_answered_at_its_end(
    world: World, tmp_path: Path, spare: int, status: int
) -> None:
    one = source("1.2.9", 300_000)
    _, handler = filing(world, tmp_path, max_instance=len(one.data) + spare)
    requestor, _ = world.associate(handler)
    response = world.result(requestor.store(one, check=False))
    assert response.status == status
    assert (len(received(tmp_path)), incoming(tmp_path)) == (status == 0, [])
    assert world.link.to_acceptor.delivered > len(one.data)
    assert world.result(requestor.echo()).status == 0


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: OSError, when: Callable[..., bool]
) -> None:
    """Have a function of `os` fail, some of the times that it is called."""
    real = getattr(os, name)

    def fails(*args: Any, **kw: Any) -> Any:
        if when(*args):
            raise error
        return real(*args, **kw)

    monkeypatch.setattr(os, name, fails)


FULL = OSError(errno.ENOSPC, "No space left on device", "partial")
BROKEN = OSError(errno.EIO, "Input/output error", "partial")


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("open", lambda path, *_: str(path).endswith(".part")),
        ("writev", lambda *_: True),
        ("writev", lambda _fd, parts: bytes(parts[0][128:132]) != b"DICM"),
        ("rename", lambda *_: True),
        ("makedirs", lambda path, *_: "instances" in str(path)),
    ],
    ids=["open", "first write", "later write", "rename", "folder"],
)
@pytest.mark.parametrize(
    ("error", "comment"), [(FULL, "disk full"), (BROKEN, "Input/output error")], ids=["full", "io"]
)
def test_an_error_of_the_disk_is_out_of_resources_and_leaves_nothing(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    durability: str,
    call: str,
    when: Any,
    error: OSError,
    comment: str,
) -> None:
    _, handler = filing(world, tmp_path, durability=durability)
    requestor, _ = world.associate(handler, contexts=["1.2.840.10008.1.1", CT])
    with monkeypatch.context() as patch:
        failing(patch, call, error, when)
        response = world.result(requestor.store(source("1.2.9", 300_000), check=False))
    assert (response.status, response.comment) == (0xA700, comment)
    assert (incoming(tmp_path), received(tmp_path)) == ([], [])
    assert len(world.lines("an instance was not stored")) == 1
    assert stored(world, requestor, source("1.2.9", 300_000)) == [0]
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("rule", ["keep", "reject"])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_link_that_fails_leaves_nothing_either(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, durability: str
) -> None:
    _, handler = filing(world, tmp_path, durability=durability, on_duplicate=rule)
    requestor, _ = world.associate(handler)
    failing(monkeypatch, "link", BROKEN, lambda *_: True)
    assert stored(world, requestor, source("1.2.9")) == [0xA700]
    assert (incoming(tmp_path), received(tmp_path)) == ([], [])


def test_a_write_that_takes_only_a_part_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, real_writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data[:777])))
    monkeypatch.setattr(
        os, "writev", lambda fd, parts: real_writev(fd, [b"".join(map(bytes, parts))[:300]])
    )
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler)
    one = source("1.2.9", 50_000)
    assert stored(world, requestor, one) == [0]
    assert (tmp_path / "instances" / received(tmp_path)[0]).read_bytes().endswith(one.data)


@pytest.mark.parametrize("limit", [8, 64, 16384])
@pytest.mark.parametrize("most", [50_000, 3_000])
def test_slices_that_come_together_are_written_together_and_in_order(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    calls = []
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: calls.append(len(parts)) or real(fd, parts))
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler, {"max_pdu_length": limit})
    world.most = most
    one = source("1.2.9", 20_001)
    assert stored(world, requestor, one) == [0]
    there = (tmp_path / "instances" / received(tmp_path)[0]).read_bytes()
    assert there.endswith(one.data + b"\x00" if len(one.data) & 1 else one.data)
    assert len(calls) < 120
    assert max(calls) <= 101


def open_files(folder: Path) -> list[str]:
    """What this process holds open below a folder."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


# --- what is durable when


class Calls:
    """The calls that make files durable, in order, with what they were about. What fails, such as
    a rename into a folder that is not there yet, is left out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.made: list[tuple[str, str]] = []
        self._folder = str(folder)
        for name in ("fsync", "rename", "link", "close", "unlink"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, real: Any) -> Any:
        def noting(first: Any, *rest: Any) -> Any:
            path = str(rest[0] if rest else first)
            if name in ("fsync", "close"):
                try:
                    path = os.readlink(f"/proc/self/fd/{first}")
                except OSError:
                    path = ""
            result = real(first, *rest)
            if path.startswith(self._folder):
                self.made.append((name, path[len(self._folder) + 1 :]))
            return result

        return noting

    def of(self, *names: str) -> list[tuple[str, str]]:
        """Those calls; files that come in are all called alike."""
        return [
            (name, "partial" if path.startswith("incoming") else path)
            for name, path in self.made
            if name in names
        ]


def test_the_octets_the_name_and_the_folders_are_synced_in_that_order(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler)
    calls = Calls(monkeypatch, tmp_path)
    world.clock.threads_held = True
    storing = requestor.store(source("1.2.9"))
    world.run()
    assert not storing.called
    assert calls.of("fsync", "rename") == []  # nothing of it in the reactor's thread
    world.clock.threads_held = False
    assert world.result(storing).status == 0
    assert calls.of("fsync", "rename") == [
        ("fsync", "partial"),
        ("rename", "instances/1.2.3/1.2.3.4/1.2.9.dcm"),
        ("fsync", "instances/1.2.3/1.2.3.4"),
        ("fsync", "instances/1.2.3"),
        ("fsync", "instances"),
    ]


def test_only_folders_with_a_new_entry_are_synced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler)
    stored(world, requestor, source("1.2.9"))
    calls = Calls(monkeypatch, tmp_path)
    stored(world, requestor, source("1.2.10"))
    assert calls.of("fsync") == [("fsync", "partial"), ("fsync", "instances/1.2.3/1.2.3.4")]


def test_what_waits_together_is_synced_together(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[list[str]] = []
    _, handler = filing(world, tmp_path, durability="sync", record=recorded.append)
    requestor, _ = world.associate(handler, window=16)
    calls = Calls(monkeypatch, tmp_path)
    world.clock.threads_held = True
    storing = [requestor.store(source(f"1.2.{number}")) for number in range(10)]
    world.run()
    assert not any(fired(one) for one in storing)
    world.clock.threads_held = False
    world.run()
    assert [outcome(one).status for one in storing] == [0] * 10
    folders = [path for _, path in calls.of("fsync") if path != "partial"]
    assert folders.count("instances/1.2.3/1.2.3.4") == 2  # the first alone, then the rest
    assert [len(paths) for paths in recorded] == [1, 9]
    assert len(calls.of("rename")) == 10


def test_a_disk_that_stalls_holds_some_threads_and_not_all(world: World, tmp_path: Path) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler, window=16)
    world.clock.threads_held = True
    storing = [requestor.store(source(f"1.2.{number}")) for number in range(16)]
    world.run()
    assert world.clock.waiting_in_threads == 6
    world.clock.threads_held = False
    world.run()
    assert [outcome(one).status for one in storing] == [0] * 16


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_instance_is_recorded_before_it_is_acknowledged(
    world: World, tmp_path: Path, durability: str
) -> None:
    recorded: list[str] = []
    _, handler = filing(world, tmp_path, durability=durability, record=recorded.extend)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, source("1.2.9")) == [0]
    assert recorded == [str(tmp_path / "instances/1.2.3/1.2.3.4/1.2.9.dcm")]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_what_cannot_be_recorded_is_not_acknowledged(
    world: World, tmp_path: Path, durability: str
) -> None:
    def record(_paths: list[str]) -> None:
        raise FULL

    _, handler = filing(world, tmp_path, durability=durability, record=record)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, source("1.2.9")) == [0xA700]
    assert (incoming(tmp_path), received(tmp_path)) == ([], [])


def test_what_is_committed_is_not_synced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler)
    calls = Calls(monkeypatch, tmp_path)
    assert stored(world, requestor, source("1.2.9")) == [0]
    assert calls.of("fsync") == []
    assert calls.of("rename") == [("rename", "instances/1.2.3/1.2.3.4/1.2.9.dcm")]


def held_together(world: World, requestor: Any, *sources: Any) -> list[int]:
    """The status of each, where all but the first are synced as one group."""
    world.clock.threads_held = True
    storing = [requestor.store(one, check=False) for one in sources]
    world.run()
    world.clock.threads_held = False
    world.run()
    return [outcome(one).status for one in storing]


def series(number: int) -> BytesSource:
    return instance(f"1.2.{number}", series=f"1.2.3.{number}")


def test_octets_that_cannot_be_synced_hurt_no_other_file_of_their_group(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler, window=4)
    files = 0

    def when(descriptor: int) -> bool:
        nonlocal files
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        files += not folder
        return files == 3 and not folder

    failing(monkeypatch, "fsync", BROKEN, when)
    statuses = held_together(world, requestor, *map(series, range(4)))
    assert statuses == [0, 0, 0xA700, 0]
    assert [path[-5] for path in received(tmp_path)] == ["0", "1", "3"]
    assert (incoming(tmp_path), open_files(tmp_path)) == ([], [])


@pytest.mark.parametrize("rule", ON_DUPLICATE)
def test_a_folder_that_cannot_be_synced_hurts_only_what_is_new_in_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    recorded: list[str] = []
    unplaced: list[str] = []
    _, handler = filing(
        world, tmp_path, durability="sync", on_duplicate=rule,
        record=recorded.extend, unplaced=unplaced.append,
    )  # fmt: skip
    requestor, _ = world.associate(handler, window=4)
    assert stored(world, requestor, *map(series, range(4))) == [0] * 4
    failing(
        monkeypatch, "fsync", BROKEN,
        lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}").endswith("1.2.3.2"),
    )  # fmt: skip
    del recorded[:]
    more = [instance(f"1.2.9{number}", series=f"1.2.3.{number}") for number in range(4)]
    assert held_together(world, requestor, *more) == [0, 0, 0xA700, 0]
    assert "1.2.3/1.2.3.2/1.2.92.dcm" not in received(tmp_path)
    assert len(received(tmp_path)) == 7
    assert (len(recorded), [path[-10:] for path in unplaced]) == (4, ["1.2.92.dcm"])
    assert (incoming(tmp_path), open_files(tmp_path)) == ([], [])
    assert len(world.lines("an instance was not stored")) == 1


@pytest.mark.parametrize("durability", ["commit", "sync"])
@pytest.mark.parametrize("rule", ["keep", "reject"])
def test_a_file_that_a_power_cut_emptied_is_no_instance(
    world: World, tmp_path: Path, rule: str, durability: str
) -> None:
    _, handler = filing(world, tmp_path, on_duplicate=rule, durability=durability)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, instance("1.2.9", text="first")) == [0]
    (name,) = received(tmp_path)
    os.truncate(tmp_path / "instances" / name, 0)
    assert stored(world, requestor, instance("1.2.9", text="second")) == [0]
    assert dcmread(tmp_path / "instances" / name).PatientComments == "second"
    assert (received(tmp_path), incoming(tmp_path)) == ([name], [])


@pytest.mark.parametrize("durability", ["commit", "sync"])
@pytest.mark.parametrize("rule", ["keep", "reject"])
@pytest.mark.parametrize("away", ["1.2.3", "1.2.3/1.2.3.4", "1.2.3/1.2.3.4/1.2.9.dcm"])
def test_what_lies_behind_a_link_that_leads_nowhere_now_is_no_instance_that_is_kept(
    world: World, tmp_path: Path, rule: str, durability: str, away: str
) -> None:
    _, handler = filing(world, tmp_path, on_duplicate=rule, durability=durability)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, source("1.2.9", 100)) == [0]
    os.rename(tmp_path / "instances" / away, tmp_path / "elsewhere")
    os.symlink(tmp_path / "on another disk", tmp_path / "instances" / away)
    assert stored(world, requestor, source("1.2.9", 100)) == [0xA700]
    assert incoming(tmp_path) == []


@pytest.mark.parametrize("rule", ["replace", "keep"])
def test_what_was_there_is_there_again_when_its_folder_cannot_be_synced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    _, handler = filing(world, tmp_path, durability="sync", on_duplicate=rule)
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, instance("1.2.9", text="first")) == [0]
    (name,) = received(tmp_path)
    before = (tmp_path / "instances" / name).read_bytes()
    with monkeypatch.context() as patch:
        failing(patch, "fsync", BROKEN, lambda fd: os.path.isdir(f"/proc/self/fd/{fd}"))
        assert stored(world, requestor, instance("1.2.9", text="second")) == [0xA700]
    assert (tmp_path / "instances" / name).read_bytes() == before
    assert (received(tmp_path), incoming(tmp_path)) == ([name], [])
    assert stored(world, requestor, instance("1.2.9", text="third")) == [0]
    kept = dcmread(tmp_path / "instances" / name).PatientComments
    assert kept == ("third" if rule == "replace" else "first")
    assert incoming(tmp_path) == []


def test_a_folder_that_failed_once_is_synced_with_those_above_it_the_next_time(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler)
    with monkeypatch.context() as patch:
        failing(patch, "fsync", BROKEN, lambda fd: os.path.isdir(f"/proc/self/fd/{fd}"))
        assert stored(world, requestor, source("1.2.9")) == [0xA700]
    calls = Calls(monkeypatch, tmp_path)
    assert stored(world, requestor, source("1.2.10")) == [0]
    assert [path for _, path in calls.of("fsync")] == [
        "partial", "instances/1.2.3/1.2.3.4", "instances/1.2.3", "instances",
    ]  # fmt: skip


def test_where_nothing_has_two_names_an_instance_is_replaced_all_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handler = filing(world, tmp_path, durability="sync")
    requestor, _ = world.associate(handler)
    assert stored(world, requestor, instance("1.2.9", text="first")) == [0]
    failing(monkeypatch, "link", OSError(errno.EPERM, "Operation not permitted"), lambda *_: True)
    assert stored(world, requestor, instance("1.2.9", text="second")) == [0]
    (name,) = received(tmp_path)
    assert dcmread(tmp_path / "instances" / name).PatientComments == "second"


def test_filing_goes_on_when_the_sender_is_gone(world: World, tmp_path: Path) -> None:
    told: list[str] = []
    _, handler = filing(
        world, tmp_path, durability="sync", stored=lambda _request, path: told.append(path)
    )
    requestor, _ = world.associate(handler)
    world.clock.threads_held = True
    storing = requestor.store(source("1.2.9"))
    world.run()
    world.link.lose()
    with pytest.raises(DimseError):
        outcome(storing)
    world.clock.threads_held = False
    world.run()
    assert received(tmp_path) == ["1.2.3/1.2.3.4/1.2.9.dcm"]
    assert len(told) == 1
    assert (incoming(tmp_path), open_files(tmp_path)) == ([], [])


# --- what it reads of a data set


@pytest.mark.parametrize("most", [1, 13, 1000])
def test_the_uids_are_found_wherever_the_octets_are_cut(
    world: World, tmp_path: Path, most: int
) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler, {"max_pdu_length": 64})
    world.most = most
    assert stored(world, requestor, source("1.2.9", 100)) == [0]
    assert received(tmp_path) == ["1.2.3/1.2.3.4/1.2.9.dcm"]


def test_a_data_set_that_has_vrs_where_its_context_has_none_is_kept_in_its_study(
    world: World, tmp_path: Path
) -> None:
    _, handler = filing(world, tmp_path)
    requestor, _ = world.associate(handler, contexts=[(CT, [IMPLICIT])])
    one = BytesSource(CT, "1.2.9", IMPLICIT, encoded("1.2.9"))
    assert stored(world, requestor, one) == [0]
    assert received(tmp_path) == ["1.2.3/1.2.3.4/1.2.9.dcm"]


def test_a_sink_that_is_waited_for_is_a_deferred(world: World, tmp_path: Path) -> None:
    files, _ = filing(world, tmp_path, durability="sync")
    requestor, acceptor = world.associate()
    world.result(requestor.store(source("1.2.9")))
    handler: Any = acceptor.handler
    sink = files.sink(handler.requests[0])
    sink.write(encoded("1.2.9"))
    assert isinstance(world.watch(sink.finish()), Deferred)
    world.run()
    assert dcmread(io.BytesIO(Path(tmp_path / "instances" / received(tmp_path)[0]).read_bytes()))
