"""The Query/Retrieve service class (PS3.4 C), both halves.

SCU: `query`, `retrieve` and `move`, each one call with associations of its own. SCP:
`QueryRetrieveHandler` over instances in memory, which says what a larger archive should answer.

    studies = await query("PACS@10.0.0.5:104", {"PatientName": "DOE*", "StudyInstanceUID": ""})
    outcome = await retrieve(peer, {"StudyInstanceUID": uid}, handler=FilingHandler(files))
    outcome = await move(peer, {"StudyInstanceUID": uid}, destination="ME",
                         receive="tcp:11112", handler=FilingHandler(files))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydicom import Dataset

from twisted_dimse.client import DEFAULT_CALLING_AE_TITLE
from twisted_dimse.dimse.status import PENDING, PENDING_OPTIONAL_KEYS_NOT_SUPPORTED
from twisted_dimse.handler import Handler, Request
from twisted_dimse.keys import as_dataset
from twisted_dimse.results import RetrieveOutcome
from twisted_dimse.services.calls import Receiver, associated, deferred, the_reactor
from twisted_dimse.services.identifiers import (
    Identifier,
    QueryOptions,
    check_query,
    check_retrieve,
)
from twisted_dimse.services.matching import CONTROL, Rules, matcher, requested
from twisted_dimse.services.query_models import InformationModel, Level
from twisted_dimse.services.retrieval import Retrieval
from twisted_dimse.services.values import copied, new_element, tags_of, texts, vr_of
from twisted_dimse.uids import PATIENT_ROOT, QUERY_MODELS, STUDY_ROOT, QueryModel

Progress = Callable[[RetrieveOutcome], object]


# --- SCU


@deferred
async def query(
    peer: Any,
    keys: Any,
    *,
    level: str = "STUDY",
    model: QueryModel | str | None = None,
    negotiate: QueryOptions | None = None,
    limit: int | None = None,
    **options: Any,
) -> list[Dataset]:
    """C-FIND over an association of its own with ``peer`` (PS3.4 C.4.1). Fires with the matches.

    ``keys`` is a Dataset or a mapping, as in `keys.as_dataset`; ``level`` fills (0008,0052) where
    they lack it. Without a ``model`` study root is asked, or patient root where the peer has only
    that, or the level is PATIENT. ``negotiate``
    offers extended negotiation; after ``limit`` matches the query is cancelled. ``options`` are
    those of `connect`. Fails with `StatusError` where the peer answers with one.
    """
    classes = _sop_classes("find", keys, level, model)
    options["extended"] = _offering(negotiate, classes, options.get("extended"))
    async with associated(peer, contexts=classes, **options) as association:
        if limit is None:
            found: list[Dataset] = await association.find(keys, level=level, model=model)
            return found
        return await _first(association.find_each(keys, level=level, model=model), limit)


async def _first(answers: Any, limit: int) -> list[Dataset]:
    found: list[Dataset] = []
    async with answers as matches:
        async for match in matches:
            if len(found) >= limit:
                break
            found.append(match)
    return found


@deferred
async def retrieve(
    peer: Any,
    keys: Any,
    *,
    handler: Handler | Callable[[], Handler],
    level: str = "STUDY",
    model: QueryModel | None = None,
    progress: Progress | None = None,
    sop_classes: Iterable[str] | None = None,
    transfer_syntaxes: Iterable[str] | None = None,
    **options: Any,
) -> RetrieveOutcome:
    """C-GET from ``peer`` of whatever the unique ``keys`` mean (PS3.4 C.4.3); ``handler`` receives
    it, by `store_sink` or `store`. ``level`` and ``model`` as for `query`.

    SOP classes are asked for, unless ``sop_classes`` has them, and any transfer syntax is taken,
    unless ``transfer_syntaxes`` limits them; contexts, roles and further associations are
    planned by them (see `retrieval`). Fires with the outcome over all; fails with
    a `StatusError`, which has it as ``outcome``, where nothing could be fetched that is there.
    ``progress`` is called with the outcome so far. ``options`` are those of `connect`.
    """
    identifier = _with_level(keys, level)
    by_patient = identifier.QueryRetrieveLevel == "PATIENT"
    retrieval = Retrieval(
        peer,
        identifier,
        model or (PATIENT_ROOT if by_patient else STUDY_ROOT),
        handler if isinstance(handler, Handler) else handler(),
        options,
        sop_classes=sop_classes,
        transfer_syntaxes=transfer_syntaxes,
        progress=progress,
    )
    return await retrieval.run()


@deferred
async def move(
    peer: Any,
    keys: Any,
    *,
    destination: str | None = None,
    receive: Any = None,
    handler: Handler | Callable[[], Handler] | None = None,
    level: str = "STUDY",
    model: QueryModel | str | None = None,
    progress: Progress | None = None,
    reactor: Any = None,
    **options: Any,
) -> RetrieveOutcome:
    """C-MOVE over an association of its own with ``peer`` (PS3.4 C.4.2). Fires with the outcome.

    ``keys``, ``level`` and ``model`` are as for `query`; ``progress`` is called with the outcome
    so far. With ``receive``, a server endpoint or its string, ``handler`` receives what is moved
    there, for as long as it takes, under the title ``destination``, which is our calling title if
    not given. The peer must know that title with that address. ``options`` are those of `connect`.
    """
    reactor = the_reactor(reactor)
    title = destination or options.get("calling_ae_title", DEFAULT_CALLING_AE_TITLE)
    receiver = None
    if receive is not None:
        if handler is None:
            raise ValueError("something is to receive, and no handler says what becomes of it")
        # Whatever its class is, it was asked for.
        receiver = await Receiver.listen(receive, handler, title, reactor, promiscuous=True)
    try:
        classes = _sop_classes("move", keys, level, model)
        async with associated(peer, contexts=classes, reactor=reactor, **options) as association:
            outcome: RetrieveOutcome = await association.move(
                keys, destination=title, level=level, model=model, progress=progress
            )
            return outcome
    finally:
        if receiver is not None:
            await receiver.end()


def _sop_classes(service: str, keys: Any, level: str, model: QueryModel | str | None) -> list[str]:
    """What to propose for a service, the first choice first."""
    if isinstance(model, QueryModel):
        return [str(getattr(model, service))]
    if model is not None:
        return [str(model)]
    named = as_dataset(keys).get("QueryRetrieveLevel") or level
    models = (PATIENT_ROOT,) if named == "PATIENT" else (STUDY_ROOT, PATIENT_ROOT)
    return [str(getattr(model, service)) for model in models]


def _offering(
    negotiate: QueryOptions | None, sop_classes: list[str], extended: Mapping[str, bytes] | None
) -> dict[str, bytes]:
    offers = {uid: negotiate.offer(uid) for uid in sop_classes} if negotiate is not None else {}
    return {**offers, **(extended or {})}


def _with_level(keys: Any, level: str) -> Dataset:
    identifier = copied(as_dataset(keys))
    if "QueryRetrieveLevel" not in identifier:
        identifier.QueryRetrieveLevel = level
    return identifier


# --- SCP


class QueryRetrieveHandler(Handler):
    """Query/Retrieve SCP over ``instances``, a callable that gives the Datasets there are.

    It looks at each of them for each request: for tests, examples and small collections.
    `options` says which extended negotiation it takes.
    """

    options = QueryOptions(
        relational=True, combined_date_time=True, empty_value=True, multiple_value=True
    )

    def __init__(self, instances: Callable[[], Iterable[Dataset]]) -> None:
        self._instances = instances
        self.extended = {uid: self.options.answer(uid) for uid in _all_sop_classes()}

    def accepted_contexts(self) -> dict[str, tuple[str, ...]]:
        return {**super().accepted_contexts(), **dict.fromkeys(_all_sop_classes(), ())}

    def find(self, request: Request) -> Iterator[tuple[int, Dataset]]:
        options = self.options.agreed(request.association, request.sop_class_uid)
        keys = request.dataset
        identifier = check_query(keys, request.sop_class_uid, relational=options.relational)
        assert keys is not None
        return self._answers(identifier, keys, options.rules, request.association.called_ae_title)

    def get(self, request: Request) -> list[Dataset]:
        options = self.options.agreed(request.association, request.sop_class_uid)
        identifier = check_retrieve(
            request.dataset, request.sop_class_uid, relational=options.relational
        )
        return [each for each in self._instances() if _is_meant(each, identifier)]

    def move(self, request: Request) -> list[Dataset]:
        return self.get(request)

    def _answers(
        self, identifier: Identifier, keys: Dataset, rules: Rules, title: str
    ) -> Iterator[tuple[int, Dataset]]:
        fits = matcher(keys, rules)
        for level, instances in _entities(self._instances(), identifier):
            complete = _with_computed(level.name, instances, title)
            match = next((each for each in complete if fits(each)), None)
            if match is not None:
                yield _answer(match, keys, rules, identifier)


def _all_sop_classes() -> Iterator[str]:
    return (uid for model in QUERY_MODELS for uid in model[1:])


def _answer(
    match: Dataset, keys: Dataset, rules: Rules, identifier: Identifier
) -> tuple[int, Dataset]:
    """An answer with its status: optional keys that nothing is known of are left out of it."""
    answer = requested(match, keys, rules)
    unknown = [
        tag
        for tag in tags_of(keys)
        if tag not in match and tag not in CONTROL and identifier.model.level_of(tag) is None
    ]
    for tag in unknown:
        del answer[tag]
    for level in identifier.model.above(identifier.level):
        if level.unique.tag in match and level.unique.tag not in answer:
            answer[level.unique.tag] = match[level.unique.tag]
    return PENDING_OPTIONAL_KEYS_NOT_SUPPORTED if unknown else PENDING, answer


def _entities(
    instances: Iterable[Dataset], identifier: Identifier
) -> Iterator[tuple[Level, list[Dataset]]]:
    """The entities of a level below the ones that are named, each with its instances."""
    level = identifier.model.level(identifier.level)
    assert level is not None
    levels = (*identifier.model.above(level.name), level)
    found: dict[tuple[str, ...], list[Dataset]] = {}
    for instance in instances:
        unique = {each.unique.keyword: _text(instance, each.unique.tag) for each in levels}
        if all(unique[keyword] == uid for keyword, uid in identifier.above.items()):
            found.setdefault(tuple(unique.values()), []).append(instance)
    return ((level, group) for group in found.values())


def _is_meant(instance: Dataset, identifier: Identifier) -> bool:
    model: InformationModel = identifier.model
    above = {level.unique.keyword: level.unique.tag for level in model.levels}
    level = model.level(identifier.level)
    assert level is not None
    return _text(instance, level.unique.tag) in identifier.uids and all(
        _text(instance, above[keyword]) == uid for keyword, uid in identifier.above.items()
    )


def _text(dataset: Dataset, tag: int) -> str:
    return "\\".join(texts(dataset, tag))


def _with_computed(level: str, instances: list[Dataset], title: str) -> Iterator[Dataset]:
    """The instances of an entity, with what is only known of them together."""
    computed = {
        "RetrieveAETitle": [title],
        "InstanceAvailability": ["ONLINE"],
        **_COMPUTED[level](instances),
    }
    for instance in instances:
        complete = copied(instance)
        for keyword, found in computed.items():
            tag = _tag(keyword)
            vr = vr_of(complete, tag)
            complete[tag] = new_element(tag, vr, found if len(found) > 1 else found[0])
        yield complete


def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def _distinct(instances: list[Dataset], keyword: str) -> list[str]:
    found = (texts(instance, _tag(keyword)) for instance in instances)
    return sorted({text for each in found for text in each}) or [""]


def _number(instances: list[Dataset], keyword: str) -> list[int]:
    return [len(_distinct(instances, keyword))]


def _of_patient(instances: list[Dataset]) -> dict[str, list[Any]]:
    return {
        "NumberOfPatientRelatedStudies": _number(instances, "StudyInstanceUID"),
        "NumberOfPatientRelatedSeries": _number(instances, "SeriesInstanceUID"),
        "NumberOfPatientRelatedInstances": _number(instances, "SOPInstanceUID"),
    }


def _of_study(instances: list[Dataset]) -> dict[str, list[Any]]:
    return {
        "ModalitiesInStudy": _distinct(instances, "Modality"),
        "SOPClassesInStudy": _distinct(instances, "SOPClassUID"),
        "NumberOfStudyRelatedSeries": _number(instances, "SeriesInstanceUID"),
        "NumberOfStudyRelatedInstances": _number(instances, "SOPInstanceUID"),
    }


def _of_series(instances: list[Dataset]) -> dict[str, list[Any]]:
    return {"NumberOfSeriesRelatedInstances": _number(instances, "SOPInstanceUID")}


def _of_image(instances: list[Dataset]) -> dict[str, list[Any]]:
    meta = getattr(instances[0], "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    return {"AvailableTransferSyntaxUID": [str(syntax)]} if syntax else {}


_COMPUTED: dict[str, Callable[[list[Dataset]], dict[str, list[Any]]]] = {
    "PATIENT": _of_patient,
    "STUDY": _of_study,
    "SERIES": _of_series,
    "IMAGE": _of_image,
}
