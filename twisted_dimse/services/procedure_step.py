"""The Modality Performed Procedure Step (PS3.4 F), both halves.

SCU: a modality creates a step when it begins, and completes or discontinues it. SCP:
`ProcedureStepHandler` keeps the steps, guards their states, lets them be read (Retrieve) and tells
of their changes (Notification).

    uid = await create(peer, {"Modality": "CT", "PerformedStationAETitle": "CT1", ...})
    await complete(peer, uid, {"PerformedSeriesSequence": [...]})
    port = await listen("tcp:11112", ProcedureStepHandler())
"""

from __future__ import annotations

from collections.abc import MutableMapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from twisted.logger import Logger

from twisted_dimse.association import Association
from twisted_dimse.dimse.status import (
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
    PROCESSING_FAILURE,
)
from twisted_dimse.errors import DimseError, StatusError
from twisted_dimse.handler import AssociationRequest, Request
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.calls import associated, deferred
from twisted_dimse.services.managed import (
    PROCEDURE_STEP,
    PROCEDURE_STEP_NOTIFICATION,
    PROCEDURE_STEP_RETRIEVE,
    ManagedHandler,
    ManagedInstance,
    new_uid,
)
from twisted_dimse.services.values import copied, items, new_element, texts

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
MAY_NO_LONGER_BE_UPDATED = 0xA710  # an Error ID (Table F.7.2-2)

STATUS = 0x00400252
START_DATE, START_TIME = 0x00400244, 0x00400245
END_DATE, END_TIME = 0x00400250, 0x00400251
SCHEDULED_STEP_ATTRIBUTES_SEQUENCE = 0x00400270
PERFORMED_SERIES_SEQUENCE = 0x00400340
STUDY_INSTANCE_UID = 0x0020000D

#: What a new step must have with a value (Table F.7.2-1), in itself and in its scheduled steps.
TYPE_1 = (
    SCHEDULED_STEP_ATTRIBUTES_SEQUENCE,
    0x00400253,  # Performed Procedure Step ID
    0x00400241,  # Performed Station AE Title
    START_DATE,
    START_TIME,
    STATUS,
    0x00080060,  # Modality
)
#: What it must have, if only empty.
TYPE_2 = (
    0x00100010,  # Patient's Name
    0x00100020,  # Patient ID
    0x00100030,  # Patient's Birth Date
    0x00100040,  # Patient's Sex
    0x00081120,  # Referenced Patient Sequence
    0x00400242,  # Performed Station Name
    0x00400243,  # Performed Location
    0x00400254,  # Performed Procedure Step Description
    0x00400255,  # Performed Procedure Type Description
    0x00081032,  # Procedure Code Sequence
    END_DATE,
    END_TIME,
    0x00200010,  # Study ID
    0x00400260,  # Performed Protocol Code Sequence
    PERFORMED_SERIES_SEQUENCE,
)
TYPE_2_OF_SCHEDULED_STEP = (
    0x00081110,  # Referenced Study Sequence
    0x00080050,  # Accession Number
    0x00401001,  # Requested Procedure ID
    0x00321060,  # Requested Procedure Description
    0x00400009,  # Scheduled Procedure Step ID
    0x00400007,  # Scheduled Procedure Step Description
    0x00400008,  # Scheduled Protocol Code Sequence
)
#: What only a new step is given: to set it later is not allowed.
FIXED = (
    *(tag for tag in TYPE_1 if tag != STATUS),
    *TYPE_2[: TYPE_2.index(0x00400254)],  # of the patient and the place
    0x00200010,  # Study ID
)
#: What a step must have with a value in each final state.
FINAL = {
    COMPLETED: (END_DATE, END_TIME, PERFORMED_SERIES_SEQUENCE),
    DISCONTINUED: (END_DATE, END_TIME),
}
_UPDATED = 4
_EVENTS = {IN_PROGRESS: 1, COMPLETED: 2, DISCONTINUED: 3}

_log = Logger()


# --- SCU


@deferred
async def create(
    peer: Any, attributes: Any, *, instance_uid: str | None = None, **options: Any
) -> str:
    """Begin a step (N-CREATE, PS3.4 F.7.2.1). Fires with its SOP Instance UID.

    ``attributes`` is a Dataset or a mapping, as in `keys.as_dataset`; what it may lack is filled:
    the state, the date and time of the start (now), and empty attributes of type 2. ``peer`` may be
    an `Association` with the context; else ``options`` are those of `connect`. Fails with
    `StatusError`.
    """
    uid = instance_uid or new_uid()
    step = _copy(attributes)
    _default(step, STATUS, IN_PROGRESS)
    _set_now(step, START_DATE, START_TIME)
    fill_type_2(step)
    async with associated(peer, contexts=[PROCEDURE_STEP], **options) as association:
        response = await association.n_create(PROCEDURE_STEP, step, uid)
        return response.sop_instance_uid or uid


@deferred
async def complete(peer: Any, instance_uid: str, attributes: Any = None, **options: Any) -> None:
    """End a step that was done (N-SET, PS3.4 F.7.2.2), with its series among ``attributes``. The
    date and time of the end are now, if not given. Else as `create`."""
    await _end(COMPLETED, peer, instance_uid, attributes, options)


@deferred
async def discontinue(peer: Any, instance_uid: str, attributes: Any = None, **options: Any) -> None:
    """End a step that was broken off; as `complete`."""
    await _end(DISCONTINUED, peer, instance_uid, attributes, options)


@deferred
async def update(peer: Any, instance_uid: str, attributes: Any, **options: Any) -> None:
    """Change a step in progress; as `complete`."""
    async with associated(peer, contexts=[PROCEDURE_STEP], **options) as association:
        await association.n_set(PROCEDURE_STEP, instance_uid, as_dataset(attributes))


@deferred
async def read(
    peer: Any, instance_uid: str, names: tuple[int | str, ...] = (), **options: Any
) -> Dataset:
    """The attributes of a step (N-GET, PS3.4 F.8): those of ``names``, tags or keywords, or all."""
    async with associated(peer, contexts=[PROCEDURE_STEP_RETRIEVE], **options) as association:
        response = await association.n_get(PROCEDURE_STEP_RETRIEVE, instance_uid, names)
        return response.dataset or Dataset()


async def _end(
    state: str, peer: Any, instance_uid: str, attributes: Any, options: dict[str, Any]
) -> None:
    changes = _copy(attributes or {})
    changes[STATUS] = new_element(STATUS, "CS", state)
    _set_now(changes, END_DATE, END_TIME)
    async with associated(peer, contexts=[PROCEDURE_STEP], **options) as association:
        await association.n_set(PROCEDURE_STEP, instance_uid, changes)


def _copy(attributes: Any) -> Dataset:
    copy: Dataset = deepcopy(as_dataset(attributes))
    return copy


def _set_now(step: Dataset, date: int, time: int) -> None:
    if not texts(step, date):
        now = datetime.now()
        step[date] = new_element(date, "DA", now.strftime("%Y%m%d"))
        step[time] = new_element(time, "TM", now.strftime("%H%M%S"))


def _default(step: Dataset, tag: int, value: Any = None) -> None:
    if tag not in step:
        step[tag] = new_element(tag, dictionary_VR(tag), value)


def fill_type_2(step: Dataset) -> None:
    """Add the attributes of type 2 that a new step lacks, without values."""
    for tag in TYPE_2:
        _default(step, tag)
    for scheduled in items(step, SCHEDULED_STEP_ATTRIBUTES_SEQUENCE):
        for tag in TYPE_2_OF_SCHEDULED_STEP:
            _default(scheduled, tag)


# --- SCP


class ProcedureStepHandler(ManagedHandler):
    """SCP of Modality Performed Procedure Step, its Retrieve and its Notification class.

    A step begins IN PROGRESS, and once it is COMPLETED or DISCONTINUED nothing changes it any
    more. ``instances`` maps SOP Instance UIDs to steps. Override `begun` and `changed` to act upon
    them. A new step without attributes of type 2 is completed, not refused.
    """

    def __init__(self, instances: MutableMapping[str, ManagedInstance] | None = None) -> None:
        classes = (PROCEDURE_STEP, PROCEDURE_STEP_RETRIEVE, PROCEDURE_STEP_NOTIFICATION)
        super().__init__(classes, instances)
        self._associations: set[Association] = set()

    def begun(self, uid: str, step: Dataset) -> Any:
        """A step began. What is raised, or a Deferred fails with, refuses it."""

    def changed(self, uid: str, step: Dataset, state: str) -> Any:
        """A step changes to ``step``, and to ``state`` if that is new. As `begun`."""

    async def creating(self, request: Request, uid: str, attributes: Dataset) -> None:
        _require(attributes, TYPE_1)
        for scheduled in items(attributes, SCHEDULED_STEP_ATTRIBUTES_SEQUENCE):
            _require(scheduled, (STUDY_INSTANCE_UID,))
        if texts(attributes, STATUS) != (IN_PROGRESS,):
            raise _invalid(attributes, STATUS, "a step begins IN PROGRESS")
        fill_type_2(attributes)
        await _awaited(self.begun(uid, attributes))

    async def changing(self, request: Request, instance: ManagedInstance, changes: Dataset) -> None:
        step = instance.attributes
        _check_in_progress(step)
        for tag in FIXED:
            if tag in changes and changes[tag] != step.get(tag):
                raise _invalid(changes, tag, "may not be set")
        after = copied(step, changes)
        state = _state_of(after)
        _require(after, FINAL.get(state, ()))
        await _awaited(self.changed(request.sop_instance_uid, after, state))
        _check_in_progress(step)  # another change may have come in between

    async def n_create(self, request: Request) -> Any:
        answer = await super().n_create(request)
        self._notify(request, answer[-1]["AffectedSOPInstanceUID"], _EVENTS[IN_PROGRESS])
        return answer

    async def n_set(self, request: Request) -> Any:
        answer = await super().n_set(request)
        uid = request.sop_instance_uid
        state = _state_of(self.instances[uid].attributes)
        self._notify(request, uid, _UPDATED if state == IN_PROGRESS else _EVENTS[state])
        return answer

    def n_delete(self, request: Request) -> Any:
        """No SOP class here has it."""
        return self._unrecognized(request)

    # --- notification

    def associate(self, request: AssociationRequest) -> Any:
        self._associations.add(request.association)
        return super().associate(request)

    def released(self, request: AssociationRequest) -> None:
        self._associations.discard(request.association)

    def aborted(self, request: AssociationRequest) -> None:
        self._associations.discard(request.association)

    def _notify(self, request: Request, uid: str, event_type: int) -> None:
        """Tell those who have associated for it (PS3.4 F.9)."""
        for association in list(self._associations):
            syntaxes = [context.abstract_syntax for context in association.accepted]
            if PROCEDURE_STEP_NOTIFICATION in syntaxes and association is not request.association:
                told = association.n_event_report(PROCEDURE_STEP_NOTIFICATION, uid, event_type)
                told.addErrback(_not_told, association)


def _not_told(failure: Any, association: Association) -> None:
    failure.trap(DimseError)
    _log.info(
        "association {number}: {peer} was not told of a procedure step: {error}",
        number=association.number,
        peer=association.peer,
        error=failure.value,
    )


def _check_in_progress(step: Dataset) -> None:
    if texts(step, STATUS) != (IN_PROGRESS,):
        raise StatusError(
            PROCESSING_FAILURE,
            "the step may no longer be updated",
            ErrorID=MAY_NO_LONGER_BE_UPDATED,
        )


def _state_of(step: Dataset) -> str:
    state = "".join(texts(step, STATUS))
    if state not in _EVENTS:
        raise _invalid(step, STATUS, "no such state")
    return state


def _require(dataset: Dataset, tags: tuple[int, ...]) -> None:
    """Raise `StatusError` for what is missing, or else for what has no value."""
    missing = tuple(tag for tag in tags if tag not in dataset)
    if missing:
        raise StatusError(MISSING_ATTRIBUTE, AttributeIdentifierList=missing)
    empty = [tag for tag in tags if not (texts(dataset, tag) or items(dataset, tag))]
    if empty:
        offending = Dataset()
        for tag in empty:
            offending[tag] = dataset[tag]
        raise StatusError(MISSING_ATTRIBUTE_VALUE, dataset=offending)


def _invalid(dataset: Dataset, tag: int, comment: str) -> StatusError:
    offending = Dataset()
    offending[tag] = dataset[tag]
    return StatusError(INVALID_ATTRIBUTE_VALUE, comment, dataset=offending)


async def _awaited(given: Any) -> None:
    if hasattr(given, "__await__"):
        await given
