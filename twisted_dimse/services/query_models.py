"""The query/retrieve information models (PS3.4 C.6, Y.6, Z.6) and the worklist's (K.6) as data.

    study_root = model_of("1.2.840.10008.5.1.4.1.2.2.1")
    [level.name for level in study_root.levels]         # ['STUDY', 'SERIES', 'IMAGE']
    study_root.level("SERIES").key(0x00080060).kind     # 'required'

Every other attribute of a level's information entity is an optional key of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from twisted_dimse.services.matching import Matching
from twisted_dimse.uids import (
    MODALITY_WORKLIST_FIND,
    PATIENT_ROOT,
    PATIENT_STUDY_ONLY,
    STUDY_ROOT,
    QueryModel,
)

UNIQUE, REQUIRED, OPTIONAL = "unique", "required", "optional"
NOT_MATCHED = "not matched"  # of the worklist: only for the answer

COMPOSITE_INSTANCE_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"
COMPOSITE_INSTANCE_GET = "1.2.840.10008.5.1.4.1.2.4.3"
COMPOSITE_WITHOUT_BULK_GET = "1.2.840.10008.5.1.4.1.2.5.3"


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that can be asked for. `kind` is one of `UNIQUE`, `REQUIRED` and `OPTIONAL`;
    `counted` marks what an SCP counts, which is never matched. `return_type` is the worklist's
    (PS3.5 7.4)."""

    tag: int
    keyword: str
    vr: str
    kind: str = OPTIONAL
    vm: str = "1"
    items: tuple[Key, ...] = ()
    counted: bool = False
    exact: bool = False
    return_type: str = ""

    @property
    def matching(self) -> tuple[Matching, ...]:
        """The kinds of matching that the standard has for it."""
        if self.kind == NOT_MATCHED:
            return ()
        if self.counted:
            return (Matching.UNIVERSAL,)
        if self.vr == "SQ":
            return Matching.SEQUENCE, Matching.UNIVERSAL
        if self.exact:
            return Matching.SINGLE, Matching.UNIVERSAL
        more = _BY_VR.get(self.vr)
        return tuple(kind for kind in (Matching.SINGLE, more, Matching.UNIVERSAL) if kind)


_BY_VR = {
    "UI": Matching.UID_LIST,
    **dict.fromkeys(("DA", "TM", "DT"), Matching.RANGE),
    **dict.fromkeys(
        ["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"], Matching.WILDCARD
    ),
}


@dataclass(frozen=True, slots=True)
class Level:
    """A level of a model. The first of `keys` is its unique key."""

    name: str
    keys: tuple[Key, ...]

    @property
    def unique(self) -> Key:
        return self.keys[0]

    def key(self, tag: int) -> Key | None:
        return next((key for key in self.keys if key.tag == tag), None)


@dataclass(frozen=True, slots=True)
class InformationModel:
    """A model: its levels from the top, and its SOP class for each service."""

    name: str
    levels: tuple[Level, ...]
    sop_classes: Mapping[str, str] = field(default_factory=dict)

    def level(self, name: str) -> Level | None:
        return next((level for level in self.levels if level.name == name), None)

    def level_of(self, tag: int) -> Level | None:
        """The level whose key an attribute is; None where the tables name it nowhere."""
        return next((level for level in self.levels if level.key(tag)), None)

    def above(self, name: str) -> tuple[Level, ...]:
        """The levels above one, from the top."""
        names = [level.name for level in self.levels]
        return self.levels[: names.index(name)]


_REFERENCE = (
    Key(0x00081150, "ReferencedSOPClassUID", "UI"),
    Key(0x00081155, "ReferencedSOPInstanceUID", "UI"),
)
_CODE = (
    Key(0x00080100, "CodeValue", "SH"),
    Key(0x00080102, "CodingSchemeDesignator", "SH"),
    Key(0x00080103, "CodingSchemeVersion", "SH"),
    Key(0x00080104, "CodeMeaning", "LO"),
    Key(0x00080119, "LongCodeValue", "UC"),
    Key(0x00080120, "URNCodeValue", "UR"),
)
_OF_PATIENT = (
    Key(0x00100021, "IssuerOfPatientID", "LO"),
    Key(0x00081120, "ReferencedPatientSequence", "SQ", items=_REFERENCE),
    Key(0x00100030, "PatientBirthDate", "DA"),
    Key(0x00100032, "PatientBirthTime", "TM"),
    Key(0x00100040, "PatientSex", "CS"),
    Key(0x00101002, "OtherPatientIDsSequence", "SQ"),
    Key(0x00101001, "OtherPatientNames", "PN", vm="1-n"),
    Key(0x00102160, "EthnicGroup", "SH"),
    Key(0x00104000, "PatientComments", "LT"),
)

# Tables C.6-1 and C.6-2.
_PATIENT_KEYS = (
    Key(0x00100020, "PatientID", "LO", UNIQUE, exact=True),
    Key(0x00100010, "PatientName", "PN", REQUIRED),
    *_OF_PATIENT,
    Key(0x00201200, "NumberOfPatientRelatedStudies", "IS", counted=True),
    Key(0x00201202, "NumberOfPatientRelatedSeries", "IS", counted=True),
    Key(0x00201204, "NumberOfPatientRelatedInstances", "IS", counted=True),
)
_STUDY_KEYS = (
    Key(0x0020000D, "StudyInstanceUID", "UI", UNIQUE),
    Key(0x00080020, "StudyDate", "DA", REQUIRED),
    Key(0x00080030, "StudyTime", "TM", REQUIRED),
    Key(0x00080050, "AccessionNumber", "SH", REQUIRED),
    Key(0x00200010, "StudyID", "SH", REQUIRED),
    Key(0x00080061, "ModalitiesInStudy", "CS", vm="1-n"),
    Key(0x00080062, "SOPClassesInStudy", "UI", vm="1-n"),
    Key(0x00080063, "AnatomicRegionsInStudyCodeSequence", "SQ", items=_CODE),
    Key(0x00080090, "ReferringPhysicianName", "PN"),
    Key(0x00081030, "StudyDescription", "LO"),
    Key(0x00081032, "ProcedureCodeSequence", "SQ", items=_CODE),
    Key(0x00081060, "NameOfPhysiciansReadingStudy", "PN", vm="1-n"),
    Key(0x00081080, "AdmittingDiagnosesDescription", "LO", vm="1-n"),
    Key(0x00081110, "ReferencedStudySequence", "SQ", items=_REFERENCE),
    Key(0x00101010, "PatientAge", "AS"),
    Key(0x00101020, "PatientSize", "DS"),
    Key(0x00101030, "PatientWeight", "DS"),
    Key(0x00102180, "Occupation", "SH"),
    Key(0x001021B0, "AdditionalPatientHistory", "LT"),
    Key(0x00201070, "OtherStudyNumbers", "IS", vm="1-n"),
    Key(0x00201206, "NumberOfStudyRelatedSeries", "IS", counted=True),
    Key(0x00201208, "NumberOfStudyRelatedInstances", "IS", counted=True),
)
# Table C.6-3, and what is asked for besides.
_SERIES_KEYS = (
    Key(0x0020000E, "SeriesInstanceUID", "UI", UNIQUE),
    Key(0x00080060, "Modality", "CS", REQUIRED),
    Key(0x00200011, "SeriesNumber", "IS", REQUIRED),
    Key(0x00201209, "NumberOfSeriesRelatedInstances", "IS", counted=True),
    Key(0x0008103E, "SeriesDescription", "LO"),
    Key(0x00180015, "BodyPartExamined", "CS"),
    Key(0x00400244, "PerformedProcedureStepStartDate", "DA"),
    Key(0x00400245, "PerformedProcedureStepStartTime", "TM"),
    Key(0x00400275, "RequestAttributesSequence", "SQ"),
)
# Table C.6-4.
_ALTERNATE_REPRESENTATION = (
    Key(0x0020000E, "SeriesInstanceUID", "UI"),
    *_REFERENCE,
    Key(0x0040A170, "PurposeOfReferenceCodeSequence", "SQ", items=_CODE),
)
_SPECIMEN = (
    Key(0x00400551, "SpecimenIdentifier", "LO"),
    Key(0x00400554, "SpecimenUID", "UI"),
)
_IMAGE_KEYS = (
    Key(0x00080018, "SOPInstanceUID", "UI", UNIQUE),
    Key(0x00200013, "InstanceNumber", "IS", REQUIRED),
    Key(0x00080016, "SOPClassUID", "UI"),
    Key(0x00083002, "AvailableTransferSyntaxUID", "UI", vm="1-n"),
    Key(
        0x00083001,
        "AlternateRepresentationSequence",
        "SQ",
        items=_ALTERNATE_REPRESENTATION,
        counted=True,
    ),
    Key(0x0008001A, "RelatedGeneralSOPClassUID", "UI", vm="1-n"),
    Key(0x0040A043, "ConceptNameCodeSequence", "SQ", items=_CODE),
    Key(
        0x0040A504,
        "ContentTemplateSequence",
        "SQ",
        items=(
            Key(0x0040DB00, "TemplateIdentifier", "CS"),
            Key(0x00080105, "MappingResource", "CS"),
        ),
    ),
    Key(0x00400512, "ContainerIdentifier", "LO"),
    Key(0x00400560, "SpecimenDescriptionSequence", "SQ", items=_SPECIMEN),
)
# Table C.6-5: in the study root model the patient's attributes are the study's.
_STUDY_ROOT_KEYS = (
    *_STUDY_KEYS,
    Key(0x00100010, "PatientName", "PN", REQUIRED),
    Key(0x00100020, "PatientID", "LO", REQUIRED),
    *_OF_PATIENT,
)

_PATIENT, _STUDY = Level("PATIENT", _PATIENT_KEYS), Level("STUDY", _STUDY_KEYS)
_SERIES, _IMAGE = Level("SERIES", _SERIES_KEYS), Level("IMAGE", _IMAGE_KEYS)


def _classes(model: QueryModel) -> dict[str, str]:
    return {"C-FIND": model.find, "C-MOVE": model.move, "C-GET": model.get}


PATIENT_ROOT_MODEL = InformationModel(
    "patient_root", (_PATIENT, _STUDY, _SERIES, _IMAGE), _classes(PATIENT_ROOT)
)
STUDY_ROOT_MODEL = InformationModel(
    "study_root", (Level("STUDY", _STUDY_ROOT_KEYS), _SERIES, _IMAGE), _classes(STUDY_ROOT)
)
PATIENT_STUDY_ONLY_MODEL = InformationModel(
    "patient_study_only", (_PATIENT, _STUDY), _classes(PATIENT_STUDY_ONLY)
)
# Tables of Y.6 and Z.6: instances by themselves, and frames of them.
_INSTANCE_KEYS = (Key(0x00080018, "SOPInstanceUID", "UI", UNIQUE),)
COMPOSITE_INSTANCE_MODEL = InformationModel(
    "composite_instance_root",
    (Level("IMAGE", _INSTANCE_KEYS), Level("FRAME", _INSTANCE_KEYS)),
    {"C-MOVE": COMPOSITE_INSTANCE_MOVE, "C-GET": COMPOSITE_INSTANCE_GET},
)
COMPOSITE_WITHOUT_BULK_MODEL = InformationModel(
    "composite_instance_without_bulk_data",
    (Level("IMAGE", _INSTANCE_KEYS),),
    {"C-GET": COMPOSITE_WITHOUT_BULK_GET},
)
FRAME_KEYS = (0x00081161, 0x00081162, 0x00081163)  # one of them at the FRAME level

MODELS = (
    STUDY_ROOT_MODEL,
    PATIENT_ROOT_MODEL,
    PATIENT_STUDY_ONLY_MODEL,
    COMPOSITE_INSTANCE_MODEL,
    COMPOSITE_WITHOUT_BULK_MODEL,
)


@cache
def model_of(sop_class_uid: str) -> InformationModel | None:
    """The model of a query/retrieve SOP class."""
    return next((model for model in MODELS if sop_class_uid in model.sop_classes.values()), None)


# --- the modality worklist (Table K.6-1); kinds are its matching key types


def _scheduled_code() -> tuple[Key, ...]:
    code = (Key(k.tag, k.keyword, k.vr, return_type="1C") for k in _CODE[:2])
    more = (Key(k.tag, k.keyword, k.vr, return_type="3") for k in _CODE[2:4])
    context = Key(0x00400440, "ProtocolContextSequence", "SQ", NOT_MATCHED, return_type="3")
    return (*code, *more, context)


_STEP_KEYS = (
    Key(
        0x00400001,
        "ScheduledStationAETitle",
        "AE",
        REQUIRED,
        "1-n",
        exact=True,
        return_type="1",
    ),
    Key(0x00400002, "ScheduledProcedureStepStartDate", "DA", REQUIRED, return_type="1"),
    Key(0x00400003, "ScheduledProcedureStepStartTime", "TM", REQUIRED, return_type="1"),
    Key(0x00080060, "Modality", "CS", REQUIRED, exact=True, return_type="1"),
    Key(0x00400006, "ScheduledPerformingPhysicianName", "PN", REQUIRED, return_type="2"),
    Key(0x00400007, "ScheduledProcedureStepDescription", "LO", return_type="1C"),
    Key(0x00400010, "ScheduledStationName", "SH", vm="1-n", return_type="2"),
    Key(0x00400011, "ScheduledProcedureStepLocation", "SH", return_type="2"),
    Key(0x0018990C, "ReferencedDefinedProtocolSequence", "SQ", return_type="3"),
    Key(0x0018990D, "ReferencedPerformedProtocolSequence", "SQ", return_type="3"),
    Key(
        0x00400008,
        "ScheduledProtocolCodeSequence",
        "SQ",
        items=_scheduled_code(),
        return_type="1C",
    ),
    Key(0x00400012, "PreMedication", "LO", return_type="2C"),
    Key(0x00400009, "ScheduledProcedureStepID", "SH", return_type="1"),
    Key(0x00321070, "RequestedContrastAgent", "LO", return_type="2C"),
    Key(0x00400020, "ScheduledProcedureStepStatus", "CS", return_type="3"),
)
_SPECIMEN_KEYS = (
    Key(0x00400512, "ContainerIdentifier", "LO", return_type="1"),
    Key(0x00400518, "ContainerTypeCodeSequence", "SQ", NOT_MATCHED, return_type="2"),
    Key(
        0x00400560,
        "SpecimenDescriptionSequence",
        "SQ",
        items=tuple(Key(k.tag, k.keyword, k.vr, return_type="1") for k in _SPECIMEN),
        return_type="1",
    ),
)
WORKLIST_KEYS = (
    Key(
        0x00400100,
        "ScheduledProcedureStepSequence",
        "SQ",
        REQUIRED,
        items=_STEP_KEYS,
        return_type="1",
    ),
    Key(0x00400500, "ScheduledSpecimenSequence", "SQ", items=_SPECIMEN_KEYS, return_type="3"),
    Key(0x22000005, "BarcodeValue", "LT", return_type="3"),
    Key(0x00401001, "RequestedProcedureID", "SH", return_type="1"),
    Key(0x00321060, "RequestedProcedureDescription", "LO", return_type="1C"),
    Key(0x00321064, "RequestedProcedureCodeSequence", "SQ", return_type="1C"),
    Key(0x0020000D, "StudyInstanceUID", "UI", return_type="1"),
    Key(0x00080020, "StudyDate", "DA", return_type="3"),
    Key(0x00080030, "StudyTime", "TM", return_type="3"),
    Key(0x00081110, "ReferencedStudySequence", "SQ", return_type="2"),
    Key(0x00401003, "RequestedProcedurePriority", "SH", return_type="2"),
    Key(0x00401004, "PatientTransportArrangements", "LO", return_type="2"),
    Key(0x00080050, "AccessionNumber", "SH", return_type="2"),
    Key(0x00080051, "IssuerOfAccessionNumberSequence", "SQ", return_type="3"),
    Key(0x00321032, "RequestingPhysician", "PN", return_type="2"),
    Key(0x00080090, "ReferringPhysicianName", "PN", return_type="2"),
    Key(0x00380010, "AdmissionID", "LO", return_type="2"),
    Key(0x00380014, "IssuerOfAdmissionIDSequence", "SQ", return_type="3"),
    Key(0x00380300, "CurrentPatientLocation", "LO", return_type="2"),
    Key(0x00081120, "ReferencedPatientSequence", "SQ", return_type="2"),
    Key(0x00100010, "PatientName", "PN", REQUIRED, return_type="1"),
    Key(0x00100020, "PatientID", "LO", REQUIRED, exact=True, return_type="1"),
    Key(0x00100021, "IssuerOfPatientID", "LO", return_type="3"),
    Key(0x00100024, "IssuerOfPatientIDQualifiersSequence", "SQ", return_type="3"),
    Key(0x00101002, "OtherPatientIDsSequence", "SQ", return_type="3"),
    Key(0x00100030, "PatientBirthDate", "DA", return_type="2"),
    Key(0x00100040, "PatientSex", "CS", return_type="2"),
    Key(0x00100101, "PatientPrimaryLanguageCodeSequence", "SQ", return_type="3"),
    Key(0x00101030, "PatientWeight", "DS", return_type="2"),
    Key(0x00101020, "PatientSize", "DS", return_type="3"),
    Key(
        0x00403001,
        "ConfidentialityConstraintOnPatientDataDescription",
        "LO",
        return_type="2",
    ),
    Key(0x00380500, "PatientState", "LO", return_type="2"),
    Key(0x001021C0, "PregnancyStatus", "US", return_type="2"),
    Key(0x00102000, "MedicalAlerts", "LO", vm="1-n", return_type="2"),
    Key(0x00102110, "Allergies", "LO", vm="1-n", return_type="2"),
    Key(0x00380050, "SpecialNeeds", "LO", return_type="2"),
    Key(0x00380100, "PertinentDocumentsSequence", "SQ", counted=True, return_type="3"),
)
WORKLIST_MODEL = InformationModel(
    "modality_worklist", (Level("", WORKLIST_KEYS),), {"C-FIND": MODALITY_WORKLIST_FIND}
)
