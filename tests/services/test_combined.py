"""Several service classes at one address."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from memory import CT, EXPLICIT, JPEG, STEP, Serving, World, source

from twisted_dimse import STUDY_ROOT, VERIFICATION, AssociationRejected, Handler, StatusError
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.worklist import WorklistHandler
from twisted_dimse.uids import MODALITY_WORKLIST_FIND


class Storing(Handler):
    contexts = (VERIFICATION, (CT, [JPEG, EXPLICIT]))
    prefer = (EXPLICIT,)

    def __init__(self) -> None:
        self.stored: list[str] = []

    def store(self, request: Any, dataset: Any) -> int:
        self.stored.append(request.sop_instance_uid)
        return 0

    def resolve(self, ae_title: str) -> Any:
        return "here" if ae_title == "THERE" else None


class Steps(Handler):
    contexts = (STEP, CT)
    roles: ClassVar[dict[str, str]] = {STEP: "scu"}

    def n_create(self, request: Any) -> int:
        return 0x0111

    def store(self, request: Any, dataset: Any) -> int:
        raise AssertionError("the first that accepts a context serves it")


def test_each_request_goes_to_the_handler_that_accepts_its_context() -> None:
    storing = Storing()
    combined = CombinedHandler(storing, WorklistHandler(list), Steps())
    with World() as world:
        contexts = [VERIFICATION, CT, MODALITY_WORKLIST_FIND, STEP, STUDY_ROOT.find]
        association, _ = world.associate(combined, contexts=contexts)
        assert len(association.accepted) == 4
        assert world.result(association.echo()).status == 0
        assert world.result(association.store(source())).status == 0
        assert world.result(association.find({}, level=None, model=MODALITY_WORKLIST_FIND)) == []
        with pytest.raises(StatusError) as refused:
            world.result(association.n_create(STEP))
        assert refused.value.status == 0x0111
        world.result(association.release())
    assert storing.stored == ["1.2.3.4"]


def test_contexts_preferences_roles_and_destinations_are_those_of_all() -> None:
    combined = CombinedHandler(WorklistHandler(list), Storing(), Steps())
    assert combined.accepted_contexts() == {
        VERIFICATION: (),
        MODALITY_WORKLIST_FIND: (),
        CT: (JPEG, EXPLICIT),
        STEP: (),
    }
    assert combined.prefer == (EXPLICIT,)
    assert combined.roles == {STEP: "scu"}
    assert set(combined.extended) == {MODALITY_WORKLIST_FIND}
    assert combined.resolve("THERE") == "here"
    assert combined.resolve("NOWHERE") is None
    assert not combined.storage_of_any_kind


def test_storage_of_a_kind_that_is_only_declared_goes_to_the_handler_that_takes_it() -> None:
    class AnyKind(Storing):
        storage_of_any_kind = True

    storing = AnyKind()
    private = "1.2.840.99.1"
    with World() as world:
        association, _ = world.associate(
            CombinedHandler(WorklistHandler(list), storing),
            contexts=[(private, [EXPLICIT])],
            common_extended={private: ("1.2.840.10008.4.2", [])},
        )
        image = source()
        image = type(image)(private, "1.2.3", EXPLICIT, image.data)
        assert world.result(association.store(image)).status == 0
        world.result(association.release())
    assert storing.stored == ["1.2.3"]


def test_all_are_told_of_the_end_and_any_may_reject() -> None:
    first, second = Serving(), Serving()
    with World() as world:
        association, _ = world.associate(CombinedHandler(first, second))
        world.result(association.release())
        association, _ = world.associate(CombinedHandler(first, second))
        association.abort()
        world.run()
        assert [len(handler.ends) for handler in (first, second)] == [2, 2]

        async def reject(request: Any) -> None:
            raise AssociationRejected(1, 1, 3)

        second.associate = reject  # type: ignore[method-assign]
        with pytest.raises(AssociationRejected):
            world.associate(CombinedHandler(first, second))


def test_nothing_cannot_be_combined() -> None:
    with pytest.raises(ValueError):
        CombinedHandler()
