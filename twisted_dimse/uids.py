"""Named UIDs that the protocol itself needs, over pydicom's table for all others.

pydicom takes a quarter of a second to import, and has numpy with it: nothing here does.

    name_of("1.2.840.10008.1.1")        # 'Verification SOP Class'
    "1.2.840.10008.5.1.4.1.1.2" in storage_sop_classes()
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import re
from typing import NamedTuple

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_SERVICE = "1.2.840.10008.4.2"
STORAGE_COMMITMENT_PUSH = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_PUSH_INSTANCE = "1.2.840.10008.1.20.1.1"
MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFAULT_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
UNCOMPRESSED_TRANSFER_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)

IMPLEMENTATION_CLASS_UID = "2.25.207601263969113812576310285463165325457"
IMPLEMENTATION_VERSION_NAME = "TWISTED_DIMSE"


class QueryModel(NamedTuple):
    """A query/retrieve information model (PS3.4 C.6): its SOP class for each service."""

    name: str
    find: str
    move: str
    get: str


PATIENT_ROOT = QueryModel(
    "PATIENT_ROOT",
    "1.2.840.10008.5.1.4.1.2.1.1",
    "1.2.840.10008.5.1.4.1.2.1.2",
    "1.2.840.10008.5.1.4.1.2.1.3",
)
STUDY_ROOT = QueryModel(
    "STUDY_ROOT",
    "1.2.840.10008.5.1.4.1.2.2.1",
    "1.2.840.10008.5.1.4.1.2.2.2",
    "1.2.840.10008.5.1.4.1.2.2.3",
)
PATIENT_STUDY_ONLY = QueryModel(
    "PATIENT_STUDY_ONLY",
    "1.2.840.10008.5.1.4.1.2.3.1",
    "1.2.840.10008.5.1.4.1.2.3.2",
    "1.2.840.10008.5.1.4.1.2.3.3",
)
QUERY_MODELS = (STUDY_ROOT, PATIENT_ROOT, PATIENT_STUDY_ONLY)

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")


@functools.lru_cache(4096)
def is_valid_uid(text: str) -> bool:
    """Whether ``text`` is built as PS3.5 9.1 demands: a root and a suffix, so at least two
    components, of digits and dots, at most 64, no padding.

    A valid UID is safe as a file name.
    """
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


@functools.cache
def registered() -> dict[str, tuple[str, str, str, str, str]]:
    """The UIDs of PS3.6 annex A: name, type, information, "Retired" or "", and keyword of each.

    They are pydicom's, whose table is loaded without the rest of it.
    """
    package = importlib.util.find_spec("pydicom")
    assert package is not None
    places = package.submodule_search_locations
    table = importlib.machinery.PathFinder.find_spec("pydicom._uid_dict", places)
    assert table is not None
    assert table.loader is not None
    module = importlib.util.module_from_spec(table)
    table.loader.exec_module(module)
    found: dict[str, tuple[str, str, str, str, str]] = module.UID_dictionary
    return found


def name_of(uid: str) -> str:
    """The name of a registered UID, or the UID itself."""
    entry = registered().get(uid)
    return entry[0] if entry else uid


_NOT_STORED_BY_C_STORE = ("MediaStorageDirectoryStorage",)
_NOT_YET_IN_PYDICOM = (
    "1.2.840.10008.5.1.4.1.1.9.100.1",  # Waveform Presentation State
    "1.2.840.10008.5.1.4.1.1.9.100.2",  # Waveform Acquisition Presentation State
    "1.2.840.10008.5.1.4.1.1.12.77",  # retired
    "1.2.840.10008.5.1.4.1.1.40",  # retired
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
)


@functools.cache
def storage_sop_classes() -> frozenset[str]:
    """All registered SOP classes that a C-STORE can carry (PS3.4 B.5, GG.3 and retired ones)."""
    return frozenset(_NOT_YET_IN_PYDICOM).union(
        uid
        for uid, (name, kind, _info, _retired, keyword) in registered().items()
        if kind == "SOP Class"
        and ("Storage" in name or keyword == "InventoryStorage")
        and "Storage Commitment" not in name
        and "Storage Management" not in name
        and keyword not in _NOT_STORED_BY_C_STORE
    )
