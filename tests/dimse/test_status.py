"""Statuses against ``statuses.json``: the category of every code, and what each means where."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import pytest
from facts import facts

from twisted_dimse.dimse import status
from twisted_dimse.dimse.command import ELEMENTS
from twisted_dimse.dimse.status import Category, category, meaning, related_elements
from twisted_dimse.dimse.status_tables import TABLES

FACTS = facts("statuses")
KEYWORDS = {keyword for _element, keyword, _vr in ELEMENTS}


def code(text: str) -> int:
    return int(text, 16)


def code_id(row: Any) -> str:
    return str(row["code_hex"])


# --- categories


def by_convention(value: int) -> str:
    """The category that the standard's list of ranges gives; failure for what it lacks."""
    text = f"{value:04X}"
    for row in FACTS["class_convention"]:
        if row["first"] <= text <= row["last"] and text not in row.get("except", ()):
            return str(row["category"])
    return "failure"


def test_each_of_the_65536_codes_has_the_category_of_the_convention() -> None:
    wrong = [value for value in range(0x10000) if category(value) != by_convention(value)]
    assert wrong == []


def test_a_category_is_its_name() -> None:
    assert category(0xB000) is Category.WARNING
    assert category(0xB000) == "warning"
    assert f"{category(0xFF00)}" == "pending"


# --- general statuses


@pytest.mark.parametrize("row", FACTS["general"], ids=code_id)
def test_a_general_status_has_its_category_and_meaning(row: Any) -> None:
    assert code(row["code_hex"]) == row["code"]
    assert category(row["code"]) == row["category"]
    assert meaning(row["code"]) == row["meaning"]


@pytest.mark.parametrize("row", FACTS["general"], ids=code_id)
def test_a_general_status_has_its_related_elements(row: Any) -> None:
    expected = [
        "DataSet" if element.startswith("(data set") else element
        for element in row["optional_elements"]
    ]
    assert list(related_elements(row["code"])) == expected


GENERAL_BY_SERVICE = [
    pytest.param(service, text, id=f"{service}-{text}")
    for service, codes in FACTS["general_by_service"].items()
    if service != "reference"
    for text in codes
]


@pytest.mark.parametrize(("service", "text"), GENERAL_BY_SERVICE)
def test_a_general_status_means_the_same_in_every_service(service: str, text: str) -> None:
    [row] = [row for row in FACTS["general"] if row["code_hex"] == text]
    assert meaning(code(text), service) == row["meaning"]
    assert meaning(code(text), f"{service}-RSP") == row["meaning"]


NAMED = {
    name: value
    for name, value in vars(status).items()
    if name.isupper() and not name.startswith("_") and isinstance(value, int)
}


@pytest.mark.parametrize("row", FACTS["general"], ids=code_id)
def test_each_general_status_has_a_name(row: Any) -> None:
    assert row["code"] in NAMED.values()


def test_each_name_is_of_a_code_that_the_standard_has() -> None:
    known = {row["code"] for row in FACTS["general"]}
    known |= {
        code(entry["first"]) for table in FACTS["service_classes"] for entry in table["statuses"]
    }
    assert set(NAMED.values()) <= known


# --- the tables of the service classes


def messages_of(table: dict[str, Any]) -> list[str]:
    text = str(table["message"])
    return [text] if "(" in text else text.split(", ")


ROWS = [
    pytest.param(
        table,
        message,
        entry,
        id=f"{table['service_class']}-{message}-{entry['first']}".replace(" ", "_"),
    )
    for table in FACTS["service_classes"]
    for message in messages_of(table)
    for entry in table["statuses"]
]


def codes_of(entry: dict[str, Any]) -> list[int]:
    """The ends of a range and something between."""
    first, last = code(entry["first"]), code(entry["last"])
    return sorted({first, (first + last) // 2, last})


@pytest.mark.parametrize(("table", "message", "entry"), ROWS)
def test_a_code_of_a_service_class_has_its_category(table: Any, message: str, entry: Any) -> None:
    assert {category(value) for value in codes_of(entry)} == {entry["category"]}


@pytest.mark.parametrize(("table", "message", "entry"), ROWS)
def test_a_code_of_a_service_class_has_its_meaning(table: Any, message: str, entry: Any) -> None:
    for value in codes_of(entry):
        found = meaning(value, message, table["service_class"])
        narrower = [
            other["meaning"]
            for other in table["statuses"]
            if other is not entry and code(other["first"]) <= value <= code(other["last"])
        ]
        assert found in [entry["meaning"], *narrower]
        assert narrower == []


@pytest.mark.parametrize(("table", "message", "entry"), ROWS)
def test_a_code_of_a_service_class_has_its_related_elements(
    table: Any, message: str, entry: Any
) -> None:
    general = related_elements(code(entry["first"]))
    for value in codes_of(entry):
        found = related_elements(value, message, table["service_class"])
        assert list(found) == entry.get("related", list(general))


def test_the_tables_are_those_of_the_standard_in_their_order() -> None:
    found = [(table.service_class, list(table.messages)) for table in TABLES]
    assert found == [
        (table["service_class"], messages_of(table)) for table in FACTS["service_classes"]
    ]
    assert [len(table.rows) for table in TABLES] == [
        len(table["statuses"]) for table in FACTS["service_classes"]
    ]


def test_what_is_related_is_an_element_of_a_command_set_or_a_data_set() -> None:
    for table in TABLES:
        for row in table.rows:
            assert set(row.related) <= KEYWORDS | {"Identifier"}


# --- meanings where less is known


@pytest.mark.parametrize(
    ("value", "message", "expected"),
    [
        (0xB000, "C-STORE", "Data elements coerced"),
        (0xB000, "C-STORE-RSP", "Data elements coerced"),
        (0xB000, "C-MOVE", "Sub-operations complete, one or more failed (or gave a warning)"),
        (0xA700, "C-STORE", "Refused, out of resources"),
        (0xA7FF, "C-STORE", "Refused, out of resources"),
        (0xA701, "C-MOVE", "Refused, cannot calculate the number of matches"),
        (0xA801, "C-MOVE-RSP", "Refused, move destination unknown"),
        (0xC001, "C-FIND", "Unable to process"),
        (0xC001, "C-STORE", "Cannot understand"),
        (0xFF01, "C-FIND", "A match; some optional key not supported"),
        (0xB604, "N-ACTION", "Image larger than image box, demagnified"),
    ],
)
def test_a_message_alone_says_what_a_code_means_in_its_commonest_service(
    value: int, message: str, expected: str
) -> None:
    assert meaning(value, message) == expected


def test_n_get_is_not_taken_for_another_message_with_the_same_beginning() -> None:
    assert meaning(0xC310, "N-SET") == "Not IN PROGRESS"
    assert meaning(0xC310, "N-GET") == "failure as the service class defines it"


def test_which_action_a_message_belongs_to_may_be_said_in_parentheses() -> None:
    ups = "Unified Procedure Step"
    assert meaning(0, "N-ACTION-RSP (request cancel)", ups) == "Cancel request taken"
    assert meaning(0, "N-ACTION-RSP (change state)", ups) == "State changed"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0xA900, "Data set does not match SOP Class"),
        (0x0001, "Requested optional attributes not supported"),
        (0xB000, "warning as the service class defines it"),
        (0xC000, "failure as the service class defines it"),
        (0xFF00, "pending as the service class defines it"),
        (0x0300, "unknown, taken for a failure"),
        (0xFE01, "unknown, taken for a failure"),
        (0xFFFF, "unknown, taken for a failure"),
    ],
)
def test_without_a_message_a_code_says_only_what_it_says_everywhere(
    value: int, expected: str
) -> None:
    assert meaning(value) == expected


def test_an_unknown_service_class_does_no_harm() -> None:
    assert meaning(0xA700, "C-STORE", "Something new") == "Refused, out of resources"
    assert related_elements(0xA700, "C-STORE", "Something new") == ()


def test_every_code_means_something_in_every_message() -> None:
    for value, message in product(range(0, 0x10000, 37), (None, "C-STORE", "C-FIND", "N-ACTION")):
        assert meaning(value, message)
        assert set(related_elements(value, message)) <= KEYWORDS | {"Identifier", "DataSet"}


# --- cost


def test_the_tables_are_not_imported_before_somebody_asks_for_a_meaning() -> None:
    program = (
        "import sys; from twisted_dimse.dimse import status; status.category(0xB000);"
        "print([name for name in sys.modules"
        " if name.startswith(('twisted.', 'pydicom', 'twisted_dimse.dimse.status_tables'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
