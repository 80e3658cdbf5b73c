"""What a query is about: level, information model, and the columns that its answers have.

question = Question.of(keys, level="SERIES", model=None, wanted=("relational",))
question.add_columns()
association.find_each(question.keys, level=question.level)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from twisted_dimse.uids import (
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT,
    PATIENT_STUDY_ONLY,
    STUDY_ROOT,
    QueryModel,
)

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")
MODELS = {"study": STUDY_ROOT, "patient": PATIENT_ROOT, "patient-study": PATIENT_STUDY_ONLY}

level_option = click.option(
    "--level",
    "-L",
    type=click.Choice(LEVELS, case_sensitive=False),
    metavar="LEVEL",
    help="PATIENT, STUDY, SERIES or IMAGE.  [default: STUDY, or as the keys have it]",
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--model`` and its short forms."""
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


_MODEL_OPTIONS = [
    click.option("--model", type=click.Choice(list(MODELS)), help="Information model.  [default: study; for the level PATIENT patient]"),  # noqa: E501
    click.option("-S", "model", flag_value="study", help="--model study"),
    click.option("-P", "model", flag_value="patient", help="--model patient"),
    click.option("-O", "model", flag_value="patient-study", help="--model patient-study"),
]  # fmt: skip

_STEP = "ScheduledProcedureStepSequence"
_OF_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_OF_STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "StudyDescription"),
    *("NumberOfStudyRelatedInstances", "StudyInstanceUID"),
)

_OPTIONS_IN_WORDS = {
    "relational": "relational queries",
    "fuzzy_names": "fuzzy matching of person names",
}

#: What is asked for and shown by itself; the unique key is last.
COLUMNS = {
    "PATIENT": ("PatientName", "PatientBirthDate", "PatientSex", "PatientID"),
    "STUDY": (*_OF_PATIENT, *_OF_STUDY),
    "SERIES": (
        *("Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined"),
        *("NumberOfSeriesRelatedInstances", "SeriesInstanceUID"),
    ),
    "IMAGE": ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
    "WORKLIST": (
        f"{_STEP}.ScheduledProcedureStepStartDate",
        f"{_STEP}.ScheduledProcedureStepStartTime",
        f"{_STEP}.Modality",
        f"{_STEP}.ScheduledStationAETitle",
        *_OF_PATIENT,
        *("AccessionNumber", "RequestedProcedureID"),
        f"{_STEP}.ScheduledProcedureStepDescription",
        f"{_STEP}.ScheduledProcedureStepID",
        "StudyInstanceUID",
    ),
}


@dataclass
class Question:
    """Keys, and how to ask for them. `columns` is the name of a row of `COLUMNS`; `wanted` names
    those of `QueryOptions` that are to be negotiated; `given` has the caller's own keys."""

    keys: Any
    sop_classes: list[str]
    level: str | None
    columns: str
    wanted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.given = self.keys

    @classmethod
    def of(
        cls, keys: Any, level: str | None, model: str | None, wanted: tuple[str, ...]
    ) -> Question:
        """A query of a query/retrieve model."""
        level = level_of(keys, level)
        models = models_of(level, model)
        return cls(keys, [each.find for each in models], level, level, wanted)

    @classmethod
    def of_worklist(cls, keys: Any, wanted: tuple[str, ...]) -> Question:
        return cls(keys, [MODALITY_WORKLIST_FIND], None, "WORKLIST", wanted)

    def add_columns(self) -> None:
        """Ask for what the table shows, where the keys do not mention it. Attributes of another
        level do not belong into a hierarchical query."""
        from twisted_dimse.cli.keys import merge
        from twisted_dimse.keys import as_dataset

        columns = COLUMNS[self.columns]
        if self.columns == "STUDY" and self.sop_classes == [PATIENT_ROOT.find]:
            columns = _OF_STUDY
        asked = as_dataset(dict.fromkeys(columns, ""))
        merge(asked, self.keys)
        self.keys = asked

    @property
    def extended(self) -> dict[str, bytes]:
        """What to offer of extended negotiation."""
        if not self.wanted:
            return {}
        from twisted_dimse.services.identifiers import QueryOptions

        wanted = QueryOptions(**dict.fromkeys(self.wanted, True))
        return {uid: wanted.offer(uid) for uid in self.sop_classes}

    def not_agreed(self, association: Any) -> list[str]:
        """What of that the peer did not take, in words."""
        from twisted_dimse.services.identifiers import QueryOptions

        uids = [context.abstract_syntax for context in association.accepted]
        taken = [QueryOptions().agreed(association, uid) for uid in uids]
        left = [name for name in self.wanted if not any(getattr(each, name) for each in taken)]
        return [_OPTIONS_IN_WORDS[name] for name in left]


def level_of(keys: Any, level: str | None) -> str:
    """The level that is asked for. Raises `click.UsageError`."""
    named = level or keys.get("QueryRetrieveLevel") or "STUDY"
    if str(named).upper() not in LEVELS:
        raise click.UsageError(f"{named} is no level: choose one of {', '.join(LEVELS)}.")
    keys.QueryRetrieveLevel = str(named).upper()
    return str(named).upper()


def models_of(level: str, model: str | None) -> tuple[QueryModel, ...]:
    """The models to propose, the first choice first."""
    if model is not None:
        return (MODELS[model],)
    return (PATIENT_ROOT,) if level == "PATIENT" else (STUDY_ROOT, PATIENT_ROOT)
