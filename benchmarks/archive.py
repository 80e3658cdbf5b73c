"""The archive with its index: study-level queries of few and of many answers, and what the index
costs while instances come in.

The studies are of patients with names in eight scripts, ten instances each. They are stored once,
before the first run of the first row that wants them; our archive is given them as its indexer
reads them, without files. For few answers a run asks for a patient's ID, for the beginning of a
name and for some days, a hundred times each, by one client of ours whoever the server is, so its
part in each figure is the same. The figure is the mean of the three medians, and the note has all
three.

For many answers a run asks for the studies of some days, a few times, by the lean client
(`raw_find`), which counts the answers; the figure is that of the query in the middle.

The last subject has eight senders store at once (`senders`), on a disk, with every response after
the octets are there. Our archive adds to its index behind the responses: after the last of them a
query has to find what was stored, and how long it waited for that is in the note.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import perf_counter

from benchmarks import wire
from benchmarks.get import archive_of_dcmtk, our_archive
from benchmarks.harness import DCMTK, OURS, Mark, Row, Run, Sample
from benchmarks.instances import Shape
from benchmarks.orthanc import ORTHANC, orthanc
from benchmarks.peers import (
    OUR_CLIENT,
    Command,
    Program,
    Server,
    installed_library,
    our_server_at,
    ours,
    serving,
)
from benchmarks.processes import Failed, usage
from benchmarks.raw_find import STUDY_DATE, Asker, question
from benchmarks.raw_peer import STORE_CONTEXT, Message, RawClient
from benchmarks.scratch import KIB, Settings, file_system
from benchmarks.senders import SENDERS, receiving

INSTANCES_OF_A_STUDY = 10
ASKED = 100  # queries of each kind in a run
ASKED_FOR_MANY = 5  # queries in a run
CLIENTS = 4  # that fill an archive
STORE_ONLY = "dimse-scp --store-only"

_ROOT = "1.2.826.0.1.3680043.8.498.1"
_FAMILIES = (
    *("Smith", "Johnson", "Müller", "García", "Núñez", "Sørensen", "Dubois", "Rossi", "Kowalska"),
    *("Yılmaz", "Иванов", "Петрова", "Смирнов", "Кузнецова", "Παπαδόπουλος", "Νικολάου", "山田"),
    *("佐藤", "鈴木", "高橋", "王", "李", "张", "刘", "김", "이", "박", "최", "קפלן", "לוי"),
)
_GIVEN = (
    *("Anna", "Ben", "Carla", "David", "Eva", "Felix", "Greta", "Hugo", "Inés", "Jörg", "Борис"),
    *("Вера", "Глеб", "Дарья", "Νίκος", "Ελένη", "太郎", "花子", "次郎", "明", "伟", "芳", "娜"),
    *("秀英", "민준", "서연", "지훈", "נועה", "יוסף", "מרים"),
)
_FIRST_DAY = date(1995, 1, 1)
_DAYS = 10_000


def rows(settings: Settings) -> list[Row]:
    """Queries at 400 studies, 10,000 and 100,000 instances, of few and of many answers; receiving
    with the index on."""
    few, medium, many = (400, 1_000, 2_000) if settings.quick else (4_000, 10_000, 100_000)
    return [
        _queries(settings, "query-400", few, [our_archive(), archive_of_dcmtk()]),
        _queries(settings, "query-10k", medium, [our_archive(), orthanc()]),
        _queries(settings, "query-100k", many, [our_archive()], marks=[Mark(5.0)]),
        _answers(settings, "answers-400", few, few * 3 // 40, archive_of_dcmtk()),
        _answers(settings, "answers-100k", many, settings.answers // 10, orthanc()),
        _receiving(
            settings, "small", 8 * KIB, settings.small, [Mark(0.7, STORE_ONLY), Mark(5, ORTHANC)]
        ),
        _receiving(settings, "medium", 512 * KIB, settings.medium, [Mark(5, ORTHANC)]),
    ]


# --- queries


def _queries(
    settings: Settings, name: str, count: int, programs: Sequence[Program],
    marks: Sequence[Mark] = (),
) -> Row:  # fmt: skip
    contestants = [
        program.contestant(partial(asking, program, settings, count)) for program in programs
    ]
    title = f"C-FIND at {count // INSTANCES_OF_A_STUDY:,} studies, {count:,} instances"
    return Row(name, title, "ms", contestants, marks)


def _answers(settings: Settings, name: str, count: int, wanted: int, peer: Program) -> Row:
    contestants = [
        program.contestant(partial(_asking_for_many, program, settings, count, wanted))
        for program in (our_archive(), peer)
    ]
    studies = count // INSTANCES_OF_A_STUDY
    title = f"C-FIND, {wanted:,} answers from {studies:,} studies, {count:,} instances"
    return Row(name, title, "answers a second", contestants, [Mark(2, peer.party)])


@contextmanager
def asking(program: Program, settings: Settings, count: int) -> Iterator[Run]:
    """An archive of ``count`` instances; each run asks it queries of three kinds."""
    with serving(program, filled(program, settings, count)) as server:
        keys = server.folder / "keys.json"
        keys.write_text(json.dumps(_keys(count // INSTANCES_OF_A_STUDY)))
        yield partial(_ask, server, keys)


@contextmanager
def _asking_for_many(
    program: Program, settings: Settings, count: int, wanted: int
) -> Iterator[Run]:
    with serving(program, filled(program, settings, count)) as server:
        asked = question({STUDY_DATE: _days_of(count // INSTANCES_OF_A_STUDY, wanted)})
        yield partial(_ask_for_many, server, asked, wanted)


def filled(program: Program, settings: Settings, count: int) -> Path:
    """The folder of an archive that has ``count`` instances, filled when first asked for."""
    folder = settings.folder / f"archive-{program.party}-{count}"
    done = folder / "filled"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if program.party == OURS:
            fill_index(folder, count)
        else:
            with serving(program, folder) as server:
                _fill(program, server, count)
        done.touch()
    return folder


def fill_index(folder: Path, count: int) -> None:
    """Have the archive index all instances, without their files."""
    from twisted_dimse.archive.folder import ArchiveFolder
    from twisted_dimse.archive.header import InstanceHeader

    with ArchiveFolder(str(folder)) as archive:
        for first in range(0, count, 1000):
            headers = []
            for number in range(first, min(first + 1000, count)):
                uid, elements = _instance(number)
                values = {tag: text.encode() for tag, _, text in elements}
                path = f"{number}.dcm"
                headers.append(
                    InstanceHeader(path, wire.SECONDARY_CAPTURE, uid, wire.EXPLICIT, 0, 0, values)
                )
            archive.index.add(headers)


def _fill(program: Program, server: Server, count: int) -> None:
    """Store all instances over several associations; dcmqrscp answers C000 to more than one."""
    clients = 1 if program.party == DCMTK else CLIENTS
    shares = [range(at, count, clients) for at in range(clients)]
    _all_at_once([partial(_store, server.port, share) for share in shares])


def _all_at_once(works: Sequence[partial[object]]) -> None:
    """Do all in threads; raises `Failed` where one does not end well."""
    failures: list[Exception] = []

    def do(work: partial[object]) -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=do, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failed(str(failures[0]))


def _store(port: int, numbers: Sequence[int]) -> None:
    with RawClient(port) as client:
        for at in range(0, len(numbers), 1000):
            client.store([_message(number) for number in numbers[at : at + 1000]])


def _message(number: int) -> Message:
    uid, elements = _instance(number)
    data = b"".join(wire.element(*element) for element in elements)
    request = wire.store_request(STORE_CONTEXT, uid)
    return Message(request + wire.p_data(STORE_CONTEXT, wire.LAST, data), [b""])


def _instance(number: int) -> tuple[str, tuple[tuple[int, bytes, str], ...]]:
    """SOP Instance UID and elements of one instance; all UIDs are of one length."""
    study = number // INSTANCES_OF_A_STUDY
    uids = [f"{_ROOT}.{kind}.{10_000_000 + one}" for kind, one in ((1, number), (2, study))]
    elements = (
        (0x00080005, b"CS", "ISO_IR 192"),
        (0x00080016, b"UI", wire.SECONDARY_CAPTURE),
        (0x00080018, b"UI", uids[0]),
        (0x00080020, b"DA", _day(study)),
        (0x00080030, b"TM", "101500"),
        (0x00080050, b"SH", f"A{study:07}"),
        (0x00080060, b"CS", ("CT", "MR", "CR", "US")[study % 4]),
        (0x00081030, b"LO", "Thorax"),
        (0x00100010, b"PN", _name(study // 2)),
        (0x00100020, b"LO", f"P{study // 2:07}"),
        (0x0020000D, b"UI", uids[1]),
        (0x0020000E, b"UI", f"{uids[1]}.1"),
        (0x00200013, b"IS", str(number % INSTANCES_OF_A_STUDY + 1)),
    )
    return uids[0], elements


def _name(patient: int) -> str:
    family = _FAMILIES[patient % len(_FAMILIES)]
    given = _GIVEN[patient // len(_FAMILIES) % len(_GIVEN)]
    return f"{family}^{given}^{patient:05}"


def _day(study: int) -> str:
    return f"{_FIRST_DAY + timedelta(days=study * 7919 % _DAYS):%Y%m%d}"


def _keys(studies: int) -> dict[str, list[dict[str, str]]]:
    """Queries of each kind, which have one to a few answers at any size."""
    some = [at * 7 % studies for at in range(ASKED)]
    span = timedelta(days=max(_DAYS // studies, 1))
    days = [_FIRST_DAY + timedelta(days=study * 7919 % _DAYS) for study in some]
    return {
        "ID": [{"PatientID": f"P{study // 2:07}"} for study in some],
        "name": [{"PatientName": f"{_name(study // 2)[:-1]}*"} for study in some],
        "days": [{"StudyDate": f"{day:%Y%m%d}-{day + span:%Y%m%d}"} for day in days],
    }


def _days_of(studies: int, wanted: int) -> str:
    """The range of days that has ``wanted`` of the studies; up to `_DAYS` of them have days of
    their own."""
    days = sorted(_day(study) for study in range(studies))
    return f"{days[0]}-{days[wanted - 1]}"


def _ask_for_many(server: Server, asked: bytes, wanted: int) -> Sample:
    before, begun = usage(server.pid), perf_counter()
    with Asker(server.port) as asker:
        found = [asker.find(asked) for _ in range(ASKED_FOR_MANY)]
    seconds, used = perf_counter() - begun, usage(server.pid) - before
    for _, answers in found:
        if answers != wanted:
            raise Failed(f"{answers} answers instead of {wanted}")
    middle = median(taken for taken, _ in found)
    note = f"{middle * 1000:.0f} ms a query"
    work = wanted * len(found)
    return Sample(wanted / middle, work, seconds, used.user, used.system, note=note)


def _ask(server: Server, keys: Path) -> Sample:
    before, begun = usage(server.pid), perf_counter()
    command = [*OUR_CLIENT, "ask", str(server.port), str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    if done.returncode:
        raise Failed(f"the client failed: {done.stderr[-200:]}")
    seconds, used = perf_counter() - begun, usage(server.pid) - before
    medians = {kind: median(each) * 1000 for kind, each in json.loads(done.stdout).items()}
    note = ", ".join(f"{kind} {value:.1f}" for kind, value in medians.items())
    work = ASKED * len(medians)
    return Sample(mean(medians.values()), work, seconds, used.user, used.system, note=note)


# --- receiving


def _receiving(settings: Settings, name: str, size: int, count: int, marks: Sequence[Mark]) -> Row:
    store_only = partial(_durable, ("--store-only",))
    servers = [
        ours("dimse-scp", partial(_durable, ())),
        Program(STORE_ONLY, STORE_ONLY, store_only, installed_library),
        replace(orthanc(), share=2),
    ]
    contestants = [
        server.contestant(
            partial(
                receiving, server, settings, Shape(size), count,
                on_disk=True, indexed=server.name != STORE_ONLY,
            )
        )
        for server in servers
    ]  # fmt: skip
    kind = file_system(settings.lasting)
    title = f"receive {size // KIB} KiB from {SENDERS} senders, synced and indexed, on {kind}"
    return Row(f"archive-{name}", title, "a second", contestants, marks)


def _durable(more: Sequence[str], port: int, folder: Path) -> Command:
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    return our_server_at(endpoint, folder, "--durability", "sync", *more)
