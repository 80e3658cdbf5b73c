"""The index against an independent computation: SQL and predicate give what the predicate alone
gives over the data sets as pydicom reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from corpus import Image, images
from pydicom import Dataset
from sqlalchemy.dialects import sqlite

from twisted_dimse.archive import matching, schema
from twisted_dimse.archive.answering import merged
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.header import (
    KEPT,
    SERIES_UID,
    STUDY_UID,
    InstanceHeader,
    Level,
    Unindexable,
)
from twisted_dimse.archive.index import Index, IndexUnusable
from twisted_dimse.archive.rows import Replaced
from twisted_dimse.datastream import decode_dataset
from twisted_dimse.services.identifiers import check_retrieve
from twisted_dimse.services.matching import matcher
from twisted_dimse.services.values import in_unicode, texts
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, PATIENT_ROOT, STUDY_ROOT

UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


@pytest.fixture(scope="module")
def headers() -> list[InstanceHeader]:
    """The headers of all files that can be indexed, one for each SOP Instance UID."""
    found: dict[str, InstanceHeader] = {}
    for image in images():
        try:
            header = InstanceHeader.read(str(image.path))
        except Unindexable:
            continue
        found.setdefault(header.sop_instance_uid, header)
    assert len(found) > 100
    return list(found.values())


@pytest.fixture(scope="module")
def index(headers: list[InstanceHeader], new_database: Callable[[], str]) -> Iterator[Index]:
    index = Index.open(new_database())
    index.add(headers)
    yield index
    index.close()


@pytest.fixture(scope="module")
def datasets(headers: list[InstanceHeader]) -> list[Dataset]:
    return [pydicom.dcmread(header.path, force=True) for header in headers]


def keys_of(**values: str) -> Dataset:
    keys = Dataset()
    for keyword, value in values.items():
        setattr(keys, keyword, value)
    return keys


def entities(index: Index, keys: Dataset, level: Level) -> list[Dataset]:
    """What the archive finds: narrowed by SQL, decided by the predicate."""
    matches = matcher(keys)
    found = []
    for row in index.fetch(matching.entities(keys, level, {})):
        entity = merged(row)
        if matches(entity):
            found.append(entity)
    return found


QUERIES: list[tuple[Level, dict[str, str]]] = [
    (Level.PATIENT, {}),
    (Level.PATIENT, {"PatientID": "12345678"}),
    (Level.PATIENT, {"PatientName": "CompressedSamples^*"}),
    (Level.PATIENT, {"PatientName": "compressedsamples^ct1"}),
    (Level.PATIENT, {"PatientName": "*^*"}),
    (Level.PATIENT, {"PatientName": "山田*"}),
    (Level.PATIENT, {"PatientName": "?i*"}),
    (Level.STUDY, {}),
    (Level.STUDY, {"StudyDate": "20040101-20041231"}),
    (Level.STUDY, {"StudyDate": "-20000101"}),
    (Level.STUDY, {"StudyDate": "20100101-"}),
    (Level.STUDY, {"StudyDate": "20040119"}),
    (Level.STUDY, {"StudyDate": "20040101-", "StudyTime": "070000-120000"}),
    (Level.STUDY, {"AccessionNumber": "1*"}),
    (Level.STUDY, {"PatientName": "Citizen*", "StudyDate": "19900101-20201231"}),
    (Level.STUDY, {"StudyDescription": "*a*"}),
    (Level.SERIES, {}),
    (Level.SERIES, {"Modality": "CT"}),
    (Level.SERIES, {"Modality": "?R", "PatientID": "*"}),
    (Level.SERIES, {"SeriesNumber": "1"}),
    (Level.IMAGE, {}),
    (Level.IMAGE, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}),
    (Level.IMAGE, {"InstanceNumber": "1", "Modality": "MR"}),
    (Level.IMAGE, {"SOPInstanceUID": "1.2.3.no-such"}),
]


@pytest.mark.parametrize(
    ("level", "values"), QUERIES, ids=lambda part: str(part) if isinstance(part, dict) else part
)
def test_a_query_finds_what_the_predicate_finds_over_the_data_sets(
    index: Index, datasets: list[Dataset], level: Level, values: dict[str, str]
) -> None:
    keys = keys_of(**values)
    tag = pydicom.datadict.tag_for_keyword(UNIQUE[level])
    matches = matcher(keys)
    expected = [_unique(dataset, tag) for dataset in datasets if matches(dataset)]
    found = [_unique(entity, tag) for entity in entities(index, keys, level)]
    assert set(found) == set(expected)
    if level is Level.IMAGE:  # every data set is one
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    "values",
    [{"PatientID": "P1"}, {"PatientName": "Doe*"}, {"PatientName": "=山田*"},
     {"StudyDate": "20240101-20240103"}, {"AccessionNumber": "A1"}, {"StudyInstanceUID": "1.2"}],
    ids="-".join,
)  # fmt: skip
def test_a_query_goes_by_an_index_and_over_no_table(
    headers: list[InstanceHeader], tmp_path: Path, values: dict[str, str]
) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    index.add(headers)
    statement = matching.entities(keys_of(**values), Level.STUDY, {})
    written = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    steps = [row[3] for row in index.fetch(sa.text(f"EXPLAIN QUERY PLAN {written}"))]
    assert not [step for step in steps if step.startswith("SCAN")], steps
    assert not [step for step in steps if "name_3=?" in step], steps  # which nearly all have
    index.close()


@pytest.mark.parametrize(("level", "keyword"), UNIQUE.items())
def test_a_retrieval_means_the_instances_that_have_its_unique_key(
    index: Index, datasets: list[Dataset], level: Level, keyword: str
) -> None:
    instances: dict[str, set[str]] = {}
    for dataset in datasets:
        if value := str(dataset.get(keyword, "")):
            instances.setdefault(value, set()).add(dataset.SOPInstanceUID)
    for value, expected in list(instances.items())[:30]:
        keys = keys_of(QueryRetrieveLevel=level, **{keyword: value})
        asked = check_retrieve(keys, PATIENT_ROOT.move, relational=True)
        rows = [row for one in matching.instances(asked) for row in index.fetch(one)]
        assert {row.uid for row in rows} == expected


@pytest.mark.parametrize("asked", ["M\u00fc-7", "Mu\u0308-7"], ids=["composed", "decomposed"])
def test_text_is_found_however_its_letters_are_composed(
    headers: list[InstanceHeader], new_database: Callable[[], str], asked: str
) -> None:
    values = {tag: headers[0].values[tag] for tag in (STUDY_UID, SERIES_UID)}
    values |= {0x00080005: b"ISO_IR 192", 0x00100020: "Mu\u0308-7".encode()}
    index = Index.open(new_database())
    index.add([replace(headers[0], values=values)])
    assert len(entities(index, keys_of(PatientID=asked), Level.PATIENT)) == 1
    index.close()


def _unique(dataset: Dataset, tag: int) -> str:
    return next(iter(texts(dataset, tag)), "")


@pytest.mark.parametrize("level", Level, ids=str)
def test_the_index_keeps_of_each_level_what_pydicom_reads(
    headers: list[InstanceHeader], datasets: list[Dataset], level: Level
) -> None:
    for header, dataset in zip(headers, datasets, strict=True):
        kept = in_unicode(decode_dataset(header.dataset(level), EXPLICIT_VR_LITTLE_ENDIAN))
        for tag in KEPT[level]:
            found = tuple(text.rstrip("=") for text in texts(dataset, tag))
            assert texts(kept, tag) == found, (header.path, hex(tag))


def test_counts_are_those_of_the_data_sets(index: Index, datasets: list[Dataset]) -> None:
    tag = matching.NUMBER_OF_STUDY_RELATED_INSTANCES
    computed = {tag: matching.computed_attributes(Level.STUDY)[tag]()}
    expected: dict[str, int] = {}
    for dataset in datasets:
        expected[dataset.StudyInstanceUID] = expected.get(dataset.StudyInstanceUID, 0) + 1
    rows = index.fetch(matching.entities(Dataset(), Level.STUDY, computed))
    assert sorted(row[-1] for row in rows) == sorted(expected.values())


def test_the_modalities_of_a_study_are_its_own(index: Index, datasets: list[Dataset]) -> None:
    tag = matching.MODALITIES_IN_STUDY
    computed = {tag: matching.computed_attributes(Level.STUDY)[tag]()}
    expected: dict[str, set[str]] = {}
    for dataset in datasets:
        study = expected.setdefault(dataset.StudyInstanceUID, set())
        study.update([str(dataset.get("Modality") or "")] if dataset.get("Modality") else [])
    for row in index.fetch(matching.entities(Dataset(), Level.STUDY, computed)):
        study_uid = str(merged(row[:-1]).StudyInstanceUID)
        assert set((row[-1] or "").split("\\")) - {""} == expected[study_uid], study_uid


def test_an_instance_that_comes_again_elsewhere_is_there_once(
    headers: list[InstanceHeader], database: str, tmp_path: Path
) -> None:
    index = Index.open(database)
    first = headers[0]
    elsewhere = tmp_path / "elsewhere.dcm"
    shutil.copy(first.path, elsewhere)
    index.add([first])
    assert index.add([InstanceHeader.read(str(elsewhere))]) == [Replaced(first.path, first.inode)]
    assert index.count() == 1
    index.close()


@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1]], [[0], [1, 0, 1]]], ids=str)
def test_an_instance_that_comes_again_in_another_study_leaves_no_empty_one(
    headers: list[InstanceHeader], tmp_path: Path, batches: list[list[int]]
) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    first = replace(headers[0], path="first")
    moved = {
        tag: b"1.2.3" if tag in (STUDY_UID, SERIES_UID) else value
        for tag, value in first.values.items()
    }
    both = [first, replace(first, path="second", values=moved)]
    removed = [one.path for batch in batches for one in index.add([both[at] for at in batch])]
    assert set(removed) == {"first"}
    assert index.held([first.sop_instance_uid])[first.sop_instance_uid][1] == "second"
    for level in Level:
        assert len(index.fetch(matching.entities(Dataset(), level, {}))) == 1
    index.close()


def test_what_is_removed_leaves_no_empty_study_behind(
    headers: list[InstanceHeader], database: str
) -> None:
    index = Index.open(database)
    index.add(headers)
    index.remove([header.path for header in headers[1:]])
    for level in Level:
        assert len(index.fetch(matching.entities(Dataset(), level, {}))) == 1
    index.close()


def test_a_commitment_report_is_kept_until_it_is_delivered(database: str) -> None:
    index = Index.open(database)
    index.keep_report("1.2.3", "MODALITY", "first")
    index.keep_report("1.2.3", "MODALITY", "second")
    index.close()
    index = Index.open(database)
    assert index.kept_reports() == [("MODALITY", "second")]
    index.forget_report("1.2.3")
    assert index.kept_reports() == []
    index.close()


NONSENSE = {
    0x00100020: b"A\0B" * 3000,  # Patient ID
    0x00100010: b"N\0^" * 3000 + b"=\0" * 20,  # Patient's Name
    0x00080020: b"2004\0" + b"9" * 5000,  # Study Date
    0x00080050: b"\xff\0\xfe" * 2000,  # Accession Number
    0x00080060: b"C\0" * 5000,  # Modality
}


def test_values_that_no_sender_should_send_are_no_reason_not_to_be_found(
    headers: list[InstanceHeader], database: str
) -> None:
    index = Index.open(database)
    one = replace(headers[0], values={**headers[0].values, **NONSENSE})
    assert index.add([one, headers[1]]) == []
    keys = keys_of(StudyInstanceUID=one.study_uid)
    assert len(entities(index, keys, Level.IMAGE)) == 1
    index.close()


STRANGE_NAMES = ["\U0010ffff\U0010ffffA^B", "\ud7ffA", "\U0010ffff", "N" * 700 + "^A", "Doe^J"]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"PatientName": name[:length] + "*"}, 1)
        for name in STRANGE_NAMES[1::2]
        for length in (1, 600)
    ]
    + [
        ({"PatientName": "\U0010ffff*"}, 2),
        ({"PatientName": "\U0010ffff\U0010ffff*"}, 1),
        ({"PatientName": "N" * 700 + "^A"}, 1),
        ({"PatientName": "N" * 699 + "?^A"}, 1),
        ({"PatientName": [*(f"N{number}^*" for number in range(5000)), "Doe^J"]}, 1),
        ({"PatientID": [*(f"N{number}*" for number in range(5000)), "P4"]}, 1),
        ({"AccessionNumber": [*(f"N{number}*" for number in range(5000)), "A4"]}, 1),
        ({"StudyDate": ["20240101"] * 5000}, 5),
        ({"ModalitiesInStudy": [*(f"N{number}" for number in range(5000)), "CT"]}, 5),
        ({"StudyInstanceUID": [f"1.2.{number}" for number in range(70_000)]}, 5),
        ({"StudyInstanceUID": "1.2\0.3"}, 0),
        ({"StudyInstanceUID": ["1.2\0.3", "1.2.4"]}, 1),
        ({"PatientID": "P\0001"}, 0),
        ({"PatientName": "Doe\0^J*"}, 0),
        ({"ModalitiesInStudy": "C\0T"}, 0),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "backslashreplace").decode(),
)
def test_keys_that_nobody_should_send_are_answered_as_any_other(
    strange: Index, values: dict[str, Any], count: int
) -> None:
    keys = Dataset()
    keys.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values.items():
        setattr(keys, keyword, value)
    assert len(strange.fetch(matching.entities(keys, Level.STUDY, {}))) >= count
    if "ModalitiesInStudy" not in values:
        assert len(entities(strange, keys, Level.STUDY)) == count


@pytest.mark.parametrize("above", ["1.2.4", "1.2\0.4"])
def test_a_retrieval_by_keys_that_nobody_should_send_finds_what_there_is(
    strange: Index, above: str
) -> None:
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID = above
    keys.SeriesInstanceUID = ["1.2.4.1", "1.2\0.4.1", "1.2.4.1"]
    asked = check_retrieve(keys, STUDY_ROOT.move)
    found = [row.uid for one in matching.instances(asked) for row in strange.fetch(one)]
    assert found == (["1.2.4.1.1"] if above == "1.2.4" else [])


@pytest.fixture(scope="module")
def strange(headers: list[InstanceHeader], new_database: Callable[[], str]) -> Iterator[Index]:
    """An index of a study for each of the names."""
    index = Index.open(new_database())
    for number, name in enumerate(STRANGE_NAMES):
        values = {
            **headers[0].values,
            0x00080005: b"ISO_IR 192",
            0x00080020: b"20240101",
            0x00080050: f"A{number}".encode(),
            0x00080060: b"CT",
            0x00100010: name.encode(),
            0x00100020: f"P{number}".encode(),
            STUDY_UID: f"1.2.{number}".encode(),
            SERIES_UID: f"1.2.{number}.1".encode(),
        }
        index.add([replace(headers[0], sop_instance_uid=f"1.2.{number}.1.1", values=values)])
    yield index
    index.close()


def set_version(database: str, version: int) -> None:
    """Have a database say that it is of another version."""
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(schema.info.update().values(value=str(version)))
    engine.dispose()


def version_and_columns(database: str) -> tuple[str, set[str]]:
    """What a database says it is of, and the columns of its studies."""
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        version = connection.scalar(sa.select(schema.info.c.value))
    columns = {column["name"] for column in sa.inspect(engine).get_columns("studies")}
    engine.dispose()
    return str(version), columns


def test_a_newer_database_is_refused_in_words_and_left_alone(database: str) -> None:
    Index.open(database).close()
    set_version(database, 99)
    with pytest.raises(IndexUnusable, match="is of version 99, and this program knows those up to"):
        Index.open(database)
    assert version_and_columns(database)[0] == "99"


@pytest.mark.parametrize("name", ["a?b", "a%20b#c", "file:a", "a:b@c"])
def test_an_index_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    with ArchiveFolder(str(tmp_path / name)) as folder:
        assert folder.index.count() == 0
    assert (tmp_path / name / "index.sqlite").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_older_database_is_brought_up_to_date_step_by_step(
    headers: list[InstanceHeader], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.open(database)
    index.add(headers[:3])
    index.close()
    steps: list[int] = []

    def step(version: int, statement: str) -> Any:
        def migrate(connection: Any) -> None:
            steps.append(version)
            connection.execute(sa.text(statement))

        return migrate

    first, second, third = (schema.VERSION + number for number in (1, 2, 3))
    migrations = {
        first: step(first, "ALTER TABLE studies ADD COLUMN first TEXT"),
        second: step(second, "UPDATE studies SET first = 'known'"),
        third: step(third, "ALTER TABLE studies ADD COLUMN third TEXT"),
    }
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    for version in (first, third):
        monkeypatch.setattr(schema, "VERSION", version)
        index = Index.open(database)
        assert index.count() == 3
        index.close()
    assert steps == [first, second, third]
    version_now, columns = version_and_columns(database)
    assert version_now == str(third)
    assert {"first", "third"} <= columns


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index.open(database).close()
    before = version_and_columns(database)

    def fails(connection: Any) -> None:
        connection.execute(sa.text("ALTER TABLE studies ADD COLUMN more TEXT"))
        connection.execute(sa.text("UPDATE nowhere SET id = 1"))

    with monkeypatch.context() as patch:
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        patch.setattr(schema, "MIGRATIONS", {schema.VERSION: fails})
        with pytest.raises(IndexUnusable, match="nowhere"):
            Index.open(database)
    assert version_and_columns(database) == before
    Index.open(database).close()


def test_an_index_of_version_2_is_to_be_read_anew(database: str) -> None:
    Index.open(database).close()
    set_version(database, 2)
    engine = sa.create_engine(database)
    schema.unreadable.drop(engine)
    engine.dispose()
    index = Index.open(database)
    assert index.reading == ""
    index.note_unreadable(["a", "b"])
    index.note_unreadable(["b", "c"])
    index.forget_unreadable(["a", "c"])
    assert index.unreadable() == ["b"]
    index.reading = None
    index.close()
    assert version_and_columns(database)[0] == str(schema.VERSION)
    index = Index.open(database)
    assert index.reading is None
    index.close()


# --- instances that come again with other attributes


@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1]]], ids=str)
def test_what_is_corrected_and_stored_again_is_found_as_it_is_now(
    headers: list[InstanceHeader], database: str, batches: list[list[int]]
) -> None:
    """Whether all of a study comes at once or not; and as an index that is made again has it."""
    index = Index.open(database)
    wrong = in_series_of_one_uid(headers)[1:]
    right = [replace(one, values={**one.values, **CORRECTED}) for one in wrong]
    index.add(wrong)
    for batch in batches:
        index.add([right[number] for number in batch])
    for asked in ("add", "renew"):
        [patient] = entities(index, Dataset(), Level.PATIENT)
        assert (patient.PatientID, patient.PatientName) == ("NEW", "Right^Name")
        [study] = entities(index, keys_of(PatientID="NEW", StudyDate="20240102"), Level.STUDY)
        assert study.StudyInstanceUID == "1.2.9"
        assert len(entities(index, keys_of(Modality="PT"), Level.SERIES)) == 1
        getattr(index, asked)(right)
    index.close()


CORRECTED = {
    0x00080020: b"20240102",
    0x00080060: b"PT",
    0x00100010: b"Right^Name",
    0x00100020: b"NEW ",
}


def test_a_patient_whose_only_study_is_that_of_another_is_none(
    headers: list[InstanceHeader], database: str
) -> None:
    index = Index.open(database)
    first, second = in_series_of_one_uid(headers)[1:]
    index.add([first])
    index.add([replace(second, values={**second.values, **CORRECTED})])
    assert len(entities(index, Dataset(), Level.PATIENT)) == 1
    assert len(entities(index, keys_of(StudyInstanceUID="1.2.9"), Level.IMAGE)) == 2
    index.close()


# --- series of different studies with one UID


def in_series_of_one_uid(headers: list[InstanceHeader]) -> list[InstanceHeader]:
    """Three instances of two studies, whose series have the same UID."""
    found = []
    for number, study in enumerate(("1.2.3", "1.2.9", "1.2.9")):
        uids = {STUDY_UID: study.encode(), SERIES_UID: b"1.2.4"}
        uid = f"1.2.5.{number}"
        path = f"{study}/1.2.4/{uid}.dcm"
        values = {**headers[0].values, **uids}
        found.append(replace(headers[0], path=path, sop_instance_uid=uid, values=values))
    return found


def studies_of(index: Index) -> dict[str, str]:
    """The study in which each instance is."""
    joined = schema.instances.join(schema.series).join(schema.studies)
    columns = (schema.instances.c.uid, schema.studies.c.uid)
    return {row[0]: row[1] for row in index.fetch(sa.select(*columns).select_from(joined))}


def test_series_of_one_uid_in_two_studies_are_two(
    headers: list[InstanceHeader], database: str
) -> None:
    index = Index.open(database)
    first, *others = in_series_of_one_uid(headers)
    assert index.add([first]) == index.add(others) == index.renew([first, *others]) == []
    assert studies_of(index) == {"1.2.5.0": "1.2.3", "1.2.5.1": "1.2.9", "1.2.5.2": "1.2.9"}
    for study, count in (("1.2.3", 1), ("1.2.9", 2)):
        keys = keys_of(StudyInstanceUID=study, SeriesInstanceUID="1.2.4")
        assert len(entities(index, keys, Level.SERIES)) == 1
        assert len(entities(index, keys, Level.IMAGE)) == count
    moved = replace(others[0], sop_instance_uid="1.2.5.0")
    assert index.add([moved]) == [Replaced(first.path, first.inode)]
    assert len(entities(index, keys_of(StudyInstanceUID=""), Level.STUDY)) == 1
    index.close()


@pytest.mark.parametrize("mixed_up", [False, True])
def test_an_index_of_version_4_keeps_its_rows_and_is_read_anew_where_series_were_mixed_up(
    headers: list[InstanceHeader], database: str, mixed_up: bool
) -> None:
    first, *others = in_series_of_one_uid(headers)
    index = Index.open(database)
    index.add([first])
    index.close()
    make_version_4(database)
    if mixed_up:
        engine = sa.create_engine(database)
        with engine.begin() as connection:
            connection.execute(schema.instances.update().values(path=others[0].path))
        engine.dispose()
    index = Index.open(database)
    assert index.reading == ("" if mixed_up else None)
    assert studies_of(index) == {"1.2.5.0": "1.2.3"}
    index.add(others)
    assert len(set(studies_of(index).values())) == 2
    indexes = {one["name"] for one in sa.inspect(index._engine).get_indexes("series")}
    assert "series_study_modality" in indexes
    with pytest.raises(sa.exc.IntegrityError), index._engine.begin() as connection:
        connection.execute(schema.series.delete())  # which instances refer to
    index.close()


def make_version_4(database: str) -> None:
    """Have the UIDs of series be unique, as they were."""
    set_version(database, 4)
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            [key] = sa.inspect(connection).get_unique_constraints("series")
            statements = [
                f"ALTER TABLE series DROP CONSTRAINT {key['name']}",
                "ALTER TABLE series ADD UNIQUE (uid)",
            ]
        else:
            statements = [
                (
                    "CREATE TABLE other (id INTEGER NOT NULL PRIMARY KEY, study INTEGER NOT NULL,"
                    " uid VARCHAR(64) NOT NULL UNIQUE, modality TEXT NOT NULL,"
                    " header BLOB NOT NULL, FOREIGN KEY(study) REFERENCES studies (id))"
                ),
                "INSERT INTO other SELECT * FROM series",
                "DROP TABLE series",
                "ALTER TABLE other RENAME TO series",
                "CREATE INDEX series_study_modality ON series (study, modality)",
            ]
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_there_is_a_migration_to_each_version() -> None:
    assert sorted(schema.MIGRATIONS) == list(range(2, schema.VERSION + 1))


@pytest.mark.parametrize(
    "image", [image for image in images() if "no-study" in image.place()][:3], ids=lambda i: i.name
)
def test_a_file_without_study_and_series_has_no_place(image: Image) -> None:
    with pytest.raises(Unindexable):
        InstanceHeader.read(str(image.path))
