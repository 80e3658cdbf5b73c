"""The benchmarks measure what they say: their raw peers speak DICOM, their table adds up."""

from __future__ import annotations

import io
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import peers
import pydicom
import pytest
import raw
from peers import wait_until

from benchmarks import archive, chart, lines, scratch, senders, stalling, table, turning, wire
from benchmarks.clients import from_start_to_end, transfer
from benchmarks.crowd import allow_files, crowd
from benchmarks.get import our_archive
from benchmarks.harness import DCMTK, OURS, Contestant, Mark, Point, Row, Sample, measure
from benchmarks.instances import Instance, Shape, batch, pixels, write_file, write_folder
from benchmarks.peers import STORING_CLIENTS, STORING_SERVERS, Program, serving
from benchmarks.processes import Failed
from benchmarks.profiling import markdown
from benchmarks.raw_find import STUDY_DATE, Asker, question
from benchmarks.raw_peer import RawClient, RawServer, Transfer, prepare
from benchmarks.rows import chosen_rows
from benchmarks.scratch import KIB, Settings, take_away, time_between, warm
from benchmarks.visits import visits

SIZES = (1024, 8192, 100_000, 1 << 19)


@contextmanager
def served(maximum: int) -> Iterator[tuple[RawClient, list[Transfer]]]:
    """A raw client's association with a raw server; what came is listed when it ended."""
    results: list[Transfer] = []
    with RawServer(maximum, timeout=5) as server:
        thread = threading.Thread(target=lambda: results.append(server.serve()))
        thread.start()
        try:
            with RawClient(server.port, timeout=5) as client:
                yield client, results
        finally:
            thread.join(10)


def program(programs: tuple[Program, ...], party: str) -> Program:
    """The peer's program; skips without it, and fails where peers are required."""
    found = next(one for one in programs if one.party == party)
    missing = found.missing()
    if missing:
        peers.absent(party, f"cannot take part: {missing}")
    return found


def whole(shape: Shape, instance: Instance) -> bytes:
    return shape.head(instance) + bytes(pixels(0, shape.pixels))


@pytest.mark.parametrize("size", SIZES)
def test_a_data_set_has_exactly_the_size_that_was_asked_for(size: int) -> None:
    shape = Shape(size)
    for instance in (Instance(1, 0), Instance(10**14, 99_999)):
        assert len(whole(shape, instance)) == size


def test_a_data_set_is_an_image_that_pydicom_reads(tmp_path: Path) -> None:
    shape, (instance,) = Shape(100_000), batch(1)
    write_file(tmp_path / "image.dcm", shape, instance)
    image = pydicom.dcmread(tmp_path / "image.dcm")
    assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID == instance.uid
    assert all(uid.is_valid for uid in (image.StudyInstanceUID, image.SeriesInstanceUID))
    assert len(image.PixelData) == image.Rows * image.Columns == shape.pixels


def test_instances_are_distinct_and_fill_series_after_series() -> None:
    instances = batch(250) + batch(250)
    assert len({instance.uid for instance in instances}) == 500
    assert [instances[n].series for n in (0, 99, 100, 249)] == [0, 0, 1, 2]


@pytest.mark.parametrize("maximum", [1024, 16384, 131072])
def test_prepared_messages_hold_the_data_set_in_pdus_of_the_wanted_length(maximum: int) -> None:
    shape, (instance,) = Shape(100_000), batch(1)
    (message,) = prepare(shape, [instance], maximum)
    stream = io.BytesIO(message.own + b"".join(bytes(part) for part in message.tail))
    stream.seek(len(wire.store_request(3, instance.uid)))
    data, flags = b"", 0
    while header := stream.read(12):
        length, flags = int.from_bytes(header[2:6], "big"), header[11]
        assert length <= maximum
        data += stream.read(length - 6)
    assert data == whole(shape, instance)
    assert flags == wire.LAST


@pytest.mark.parametrize("maximum", [16384, 131072])
def test_the_raw_peers_understand_each_other(maximum: int) -> None:
    with served(maximum) as (client, results):
        assert client.maximum == maximum
        client.echo(50)
        for size in SIZES:
            client.store(prepare(Shape(size), batch(3), client.maximum))
    assert results[0].messages == 50 + 3 * len(SIZES)
    assert results[0].octets == 3 * sum(SIZES)
    assert results[0].seconds > 0


def test_a_crowd_counts_every_answer_and_how_long_it_took() -> None:
    results: list[Transfer] = []
    with RawServer(timeout=5) as server:
        threads = [
            threading.Thread(target=lambda: results.append(server.serve())) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        with crowd(server.port, 4) as clients:
            seconds, waits = clients.echo(25)
        for thread in threads:
            thread.join(10)
    assert [result.messages for result in results] == [26] * 4
    assert len(waits) == 4 * 25
    assert waits == sorted(waits)
    assert 0 < waits[0] <= waits[-1] <= seconds


def test_associations_are_opened_and_released_so_many_at_once_and_counted() -> None:
    under_way, most = 0, 0
    changing, all_here = threading.Lock(), threading.Barrier(4, timeout=20)

    def script(connection: raw.Connection) -> None:
        nonlocal under_way, most
        request = connection.expect(raw.ASSOCIATE_RQ)
        with changing:
            under_way += 1
            most = max(most, under_way)
        all_here.wait()
        connection.send(raw.associate_ac(request))
        connection.expect(raw.RELEASE_RQ)
        with changing:
            under_way -= 1
        connection.send(raw.pdu(raw.RELEASE_RP, bytes(4)))
        assert connection.is_closed()

    with raw.scripted(script) as server:
        seconds, times = visits(server.port, 24, 4)
    assert len(server.results) == len(times) == 24
    assert most == 4
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= seconds


def _rejects(connection: raw.Connection) -> None:
    connection.expect(raw.ASSOCIATE_RQ)
    connection.send(raw.pdu(raw.ASSOCIATE_RJ, b"\0\2\3\2"))


def _accepts_nothing(connection: raw.Connection) -> None:
    request = connection.expect(raw.ASSOCIATE_RQ)
    connection.send(raw.associate_ac(request, accept=lambda *_: False))


def _aborts_instead_of_releasing(connection: raw.Connection) -> None:
    connection.send(raw.associate_ac(connection.expect(raw.ASSOCIATE_RQ)))
    connection.expect(raw.RELEASE_RQ)
    connection.send(raw.pdu(raw.ABORT, bytes(4)))


def _closes(connection: raw.Connection) -> None:
    connection.expect(raw.ASSOCIATE_RQ)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (_rejects, "a PDU of type 3 instead of 2"),
        (_accepts_nothing, "of the presentation contexts set"),
        (_aborts_instead_of_releasing, "a PDU of type 7 instead of 6"),
        (_closes, "closed the connection"),
    ],
)
def test_an_association_that_is_not_accepted_or_not_released_fails_all(
    script: raw.Script, message: str
) -> None:
    with (
        raw.scripted(raw.accepting(), script) as server,
        pytest.raises(wire.WireError, match=message),
    ):
        visits(server.port, 2, 1)


def _finding(count: int, last: int) -> raw.Script:
    """Answers a query with ``count`` data sets in two fragments each, and then a status."""

    def script(connection: raw.Connection) -> bytes | None:
        connection.send(raw.associate_ac(connection.expect(raw.ASSOCIATE_RQ)))
        asked = connection.message()
        for status in [0xFF00, 0xFF01] * (count // 2) + [last]:
            data = raw.NO_DATA_SET if status == last else raw.DATA_SET
            words = {raw.FIELD: 0x8020, raw.RESPONDED_TO: 1, raw.DATA_SET_TYPE: data}
            answer = raw.command({**words, raw.STATUS: status})
            whole = None if status == last else bytes(100)
            connection.send_message(asked.context, answer, whole, length=76)
        connection.read()
        connection.send(raw.pdu(raw.RELEASE_RP, bytes(4)))
        return asked.data

    return script


def test_answers_to_a_question_are_counted() -> None:
    with raw.scripted(_finding(6, 0)) as server:
        with Asker(server.port) as asker:
            seconds, answers = asker.find(question({STUDY_DATE: "20240101-20240229"}))
        assert answers == 6
        assert seconds > 0
        wait_until(lambda: len(server.results) == 1)
    (data,) = server.results
    assert isinstance(data, bytes)
    asked = pydicom.dcmread(io.BytesIO(data), force=True)
    assert (asked.StudyDate, asked.QueryRetrieveLevel) == ("20240101-20240229", "STUDY")
    assert asked.PatientName == asked.StudyInstanceUID == ""


def test_a_question_that_ends_with_another_status_than_success_fails() -> None:
    with (
        raw.scripted(_finding(2, 0xA700)) as server,
        pytest.raises(wire.WireError, match="status A700"),
        Asker(server.port) as asker,
    ):
        asker.find(question({}))


def test_a_crowd_raises_the_limit_of_open_files_and_no_other() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, before[1]))
        allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500, before[1])
        allow_files(1000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(1100, before[1]), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.interop
def test_dcmtk_files_what_the_raw_client_sends(tmp_path: Path) -> None:
    storescp = program(STORING_SERVERS, DCMTK)
    shape, instances = Shape(100_000), batch(3)
    with serving(storescp, tmp_path) as server, RawClient(server.port) as client:
        client.store(prepare(shape, instances, client.maximum))
    stored = {bytes(path.read_bytes()[-shape.size :]) for path in tmp_path.iterdir()}
    assert stored == {whole(shape, instance) for instance in instances}
    assert take_away(tmp_path, shape.size) == 3


@pytest.mark.interop
@pytest.mark.parametrize("maximum", [16384, 131072])
def test_the_raw_server_takes_what_dcmtk_sends(tmp_path: Path, maximum: int) -> None:
    storescu = program(STORING_CLIENTS, DCMTK)
    write_folder(tmp_path / "files", Shape(100_000), batch(3))
    with RawServer(maximum) as server:
        result = transfer(storescu, server, [tmp_path / "files", 3])
    assert (result.messages, result.octets) == (3, 300_000)
    assert result.after.peak > 0


def test_settings_make_files_once_and_take_them_away(tmp_path: Path) -> None:
    with Settings.made(quick=True, folder=tmp_path) as settings:
        files = settings.files(Shape(8 * KIB), 3)
        assert files == settings.files(Shape(8 * KIB), 3)
        assert len(list(files.iterdir())) == 3
    assert list(tmp_path.iterdir()) == []


def test_files_may_have_more_names_than_one(tmp_path: Path) -> None:
    with Settings.made(quick=True, folder=tmp_path) as settings:
        files = settings.files(Shape(8 * KIB), 2, names=3)
        assert files == settings.files(Shape(8 * KIB), 2, names=3)
        found = list(files.iterdir())
        assert len(found) == 6
        assert len({path.stat().st_ino for path in found}) == 2


CLIENT = """
import sys, time
from benchmarks.raw_peer import RawClient
with RawClient(int(sys.argv[1])) as client:
    client.echo(3)
time.sleep(int(sys.argv[2]) / 1000)
sys.exit(int(sys.argv[3]))
"""


def _raw_client(port: int, milliseconds: int, status: int) -> list[str]:
    return [sys.executable, "-c", CLIENT, *map(str, (port, milliseconds, status))]


def test_a_command_is_timed_until_it_has_ended() -> None:
    client = Program("client", OURS, _raw_client, lambda: None)
    with RawServer(timeout=20) as server:
        seconds, came = from_start_to_end(client, server, [200, 0])
        assert came.messages == 3
        assert seconds >= came.seconds + 0.2
        with pytest.raises(Failed, match="exit status 3"):
            from_start_to_end(client, server, [0, 3])


def test_an_index_is_no_instance_and_stays(tmp_path: Path) -> None:
    write_file(tmp_path / "instance", Shape(8 * KIB), Instance(1, 0))
    (tmp_path / "index").write_bytes(bytes(8 * KIB))
    assert take_away(tmp_path, 8 * KIB) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_what_needs_a_disk_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_DISK", tmp_path)
    with Settings.made(quick=True, folder=None) as settings:
        with settings.new_folder(on_disk=True) as folder:
            assert folder.is_relative_to(tmp_path)
        assert not settings.folder.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    named = tmp_path / "named"
    named.mkdir()
    with Settings.made(quick=True, folder=named) as settings:
        assert settings.lasting.parent == settings.folder.parent == named


def test_time_between_files_is_that_of_their_last_writes(tmp_path: Path) -> None:
    def filled() -> None:
        for number, second in enumerate((30, 10, 20)):
            (tmp_path / f"{number}").write_bytes(bytes(128) + b"DICM")
            os.utime(tmp_path / f"{number}", (second, second))
        (tmp_path / "index").write_bytes(bytes(10))

    filled()
    assert time_between(tmp_path, 100, 3) == pytest.approx(20)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    filled()
    with pytest.raises(Failed, match="3 files of full size instead of 4"):
        time_between(tmp_path, 100, 4)


@pytest.mark.parametrize(
    ("kind", "done"), [("tmpfs", [2_500_000]), ("ext4", ["what others wrote is synced"])]
)
def test_a_folder_in_memory_is_warmed_with_a_quarter_more_than_is_filed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, done: list[object]
) -> None:
    made: list[object] = []
    temporary_file = scratch.tempfile.TemporaryFile

    @contextmanager
    def watched(**where: Path) -> Iterator[io.BufferedRandom]:
        assert where == {"dir": tmp_path}
        with temporary_file(**where) as file:
            yield file
            made.append(file.tell())

    monkeypatch.setattr(scratch, "file_system", lambda _: kind)
    monkeypatch.setattr(scratch.os, "sync", lambda: made.append("what others wrote is synced"))
    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", watched)
    warm(tmp_path, 2_000_000)
    assert made == done
    assert list(tmp_path.iterdir()) == []


def test_the_rows_have_names_of_their_own(tmp_path: Path) -> None:
    names = [row.name for row in chosen_rows(Settings(tmp_path), [])]
    assert len(names) == len(set(names))


def test_rows_are_chosen_by_a_beginning_or_a_pattern(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert [row.name for row in chosen_rows(settings, ["echo"])] == ["echo-server", "echo-client"]
    assert [row.name for row in chosen_rows(settings, ["*8k"])] == ["receive-8k"]
    with pytest.raises(ValueError, match="no row is called nothing"):
        chosen_rows(settings, ["nothing"])


def contestant(name: str, party: str, values: list[float], order: list[str]) -> Contestant:
    """One that gives these values, turn by turn, and fails after the last."""
    remaining = iter(values)

    def run() -> Sample:
        order.append(name)
        value = next(remaining, None)
        if value is None:
            raise Failed("out of breath")
        return Sample(value, 1000, 2.0, 0.5, 0.25)

    @contextmanager
    def ready() -> Iterator[partial[Sample]]:
        yield partial(run)

    return Contestant(name, party, ready)


def results(marks: list[Mark], ours: list[float], theirs: list[float]) -> dict[str, object]:
    order: list[str] = []
    contestants = [
        contestant("a", OURS, ours, order),
        contestant("b", DCMTK, theirs, order),
        Contestant("c", DCMTK, partial(pytest.fail, "started"), lambda: "c is not installed"),
    ]
    row = measure(Row("row", "work", "a second", contestants, marks), runs=3)
    assert order[:4] == ["a", "b", "a", "b"]
    return {"machine": {"processor": "x"}, "runs": 3, "rows": [row]}


def test_the_table_gives_ratios_of_medians_and_says_what_is_reached() -> None:
    shown = table.markdown(results([Mark(0.7, DCMTK)], [90.0, 80.0, 10.0], [100.0, 90.0, 110.0]))
    line = next(line for line in shown.splitlines() if "b: " in line)
    assert "| a: 80.0 (10.0–90.0) | b: 100 (90.0–110) | 0.80 | 0.7 |" in line
    assert "500 µs + 250 µs" in line
    assert "processor: x" in shown


def test_the_table_marks_what_is_not_reached() -> None:
    shown = table.markdown(results([Mark(0.9, DCMTK)], [80.0] * 3, [100.0] * 3))
    assert "| 0.80 | 0.9, **not reached** |" in shown


def test_a_mark_of_one_contestant_goes_before_that_of_all() -> None:
    marks = [Mark(0.7, DCMTK, of="a"), Mark(0.9, DCMTK), Mark(2, DCMTK, of="another")]
    shown = table.markdown(results(marks, [80.0] * 3, [100.0] * 3))
    assert "| 0.80 | 0.7 |" in shown


def test_the_table_marks_a_bound_of_ours_alone() -> None:
    shown = table.markdown(results([Mark(64.0)], [70.0] * 3, [1.0] * 3))
    assert "| b: 1.0 (1.0–1.0) |  | at most 64, **not reached** |" in shown


def test_the_chart_has_a_bar_for_each_ratio_and_a_tick_for_its_mark() -> None:
    shown = ElementTree.fromstring(
        chart.svg(results([Mark(0.9, DCMTK)], [50.0] * 3, [100.0] * 3))  # type: ignore[arg-type]
    )
    texts = [one.text for one in shown.iter("{http://www.w3.org/2000/svg}text")]
    assert {"work: a to b", "0.50", "not reached yet"} <= set(texts)
    (bar,) = [
        one
        for one in shown.iter("{http://www.w3.org/2000/svg}rect")
        if one.get("fill") == chart._MISSED and one.get("height") != "12"
    ]
    from_level, to_level = chart._at(0.5), chart._at(1)
    assert float(bar.get("x", 0)) == pytest.approx(from_level, abs=0.1)
    assert float(bar.get("width", 0)) == pytest.approx(to_level - from_level, abs=0.1)


def test_one_that_is_missing_or_fails_keeps_its_place_with_a_note() -> None:
    row = results([], [80.0] * 3, [100.0])["rows"][0]  # type: ignore[index]
    assert [one["failures"] for one in row["contestants"]] == [0, 2, 0]
    assert [one.get("note") for one in row["contestants"]] == [
        None,
        "out of breath",
        "c is not installed",
    ]
    text = table.terminal(row)
    assert "c is not installed" in text
    assert "2 turn(s) failed: out of breath" in text


def test_a_note_of_a_sample_stands_beside_its_figure() -> None:
    @contextmanager
    def ready() -> Iterator[partial[Sample]]:
        yield partial(Sample, 5.0, 10, 2.0, 0.5, 0.25, note="p99 3 ms")

    row = measure(Row("row", "work", "a second", [Contestant("a", OURS, ready)]), runs=3)
    assert row["contestants"][0]["failures"] == 0
    assert "; p99 3 ms" in table.terminal(row)
    with_peer = {**row, "contestants": [*row["contestants"], {"name": "b", "party": DCMTK}]}
    shown = table.markdown({"machine": {}, "runs": 3, "rows": [with_peer]})
    assert "a: 5.0 (5.0–5.0); p99 3 ms |" in shown


def test_senders_wait_until_all_have_an_association_and_store_at_once() -> None:
    with raw.scripted(raw.accepting()) as server:
        with senders.senders(server.port, Shape(8192), [batch(2) for _ in range(8)]) as pipes:
            assert len(pipes) == 8
            for pipe in pipes:
                pipe.send(None)
            assert all(senders.said(pipe) > 0 for pipe in pipes)
        wait_until(lambda: len(server.results) == 8)
    stored = [message.instance for came in server.results for message in came]
    assert len(set(stored)) == 16


def test_a_start_is_measured_from_first_to_last(tmp_path: Path) -> None:
    rows = {row.name: row for row in chosen_rows(Settings(tmp_path), ["start"], ["pynetdicom"])}
    assert sorted(rows) == ["start-echo", "start-help", "start-server"]
    for name, row in rows.items():
        result = measure(row, runs=1)
        (ours,) = [one for one in result["contestants"] if one["party"] == OURS]
        assert "note" not in ours, f"{name}: {ours}"
        assert 10 < ours["median"] < 60_000


@pytest.mark.parametrize(("studies", "wanted"), [(400, 300), (10_000, 1_000)])
def test_a_range_of_days_has_the_wanted_number_of_studies(studies: int, wanted: int) -> None:
    first, last = archive._days_of(studies, wanted).split("-")
    assert sum(first <= archive._day(study) <= last for study in range(studies)) == wanted


def test_an_archive_is_filled_once_and_asked_for_many_answers(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    folder = archive.filled(our_archive(), settings, 200)
    (folder / "mark").touch()
    assert archive.filled(our_archive(), settings, 200) == folder
    assert (folder / "mark").exists()
    asked = question({STUDY_DATE: archive._days_of(20, 7)})
    with serving(our_archive(), folder) as server:
        assert archive._ask_for_many(server, asked, 7).work == 7 * archive.ASKED_FOR_MANY
        with pytest.raises(Failed, match="7 answers instead of 8"):
            archive._ask_for_many(server, asked, 8)


@pytest.mark.interop
def test_what_archives_move_is_measured_at_the_destination(tmp_path: Path) -> None:
    (row,) = chosen_rows(Settings(tmp_path, fetched=3), ["move"])
    for contestant in row.contestants:
        if missing := contestant.missing():
            peers.absent(contestant.party, f"cannot take part: {missing}")
    result = measure(row, runs=1)
    for one in result["contestants"]:
        assert "note" not in one, one
        assert one["samples"][0]["work"] == 3


def test_a_disk_stalls_for_instances_without_a_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(os, "fsync", os.fsync)  # to be put back
    monkeypatch.setattr(stalling.time, "sleep", slept.append)
    stalling.stall("fsync", 7.0)
    for name, expected in (("1.dcm", []), ("1.part", [7.0])):
        with (tmp_path / name).open("wb") as file:
            os.fsync(file.fileno())
        assert slept == expected


def test_a_turn_is_what_is_done_between_two_waits_for_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"cpu": 5.0, "wall": 50.0}
    monkeypatch.setattr(turning, "thread_time", lambda: now["cpu"])
    monkeypatch.setattr(turning, "perf_counter", lambda: now["wall"])

    def passes(cpu: float, wall: float) -> None:
        now["cpu"] += cpu
        now["wall"] += wall

    class Epoll:
        def poll(self, seconds: float) -> list[object]:
            passes(0, seconds)
            return []

    poller = turning.Poller(Epoll())
    passes(1, 1)  # the start is no turn
    for cpu, wall in ((0.5, 1.0), (0.25, 0.5), (0.75, 0.75)):
        poller.poll(10)
        passes(cpu, wall)
    poller.poll(10)
    turning._write(poller, str(tmp_path / "turns"))
    turns = turning.taken(tmp_path / "turns")
    assert (turns.cpu, turns.wall) == ([0.25, 0.5, 0.75], [0.5, 0.75, 1.0])
    assert "CPU 500.00, 750.00, 750.00 ms" in turns.summary()
    poller.forget()
    assert poller.cpu == []


def test_the_turns_of_a_server_are_measured(tmp_path: Path) -> None:
    (row,) = chosen_rows(Settings(tmp_path), ["turns-contexts"])
    (ours,) = measure(row, runs=1)["contestants"]
    assert "note" not in ours, ours
    assert 0 < ours["median"] < 60_000


def curve_of(figures: dict[int, list[float]]) -> dict[str, object]:
    """A results file of one curve, with what was measured at each point."""
    order: list[str] = []
    rows = [
        Row(
            f"curve-{at}", "work", "a second",
            [contestant("a", OURS, values, order), contestant("b", DCMTK, [], order)],
            point=Point("Rate of <work>", "workers", at),
        )
        for at, values in figures.items()
    ]  # fmt: skip
    return {"machine": {}, "runs": 3, "rows": [measure(row, runs=3) for row in rows]}


def test_a_curve_has_the_median_of_each_point_between_its_extremes() -> None:
    (curve,) = lines.curves_of(curve_of({1: [10.0, 30.0, 20.0], 100: [70.0, 80.0, 90.0]}))
    assert (curve.title, curve.axis, curve.places) == ("Rate of <work>", "workers", [1, 100])
    assert curve.lines == {"a": [(1, 10.0, 20.0, 30.0), (100, 70.0, 80.0, 90.0)]}
    assert curve.most == 100


def test_the_lines_of_a_chart_are_where_the_figures_are() -> None:
    results = curve_of({1: [10.0] * 3, 10: [50.0] * 3, 100: [100.0] * 3})
    shown = ElementTree.fromstring(lines.svg(results))
    (line,) = shown.iter("{http://www.w3.org/2000/svg}polyline")
    spots = [tuple(map(float, spot.split(","))) for spot in line.get("points", "").split()]
    (first, middle, last) = spots
    assert middle[0] - first[0] == pytest.approx(last[0] - middle[0], abs=0.2)
    top, floor = lines._TOP, lines._TOP + lines._HEIGHT
    heights = [(floor - y) / (floor - top) for _, y in spots]
    assert heights == pytest.approx([0.1, 0.5, 1.0], abs=0.01)
    texts = {one.text for one in shown.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Rate of <work>", "workers", "a", "1", "10", "100"} <= texts
    assert "prefers-color-scheme:dark" in lines.svg(results)


@pytest.mark.parametrize(
    ("largest", "most"), [(0.7, 1), (1, 1), (1.2, 2), (4.9, 5), (5.1, 10), (13, 20), (7800, 10000)]
)
def test_a_panel_ends_at_a_round_figure(largest: float, most: float) -> None:
    curve = lines.Curve("title", "axis", {"a": [(1, 0.0, 0.0, largest)]})
    assert curve.most == pytest.approx(most)


def test_curves_are_measured_when_they_are_named(tmp_path: Path) -> None:
    settings = Settings(tmp_path)
    assert not [row for row in chosen_rows(settings, []) if row.point]
    rows = chosen_rows(settings, ["curves"])
    assert [row.point and row.point.at for row in rows] == [
        1, 8, 64, 256, 1_000, 10_000, 100_000, 10, 100, 1_000, 2_000,
    ]  # fmt: skip
    assert all(row.point for row in rows)


def test_a_number_of_senders_store_at_once() -> None:
    """Of a curve's point: all instances between them, and each sender its part."""
    with raw.scripted(raw.accepting()) as server:
        with senders.senders(server.port, Shape(8192), [batch(2) for _ in range(3)]) as pipes:
            assert len(pipes) == 3
            for pipe in pipes:
                pipe.send(None)
            assert all(senders.said(pipe) > 0 for pipe in pipes)
        wait_until(lambda: len(server.results) == 3)


REACTOR = "run (twisted/internet/base.py:686);ReactorBase.mainLoop (twisted/internet/base.py:697)"


def test_a_profile_says_whose_code_the_time_was(tmp_path: Path) -> None:
    """Of what the reactor's thread does, waiting and other threads left out."""
    seen = {
        f"{REACTOR};EPollReactor.doPoll (twisted/internet/epollreactor.py:200)": 900,
        "ThreadWorker.work (twisted/_threads/_threadworker.py:46)": 900,
        f"{REACTOR};Connection.doRead (twisted/internet/tcp.py:280)": 30,
        f"{REACTOR};PartialFile.write (twisted_dimse/services/partial.py:60)": 20,
        f"{REACTOR};ReactorBase.runUntilCurrent (twisted/internet/base.py:990)": 10,
        f"{REACTOR};decode (twisted_dimse/dimse/command.py:180)": 5,
        f"{REACTOR};Query.one (/venv/sqlalchemy/orm/query.py:18)": 15,
        f"{REACTOR};notify (threading.py:38)": 20,
    }
    lines = "".join(f"{stack} {count}\n" for stack, count in seen.items())
    (tmp_path / "dimse-scp.17.raw").write_text(lines)
    (tmp_path / "nothing.18.raw").write_text("")
    heads, _, row = (line.strip("| ").split(" | ") for line in markdown(tmp_path).splitlines())
    found = {head: cell for head, cell in zip(heads, row, strict=True) if cell.strip()}
    assert found == {
        "program": "dimse-scp", "sockets": "30", "files": "20", "Twisted": "10", "commands": "5",
        "SQLAlchemy": "15", "Python": "20",
    }  # fmt: skip
