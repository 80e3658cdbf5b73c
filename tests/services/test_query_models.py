"""The information models as data, against the standard's tables, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from facts import facts
from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR

from twisted_dimse.services import query_models
from twisted_dimse.services.query_models import Key

ROWS = {row["model"]: row for row in facts("query_retrieve")["models"]}
LEVELS = [(name, level) for name, row in ROWS.items() for level in row.get("levels", ())]
MODELS = {model.name: model for model in query_models.MODELS}
KINDS = {"R": "required", "O": "optional", "-": "not matched"}


def as_the_standard_has_it(rows: Iterable[dict[str, Any]]) -> list[Any]:
    return sorted(
        [
            int(row["tag"], 16),
            row["keyword"],
            row["vr"],
            row["vm"],
            row.get("key") or KINDS[row["matching_key"]],
            row.get("return_type", ""),
            row.get("matching", []),
            as_the_standard_has_it(row.get("items", ())),
        ]
        for row in rows
    )


def as_we_have_it(keys: Iterable[Key]) -> list[Any]:
    return sorted(
        [
            key.tag,
            key.keyword,
            key.vr,
            key.vm,
            key.kind,
            key.return_type,
            [str(kind) for kind in key.matching],
            as_we_have_it(key.items),
        ]
        for key in keys
    )


@pytest.mark.parametrize(
    ("name", "row"), LEVELS, ids=[f"{name}-{row['level']}" for name, row in LEVELS]
)
def test_a_level_has_the_keys_of_its_table(name: str, row: dict[str, Any]) -> None:
    level = MODELS[name].level(row["level"])
    assert level is not None
    assert level.unique.keyword == row["unique_key"]
    required = [key.keyword for key in level.keys if key.kind == query_models.REQUIRED]
    assert sorted(required) == sorted(row["required_keys"])
    if "keys_as" in row:
        model, other = row["keys_as"].split()
        assert level == MODELS[model].level(other)
    elif "keys" in row:
        assert as_we_have_it(level.keys) == as_the_standard_has_it(row["keys"])


@pytest.mark.parametrize("name", [name for name in ROWS if name != "modality_worklist"])
def test_a_model_has_its_levels_in_order_and_its_sop_classes(name: str) -> None:
    row, model = ROWS[name], MODELS[name]
    assert [level.name for level in model.levels] == row["levels_top_down"]
    classes = dict(row["sop_classes"])
    without_bulk = classes.pop("C-GET (without bulk data)", None)
    assert model.sop_classes == classes
    for uid in classes.values():
        assert query_models.model_of(uid) is model
    if without_bulk:
        other = query_models.model_of(without_bulk)
        assert other is not None
        assert [level.name for level in other.levels] == ["IMAGE"]


def test_the_worklist_has_the_keys_of_its_table() -> None:
    row = ROWS["modality_worklist"]
    assert as_we_have_it(query_models.WORKLIST_KEYS) == as_the_standard_has_it(row["keys"])
    assert query_models.WORKLIST_MODEL.sop_classes == row["sop_classes"]
    named = [key.keyword for key in walk(query_models.WORKLIST_KEYS) if key.kind == "required"]
    assert sorted(named) == sorted(
        [*row["required_matching_keys"], "ScheduledProcedureStepSequence"]
    )


def walk(keys: Iterable[Key]) -> Iterator[Key]:
    for key in keys:
        yield key
        yield from walk(key.items)


def test_tags_keywords_and_vrs_are_those_of_the_data_dictionary() -> None:
    every = [key for model in query_models.MODELS for level in model.levels for key in level.keys]
    for key in walk([*every, *query_models.WORKLIST_KEYS]):
        assert (key.keyword, key.vr) == (dictionary_keyword(key.tag), dictionary_VR(key.tag))
        assert key.vm == dictionary_VM(key.tag)


def test_a_sop_class_of_no_model_has_none() -> None:
    assert query_models.model_of("1.2.840.10008.1.1") is None
