"""Managed instances (PS3.7 10): what the N- services create, read, change and delete, for every
service class that has no file of its own: print, UPS, media creation, availability notices, …

    class Printer(ManagedHandler):
        def action(self, request, instance): ...

    handler = Printer([BASIC_GRAYSCALE_PRINT], {PRINTER: ManagedInstance(PRINTER_CLASS, status)})

`ManagedHandler` keeps the instances in a mapping, and answers for it what the standard has for an
unknown instance, a duplicate, a class that does not fit, an attribute that is not there. What an
instance does is in its hooks.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset

from twisted_dimse.dimse.status import (
    ATTRIBUTE_LIST_ERROR,
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_SOP_INSTANCE,
    INVALID_SOP_INSTANCE_UID,
    MISTYPED_ARGUMENT,
    NO_SUCH_ACTION_TYPE,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    SUCCESS,
    WARNING_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
    Category,
    category,
)
from twisted_dimse.errors import StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.services.matching import matcher, requested, set_character_set
from twisted_dimse.services.values import copied, element_in_unicode, in_unicode, tags_of
from twisted_dimse.uids import VERIFICATION, is_valid_uid

_PRINT = "1.2.840.10008.5.1.1."
FILM_SESSION, FILM_BOX, PRINTER = (_PRINT + end for end in ("1", "2", "16"))
PRINTER_INSTANCE = _PRINT + "17"
UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_EVENT, UPS_QUERY = (
    f"1.2.840.10008.5.1.4.34.6.{number}" for number in range(1, 6)
)
PROCEDURE_STEP, PROCEDURE_STEP_RETRIEVE, PROCEDURE_STEP_NOTIFICATION = (
    f"1.2.840.10008.3.1.2.3.{number}" for number in range(3, 6)
)
MEDIA_CREATION = _PRINT + "33"
RT_MACHINE_VERIFICATION = tuple(f"1.2.840.10008.5.1.4.34.{number}" for number in (8, 9))

#: The SOP classes that are negotiated by one name (PS3.4 H.3.2 and others).
META_SOP_CLASSES = {
    _PRINT + "9": (FILM_SESSION, FILM_BOX, _PRINT + "4", PRINTER),
    _PRINT + "9.1": (FILM_SESSION, FILM_BOX, _PRINT + "4.2", PRINTER),
    _PRINT + "18": (FILM_SESSION, FILM_BOX, _PRINT + "4.1", PRINTER),
    _PRINT + "18.1": (FILM_SESSION, FILM_BOX, _PRINT + "4.2", PRINTER),
    _PRINT + "32": (_PRINT + "31", PRINTER),
    "1.2.840.10008.3.1.2.1.4": ("1.2.840.10008.3.1.2.1.1", "1.2.840.10008.3.1.2.2.1"),
    "1.2.840.10008.3.1.2.5.4": ("1.2.840.10008.3.1.2.5.1", "1.2.840.10008.3.1.2.6.1"),
    "1.2.840.10008.5.1.4.32": tuple(f"1.2.840.10008.5.1.4.32.{n}" for n in (1, 2, 3)),
}
#: Classes whose instances are of another class, which commands name (PS3.4 CC.3.1, F.8).
INSTANCES_OF = {
    **dict.fromkeys((UPS_WATCH, UPS_PULL, UPS_EVENT, UPS_QUERY), UPS_PUSH),
    **dict.fromkeys((PROCEDURE_STEP_RETRIEVE, PROCEDURE_STEP_NOTIFICATION), PROCEDURE_STEP),
}

_UPS_DOES_NOT_EXIST = 0xC307
_VERIFICATION_NOT_FOUND = 0xC112
_NO_SUCH_INSTANCE = {
    UPS_PUSH: _UPS_DOES_NOT_EXIST,
    **dict.fromkeys(RT_MACHINE_VERIFICATION, _VERIFICATION_NOT_FOUND),
}
_WARN_OF_ATTRIBUTES = (UPS_PUSH, PROCEDURE_STEP, MEDIA_CREATION)


@dataclass(slots=True)
class ManagedInstance:
    """An instance: its class, and its attributes with text in Unicode."""

    sop_class_uid: str
    attributes: Dataset = field(default_factory=Dataset)


class ManagedHandler(Handler):
    """Serves the N- services, and the C-FIND of UPS, for the instances of ``sop_classes``.

    ``instances`` maps SOP Instance UIDs to `ManagedInstance`s; what is always there, such as the
    printer, stands in it from the beginning. A Meta SOP class stands for its members.

    The hooks `creating`, `changing`, `deleting`, `action` and `event` return what a method of a
    `Handler` may: None, a status, a Dataset for the answer, a pair of them, or a Deferred or
    coroutine of one. With a failure, returned or raised, nothing is changed.
    """

    def __init__(
        self,
        sop_classes: Iterable[str],
        instances: MutableMapping[str, ManagedInstance] | None = None,
    ) -> None:
        self.contexts = (VERIFICATION, *sop_classes)
        self.instances = {} if instances is None else instances

    # --- hooks

    def creating(self, request: Request, uid: str, attributes: Dataset) -> Any:
        """An instance is to be created; ``attributes`` may be completed here."""

    def changing(self, request: Request, instance: ManagedInstance, changes: Dataset) -> Any:
        """Attributes of an instance are to be set; ``changes`` may be corrected here."""

    def deleting(self, request: Request, instance: ManagedInstance) -> Any:
        """An instance is to be deleted."""

    def action(self, request: Request, instance: ManagedInstance) -> Any:
        """An action of ``request.action_type`` upon an instance."""
        return NO_SUCH_ACTION_TYPE

    def event(self, request: Request) -> Any:
        """An event of ``request.event_type`` that another SCP reports."""
        return NO_SUCH_EVENT_TYPE

    # --- the services

    async def n_create(self, request: Request) -> Any:
        class_uid = self._class_of(request)
        uid = request.sop_instance_uid or new_uid()
        if not is_valid_uid(uid):
            raise StatusError(INVALID_SOP_INSTANCE_UID)
        self._check_new(uid)
        attributes = in_unicode_with_hint(request.dataset)
        status, answer = await _result(self.creating(request, uid, attributes))
        if category(status) is not Category.FAILURE:
            self._check_new(uid)  # the hook may have taken its time
            self.instances[uid] = ManagedInstance(class_uid, attributes)
        return status, answer, {"AffectedSOPInstanceUID": uid}

    def n_get(self, request: Request) -> Any:
        instance = self._instance_of(request)
        asked = request.attributes or tags_of(instance.attributes)
        answer = Dataset()
        for tag in asked:
            if tag in instance.attributes:
                answer[tag] = instance.attributes[tag]
        set_character_set(answer, instance.attributes)
        missing = tuple(int(tag) for tag in asked if tag not in instance.attributes)
        if not missing:
            return SUCCESS, answer
        warned = instance.sop_class_uid in _WARN_OF_ATTRIBUTES
        status = WARNING_OPTIONAL_ATTRIBUTES_NOT_SUPPORTED if warned else ATTRIBUTE_LIST_ERROR
        return status, answer, {"AttributeIdentifierList": missing}

    async def n_set(self, request: Request) -> Any:
        instance = self._instance_of(request)
        if request.dataset is None:
            raise StatusError(MISTYPED_ARGUMENT, "nothing to set")
        changes = in_unicode_with_hint(request.dataset)
        status, answer = await _result(self.changing(request, instance, changes))
        if category(status) is not Category.FAILURE:
            hints = [copied(changes), copied(instance.attributes)]
            instance.attributes.update(changes)
            set_character_set(instance.attributes, *hints)
        return status, answer

    async def n_delete(self, request: Request) -> Any:
        instance = self._instance_of(request)
        status, answer = await _result(self.deleting(request, instance))
        if category(status) is not Category.FAILURE:
            self.instances.pop(request.sop_instance_uid, None)
        return status, answer

    async def n_action(self, request: Request) -> Any:
        return await _result(self.action(request, self._instance_of(request)))

    async def n_event_report(self, request: Request) -> Any:
        self._class_of(request)
        return await _result(self.event(request))

    def find(self, request: Request) -> Any:
        if INSTANCES_OF.get(request.context.abstract_syntax) != UPS_PUSH:
            return super().find(request)
        return self._found(request.dataset or Dataset())

    def _found(self, keys: Dataset) -> Iterator[Dataset]:
        fits = matcher(keys)
        for uid, instance in list(self.instances.items()):
            if instance.sop_class_uid == UPS_PUSH:
                complete = copied(instance.attributes)
                complete.SOPClassUID, complete.SOPInstanceUID = instance.sop_class_uid, uid
                if fits(complete):
                    yield requested(complete, keys)

    # --- checks

    def _class_of(self, request: Request) -> str:
        """The class of the instances that a command means. Raises `StatusError` where it does not
        belong in its presentation context."""
        named, syntax = request.sop_class_uid, request.context.abstract_syntax
        instances_of = INSTANCES_OF.get(named, named)
        members = META_SOP_CLASSES.get(syntax, (INSTANCES_OF.get(syntax, syntax),))
        if instances_of not in members:
            raise StatusError(NO_SUCH_SOP_CLASS, "not a class of this presentation context")
        return instances_of

    def _instance_of(self, request: Request) -> ManagedInstance:
        class_uid = self._class_of(request)
        if not is_valid_uid(request.sop_instance_uid):
            raise StatusError(INVALID_SOP_INSTANCE_UID)
        instance = self.instances.get(request.sop_instance_uid)
        if instance is None:
            raise StatusError(_NO_SUCH_INSTANCE.get(class_uid, NO_SUCH_SOP_INSTANCE))
        if instance.sop_class_uid != class_uid:
            raise StatusError(CLASS_INSTANCE_CONFLICT)
        return instance

    def _check_new(self, uid: str) -> None:
        if uid in self.instances:
            raise StatusError(DUPLICATE_SOP_INSTANCE)


def new_uid() -> str:
    """A UID of a UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def in_unicode_with_hint(dataset: Dataset | None) -> Dataset:
    """A copy in Unicode that still says in which character set it came."""
    if dataset is None:
        return Dataset()
    copy = in_unicode(dataset)
    if "SpecificCharacterSet" in dataset:
        tag = dataset["SpecificCharacterSet"].tag
        copy[tag] = element_in_unicode(dataset, tag)
    return copy


async def _result(given: Any) -> tuple[int, Dataset | None]:
    """Status and answer of what a hook gave."""
    if inspect.isawaitable(given):
        given = await given
    if given is None:
        return SUCCESS, None
    if isinstance(given, tuple):
        status, answer = given
        return status, answer
    if isinstance(given, Dataset):
        return SUCCESS, given
    return int(given), None
