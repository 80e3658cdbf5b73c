"""Sending files: contexts and associations planned for all of them, one outcome for each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import raw
from memory import CT, EXPLICIT, IMPLICIT, JPEG, MR, Endpoint, Script, Serving, World
from pydicom.data import get_testdata_file
from twisted.internet.defer import CancelledError, Deferred, fail

from twisted_dimse import AssociationRejected, ConnectionFailed, DimseError, Peer, StatusError
from twisted_dimse.datastream import FileSource, part10_header
from twisted_dimse.services.sending import _plan_transcoded, store_files
from twisted_dimse.services.storage import StoreOutcome, plan_contexts
from twisted_dimse.transcoding import CannotTranscode, Transcoder
from twisted_dimse.upperlayer.provider import Provider


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def file_source(number: int, sop_class: str = CT, syntax: str = EXPLICIT) -> FileSource:
    return FileSource(f"{number}.dcm", sop_class, f"1.2.{number}", syntax, 0, 0)


def written(folder: Path, number: int, sop_class: str = CT, syntax: str = EXPLICIT) -> str:
    path = folder / f"{number:04}.dcm"
    uid = f"1.2.{number}"
    data = raw.dataset(uid, 100, sop_class=sop_class)
    path.write_bytes(part10_header(sop_class, uid, syntax) + data)
    return str(path)


def sending(world: World, endpoint: Any, paths: Any, **options: Any) -> Deferred[Any]:
    return store_files(Peer("SERVER", endpoint), paths, reactor=world.clock, **options)


def anything(**methods: Any) -> Serving:
    """A handler that takes every storage class there is."""
    handler = Serving(**methods)
    handler.contexts = None  # type: ignore[assignment]
    return handler


# --- planning


def test_one_context_is_planned_for_each_class_and_syntax() -> None:
    sources = [
        file_source(0),
        file_source(1, MR),
        file_source(2),
        file_source(3, CT, IMPLICIT),
        file_source(4, MR),
    ]
    ((batch, contexts),) = plan_contexts(sources)
    assert batch == sources
    assert [(c.abstract_syntax, c.transfer_syntaxes) for c in contexts] == [
        (CT, (EXPLICIT,)),
        (MR, (EXPLICIT,)),
        (CT, (IMPLICIT,)),
    ]


@pytest.mark.parametrize(
    ("kinds", "batches"), [(0, []), (1, [1]), (128, [128]), (129, [128, 1]), (300, [128, 128, 44])]
)
def test_no_more_contexts_are_planned_than_an_association_takes(
    kinds: int, batches: list[int]
) -> None:
    sources = [file_source(number, f"1.9.{number}") for number in range(kinds)]
    planned = list(plan_contexts(sources))
    assert [len(contexts) for _, contexts in planned] == batches
    assert [source for batch, _ in planned for source in batch] == sources


def test_planning_looks_no_further_than_it_has_to() -> None:
    taken = 0

    def sources() -> Iterator[FileSource]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield file_source(number, f"1.9.{number}")

    next(plan_contexts(sources()))
    assert taken == 129


# --- sending


@pytest.mark.parametrize("window", [None, 1, 4])
def test_every_file_is_sent_and_has_its_outcome(
    world: World, tmp_path: Path, window: int | None
) -> None:
    handler = anything()
    paths = [written(tmp_path, number, [CT, MR][number % 2]) for number in range(10)]
    told: list[StoreOutcome] = []
    done = world.result(
        sending(world, world.serve(handler), paths, window=window, outcome=told.append)
    )
    assert [one.path for one in done] == paths
    assert told == done
    assert all(one.ok for one in done)
    assert [one.octets for one in done] == [FileSource.of(path).size for path in paths]
    assert [request.sop_instance_uid for request in handler.requests] == [
        f"1.2.{number}" for number in range(10)
    ]
    assert len(world.links) == 1


def test_a_folder_is_sent_with_all_that_is_in_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    written(tmp_path / "deep" / "er", 1)
    written(tmp_path, 2)
    (tmp_path / "README").write_text("no image")
    done = world.result(sending(world, world.serve(anything()), [tmp_path]))
    assert sorted((Path(one.path).name, one.ok, one.skipped) for one in done) == [
        ("0001.dcm", True, False),
        ("0002.dcm", True, False),
        ("README", False, True),
    ]


def test_more_kinds_than_one_association_carries_go_over_several(
    world: World, tmp_path: Path
) -> None:
    handler = anything()
    uids = [f"1.2.840.10008.5.1.4.1.1.9999.{number}" for number in range(200)]
    handler.contexts = uids
    paths = [written(tmp_path, number, uid) for number, uid in enumerate(uids)]
    done = world.result(sending(world, world.serve(handler), paths))
    assert [one.path for one in done if one.ok] == paths
    assert len(world.links) == 2


def test_what_is_no_file_and_what_is_no_image_do_not_stop_the_rest(
    world: World, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("no image")
    paths = [str(tmp_path / "absent.dcm"), str(text), written(tmp_path, 1)]
    done = world.result(sending(world, world.serve(anything()), paths))
    assert [(one.ok, one.skipped, bool(one.error)) for one in done] == [
        (False, False, True),
        (False, True, True),
        (True, False, False),
    ]


def test_nothing_to_send_needs_no_association(world: World, tmp_path: Path) -> None:
    assert world.result(sending(world, world.serve(), [tmp_path])) == []
    assert world.links == []


def test_a_file_that_is_refused_does_not_stop_the_rest(world: World, tmp_path: Path) -> None:
    def store(request: Any, _dataset: Any) -> int:
        if request.sop_instance_uid == "1.2.1":
            raise StatusError(0xA700, "full")
        return 0xB000 if request.sop_instance_uid == "1.2.2" else 0

    paths = [written(tmp_path, number) for number in range(4)]
    done = world.result(sending(world, world.serve(anything(store=store)), paths))
    assert [(one.status, one.ok) for one in done] == [
        (0, True),
        (0xA700, False),
        (0xB000, True),
        (0, True),
    ]
    assert "full" in done[1].error


def test_a_class_that_the_peer_does_not_take_does_not_stop_the_rest(
    world: World, tmp_path: Path
) -> None:
    handler = Serving()
    paths = [written(tmp_path, 1), written(tmp_path, 2, MR), written(tmp_path, 3)]
    done = world.result(sending(world, world.serve(handler), paths))
    refused, *others = sorted(done, key=lambda one: one.ok)
    assert (refused.path, refused.ok) == (paths[1], False)
    assert "MR Image Storage" in refused.error
    assert [(one.path, one.ok) for one in others] == [(paths[0], True), (paths[2], True)]


def test_a_peer_that_takes_nothing_of_it_fails_no_other_batch(world: World, tmp_path: Path) -> None:
    kinds = [f"1.9.{number}" for number in range(128)]
    paths = [written(tmp_path, number, uid) for number, uid in enumerate([*kinds, CT])]
    done = world.result(sending(world, world.serve(Serving()), paths))
    assert [one.ok for one in done] == [False] * 128 + [True]
    assert not any(one.abandoned for one in done)


def test_without_an_association_all_are_abandoned(world: World, tmp_path: Path) -> None:
    endpoint = world.serve()
    endpoint.refusal = OSError("refused")
    paths = [written(tmp_path, number) for number in range(3)]
    told: list[StoreOutcome] = []
    with pytest.raises(ConnectionFailed):
        world.result(sending(world, endpoint, paths, outcome=told.append))
    assert [(one.path, one.abandoned, one.ok) for one in told] == [
        (path, True, False) for path in paths
    ]


def test_a_rejection_is_the_failure(world: World, tmp_path: Path) -> None:
    endpoint = world.serve(require_called=True, ae_title="OTHER")
    with pytest.raises(AssociationRejected):
        world.result(sending(world, endpoint, [written(tmp_path, 1)]))


@pytest.mark.parametrize("window", [None, 3])
def test_an_association_that_ends_early_abandons_what_was_not_answered(
    world: World, tmp_path: Path, window: int | None
) -> None:
    def store(request: Any, _dataset: Any) -> int:
        if len(handler.requests) == 5:
            request.association.abort()
        return 0

    handler = anything(store=store)
    paths = [written(tmp_path, number) for number in range(20)]
    told: list[StoreOutcome] = []
    with pytest.raises(DimseError):
        world.result(
            sending(world, world.serve(handler), paths, outcome=told.append, window=window)
        )
    assert sorted(one.path for one in told) == paths
    assert sum(one.ok for one in told) <= 4
    assert all(one.ok or one.abandoned for one in told)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_peer_that_aborts_instead_of_confirming_the_release_costs_nothing_that_was_answered(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(Provider, "answer_release", Provider.abort)
    paths = [written(tmp_path, number) for number in range(4)]
    done = world.result(sending(world, world.serve(anything()), paths, jobs=jobs))
    assert sorted(one.path for one in done if one.ok) == paths
    assert len(world.links) == jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_sending_that_is_cancelled_says_so_whatever_is_left(
    world: World, tmp_path: Path, jobs: int
) -> None:
    never: Deferred[int] = Deferred()
    handler = anything(store=lambda *_: never)
    paths = [written(tmp_path, number) for number in range(jobs)]
    running = sending(world, world.serve(handler), paths, jobs=jobs)
    world.run()
    running.cancel()
    with pytest.raises(CancelledError):
        world.result(running)


def test_no_more_files_are_open_than_are_under_way(world: World, tmp_path: Path) -> None:
    script = Script(user_items=b"\x53\0\0\4\0\2\0\2")
    paths = [written(tmp_path, number) for number in range(20)]
    running = sending(world, Endpoint(world, script), paths, window=2)
    world.run()
    assert len(script.messages) == 2
    assert open_below(tmp_path) <= 2
    running.cancel()
    with pytest.raises((CancelledError, DimseError)):
        world.result(running)
    world.advance(60)
    assert open_below(tmp_path) == 0
    assert all(link.requestor.lost for link in world.links)


def open_below(folder: Path) -> int:
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(str(folder) in str(link.readlink()) for link in links)


def test_a_file_that_goes_away_before_its_turn_does_not_stop_the_rest(
    world: World, tmp_path: Path
) -> None:
    def store(request: Any, _dataset: Any) -> None:
        if request.sop_instance_uid == "1.2.0":
            Path(paths[3]).unlink()

    paths = [written(tmp_path, number) for number in range(5)]
    done = world.result(sending(world, world.serve(anything(store=store)), paths))
    assert [one.path for one in done if one.ok] == [*paths[:3], paths[4]]
    (lost,) = (one for one in done if not one.ok)
    assert (lost.path, lost.status, lost.abandoned) == (paths[3], None, False)
    assert "No such file" in lost.error


def test_what_the_caller_knows_is_skipped(world: World, tmp_path: Path) -> None:
    handler = anything()
    paths = [written(tmp_path, number) for number in range(3)]
    known = {"1.2.1"}.__contains__
    done = world.result(
        sending(world, world.serve(handler), paths, known=lambda one: known(one.sop_instance_uid))
    )
    assert [request.sop_instance_uid for request in handler.requests] == ["1.2.0", "1.2.2"]
    assert {one.path: (one.ok, one.skipped) for one in done} == {
        paths[0]: (True, False),
        paths[1]: (False, True),
        paths[2]: (True, False),
    }


# --- on a new association


@pytest.mark.parametrize("window", [None, 3])
def test_what_was_not_answered_goes_over_a_new_association_and_nothing_else(
    world: World, tmp_path: Path, window: int | None
) -> None:
    answered: list[str] = []

    def store(request: Any, _dataset: Any) -> None:
        if len(handler.requests) in (3, 9):
            request.association.abort()
        else:
            answered.append(request.sop_instance_uid)

    handler = anything(store=store)
    paths = [written(tmp_path, number) for number in range(10)]
    running = sending(world, world.serve(handler), paths, window=window, retries=2)
    world.advance(10)
    done = world.result(running)
    assert sorted(one.path for one in done) == paths
    assert all(one.ok for one in done)
    assert len(world.links) == 3
    if window is None:
        assert sorted(answered) == [f"1.2.{number}" for number in range(10)]


def test_the_pause_before_another_try_grows_up_to_half_a_minute(
    world: World, tmp_path: Path
) -> None:
    tried: list[float] = []

    class Refusing(Endpoint):
        def connect(self, factory: Any) -> Deferred[Any]:
            tried.append(world.clock.seconds())
            return fail(OSError("refused"))

    running = sending(world, Refusing(world, None), [written(tmp_path, 1)], retries=7)
    world.advance(1000)
    with pytest.raises(ConnectionFailed):
        world.result(running)
    assert [then - before for before, then in pairwise(tried)] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("rejection", "tries"), [((1, 1, 3), 1), ((2, 3, 2), 3)], ids=["permanent", "transient"]
)
def test_only_a_rejection_that_may_pass_is_followed_by_another_try(
    world: World, tmp_path: Path, rejection: tuple[int, int, int], tries: int
) -> None:
    def associate(_request: Any) -> None:
        raise AssociationRejected(*rejection)

    endpoint = world.serve(Serving(associate=associate))
    running = sending(world, endpoint, [written(tmp_path, 1)], retries=2)
    world.advance(100)
    with pytest.raises(AssociationRejected):
        world.result(running)
    assert len(world.links) == tries


def test_those_whose_association_never_came_are_told_too(world: World, tmp_path: Path) -> None:
    """130 kinds go over two associations, of which the first is not made."""
    endpoint = world.serve()
    endpoint.refusal = OSError("refused")
    paths = [written(tmp_path, number, f"1.9.{number}") for number in range(130)]
    told: list[StoreOutcome] = []
    with pytest.raises(ConnectionFailed):
        world.result(sending(world, endpoint, paths, outcome=told.append))
    assert [one.path for one in told] == paths
    assert all(one.abandoned for one in told)


def test_no_more_classes_go_transcoded_than_an_association_takes() -> None:
    sources = [file_source(number, f"1.9.{number}", JPEG) for number in range(130)]
    planned = list(_plan_transcoded([*sources, sources[0]]))
    assert [len(contexts) for _, contexts in planned] == [128, 2]
    assert [len(batch) for batch, _ in planned] == [129, 2]
    assert {context.transfer_syntaxes for _, contexts in planned for context in contexts} == {
        (EXPLICIT, IMPLICIT)
    }


def test_what_can_be_sent_in_no_way_is_told_with_both_reasons(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transcoded(*_: Any) -> Any:
        raise CannotTranscode("cannot be decoded: no codec")

    monkeypatch.setattr(Transcoder, "transcoded", transcoded)
    paths = [written(tmp_path, 1, CT, JPEG), written(tmp_path, 2)]
    handler = Serving()
    handler.contexts = [(CT, [EXPLICIT])]  # type: ignore[assignment]
    done = world.result(sending(world, world.serve(handler), paths, transcode=True))
    refused, sent = sorted(done, key=lambda one: one.ok)
    assert (refused.path, sent.path, sent.ok) == (*paths, True)
    assert "JPEG Baseline" in refused.error
    assert refused.error.endswith(", which cannot be decoded: no codec")


def test_real_images_go_as_they_are(world: World) -> None:
    names = ["CT_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"]
    paths = [str(get_testdata_file(name)) for name in names]
    data: list[bytes] = []
    handler = anything(store=lambda request, _: data.append(request.encoded_dataset))
    done = world.result(sending(world, world.serve(handler), paths))
    assert all(one.ok for one in done)
    for path, octets in zip(paths, data, strict=True):
        assert octets.removesuffix(b"\0") in Path(path).read_bytes()


@pytest.mark.parametrize(
    ("status", "ok"), [(None, False), (0, True), (0xB000, True), (0xA700, False), (0xFE00, False)]
)
def test_an_outcome_is_good_where_the_peer_has_the_instance(status: int | None, ok: bool) -> None:
    assert StoreOutcome("path", status=status).ok is ok
