"""Queries at an archive by findscu and pynetdicom, in the character sets of PS3.3 C.12.1.1.2. What
should be found is said by plain Python over the names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Server, dcmtk, dimse, run, serving
from pydicom import Dataset, dcmread
from pydicom.charset import python_encoding
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

pytestmark = pytest.mark.interop

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
UTF_8 = "ISO_IR 192"
GB_2312 = "\\ISO 2022 IR 58"

# Latin alphabet No. 9, which pydicom does not know yet.
python_encoding.setdefault("ISO_IR 203", "iso8859_15")

#: Name of the row, Specific Character Set, and a patient's name that can be written in it.
NAMES: list[tuple[str, Any, str]] = [
    ("ascii", None, "Doe^Jane^^Dr"),
    ("latin-1", "ISO_IR 100", "Müller^Jörg"),
    ("latin-1-composed", "ISO_IR 100", "Åström^Zoë"),
    ("latin-2", "ISO_IR 101", "Wałęsa^Łucja"),
    ("latin-3", "ISO_IR 109", "Ĝangalo^Ŝipo"),
    ("latin-4", "ISO_IR 110", "Kalniņš^Jānis"),
    ("cyrillic", "ISO_IR 144", "Люкceмбypг^Борис"),
    ("arabic", "ISO_IR 127", "قباني^لنزار"),
    ("greek", "ISO_IR 126", "Διονυσιος^Νικος"),
    ("hebrew", "ISO_IR 138", "שרון^דבורה"),
    ("latin-5", "ISO_IR 148", "Çavuşoğlu^Işık"),
    ("latin-9", "ISO_IR 203", "Œuvrard^Žofie"),
    ("thai", "ISO_IR 166", "นามสกุล^ชื่อ"),
    ("japanese", "\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("japanese-katakana", "ISO_IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ｼﾞﾛｳ=山田^次郎=やまだ^じろう"),
    ("japanese-supplement", "\\ISO 2022 IR 159", "Tsuji^Go=丂丄^侔"),
    ("korean", "\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    ("chinese-2022", GB_2312, "Zhang^XiaoDong=张^小东"),
    ("greek-and-latin", "ISO 2022 IR 100\\ISO 2022 IR 126", "Dionysios^É=Διονυσιος^Ω"),
    ("gb18030", "GB18030", "Wang^XiaoDong=王^小东"),
    ("gbk", "GBK", "Li^XiaoMing=李^小明"),
    ("utf-8", UTF_8, "Ωmega^Ætna=山本^花子=やまもと^はなこ"),
]
ROWS = {row[0]: row for row in NAMES}


def charset(text: Any) -> Any:
    return text.split("\\") if text and "\\" in text else text


def instance(number: int, character_set: Any, name: str) -> FileDataset:
    meta = FileMetaDataset()
    study = f"1.2.826.0.1.3680043.8.498.9.{number}"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, f"{study}.1.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = CT, f"{study}.1.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = study, f"{study}.1"
    if character_set:
        made.SpecificCharacterSet = charset(character_set)
    made.PatientName, made.PatientID = name, f"P{number}"
    made.StudyDescription = description(name)
    made.Modality, made.StudyDate = "CT", "20240101"
    return made


def description(name: str) -> str:
    return name.split("=")[-1].split("^")[0]


def write(path: Path, number: int, character_set: Any, name: str) -> None:
    """A file with a name, whose octets we work out where pydicom writes them without escapes."""
    if character_set != GB_2312:
        instance(number, character_set, name).save_as(path)
        assert str(dcmread(path).PatientName) == name
        return
    octets = [in_gb_2312(text) for text in (name, description(name))]
    made = instance(number, None, "N" * len(octets[0]))
    made.StudyDescription = "D" * len(octets[1])
    made.SpecificCharacterSet = charset(character_set)
    made.save_as(path)
    written = path.read_bytes()
    for letter, part in zip((b"N", b"D"), octets, strict=True):
        assert written.count(letter * len(part)) == 1
        written = written.replace(letter * len(part), part)
    path.write_bytes(written)


def in_gb_2312(text: str) -> bytes:
    """As PS3.5 K.3 has it: the escape before the characters of each component."""
    parts = re.split("([=^])", text)
    escaped = (b"" if part.isascii() else b"\x1b$)A" for part in parts)
    octets = b"".join(e + part.encode("gb2312") for e, part in zip(escaped, parts, strict=True))
    return octets + b" " * (len(octets) % 2)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("names")
    for number, (_, character_set, name) in enumerate(NAMES):
        write(folder / str(number), number, character_set, name)
    with serving() as server:
        dimse("store", server.peer, folder).succeeded()
        yield server


Condition = Callable[[str], bool]


def same(one: str, other: str) -> bool:
    return plain(one) == plain(other)


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().rstrip("^")


def in_a_group(condition: Condition) -> Condition:
    return lambda name: any(condition(plain(group)) for group in name.split("=") if group)


def expected(condition: Condition) -> set[str]:
    return {name for _, _, name in NAMES if condition(name)}


def queries(name: str) -> list[tuple[str, Condition]]:
    """Ways to ask for a name, and which names each of them means."""
    groups = name.split("=")
    family = groups[-1].split("^")[0]
    start, rest = plain(family[0]), plain(family[1:])
    asked: list[tuple[str, Condition]] = [
        (f"{family}*", in_a_group(lambda group: group.startswith(plain(family)))),
        (f"{family[0]}*", in_a_group(lambda group: group.startswith(start))),
        (f"?{family[1:]}^*", in_a_group(lambda group: group[1:].startswith(f"{rest}^"))),
        (groups[-1], in_a_group(lambda group: group == plain(groups[-1]))),
        (groups[0].upper(), in_a_group(lambda group: group == plain(groups[0].upper()))),
        (f"*{groups[-1][-1]}", in_a_group(lambda group: group.endswith(plain(groups[-1][-1])))),
    ]
    if len(groups) > 1:
        second = plain(groups[1])
        asked.append(
            (
                f"={groups[1]}",
                lambda name: "=" in name and plain(name.split("=")[1]) == second,
            )
        )
    return asked


def identifier(name: str, character_set: Any) -> Dataset:
    keys = Dataset()
    if character_set:
        keys.SpecificCharacterSet = charset(character_set)
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientName, keys.PatientID, keys.StudyInstanceUID = name, "", ""
    keys.StudyDescription = ""
    return keys


@pytest.mark.parametrize("row", ROWS)
def test_pynetdicom_asks_in_each_character_set_and_reads_the_answers(
    archive: Server, row: str
) -> None:
    _, character_set, name = ROWS[row]
    node = AE()
    node.add_requested_context(FIND)
    association = node.associate("127.0.0.1", archive.port)
    for asked, condition in queries(name):
        for said in {character_set if character_set != GB_2312 else UTF_8, UTF_8}:
            answers = list(association.send_c_find(identifier(asked, said), FIND))
            statuses = [status.Status for status, _ in answers]
            assert statuses == [0xFF00] * (len(answers) - 1) + [0]
            found = [dataset for _, dataset in answers if dataset is not None]
            assert {str(each.PatientName) for each in found} == expected(condition), (asked, said)
            for each in found:
                assert each.StudyDescription == description(str(each.PatientName))
    association.release()


@pytest.mark.parametrize("row", ROWS)
def test_findscu_asks_in_each_character_set_and_reads_the_answers(
    archive: Server, tmp_path: Path, row: str
) -> None:
    _, character_set, name = ROWS[row]
    if character_set == GB_2312:
        character_set = "GB18030"
    family = description(name)
    keys = tmp_path / "keys"
    identifier(f"{family}*", character_set).save_as(
        keys, implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    folder = tmp_path / "found"
    folder.mkdir()
    run(
        dcmtk("findscu"), "-S", "-X", "-od", folder, "-aec", "X", "127.0.0.1", archive.port, keys
    ).succeeded()  # fmt: skip
    found = {str(dcmread(path, force=True).PatientName) for path in folder.iterdir()}
    assert found == expected(in_a_group(lambda group: group.startswith(plain(family))))
    assert name in found


def test_dimse_find_reads_them_all(archive: Server) -> None:
    import json

    done = dimse("find", archive.peer, "-L", "STUDY", "-k", "PatientName", "--json").succeeded()
    found = [json.loads(line)["00100010"]["Value"][0] for line in done.out.splitlines()]
    names = {"=".join(each.values()) for each in found if len(each) > 1}
    assert names == {name for _, _, name in NAMES if "=" in name}
    assert {each["Alphabetic"] for each in found if len(each) == 1} == {
        name for _, _, name in NAMES if "=" not in name
    }
