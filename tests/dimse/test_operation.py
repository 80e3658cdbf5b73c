"""Outstanding operations: message IDs, the window, and answers in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_dimse.dimse.operation import Invocations
from twisted_dimse.errors import ProtocolViolation


class Begun(list[tuple[str, int]]):
    """What has begun, with the message IDs."""

    def __call__(self, operation: str, message_id: int) -> None:
        self.append((operation, message_id))


def window(limit: int) -> tuple[Invocations[str], Begun]:
    begun = Begun()
    return Invocations(begun, limit), begun


def test_an_operation_begins_at_once_where_the_window_has_room() -> None:
    invocations, begun = window(2)
    invocations.submit("a")
    invocations.submit("b")
    assert begun == [("a", 1), ("b", 2)]


def test_without_a_window_one_operation_is_outstanding_at_a_time() -> None:
    begun = Begun()
    invocations = Invocations(begun)
    invocations.submit("a")
    invocations.submit("b")
    assert begun == [("a", 1)]


def test_what_is_outstanding_and_what_waits_is_counted_together() -> None:
    invocations, _begun = window(1)
    for count, name in enumerate("abc", 1):
        invocations.submit(name)
        assert len(invocations) == count


def test_what_does_not_fit_the_window_waits_and_begins_in_order() -> None:
    invocations, begun = window(1)
    for name in "abc":
        invocations.submit(name)
    assert begun == [("a", 1)]
    invocations.responded(1, final=True)
    invocations.advance()
    assert begun == [("a", 1), ("b", 2)]
    invocations.responded(2, final=True)
    invocations.advance()
    assert begun == [("a", 1), ("b", 2), ("c", 3)]


def test_what_comes_later_does_not_overtake_what_waits() -> None:
    invocations, begun = window(1)
    invocations.submit("a")
    invocations.submit("b")
    invocations.responded(1, final=True)
    invocations.submit("c")
    invocations.advance()
    assert [name for name, _ in begun] == ["a", "b"]


def test_no_limit_means_that_all_begin_at_once() -> None:
    invocations, begun = window(0)
    for number in range(1000):
        invocations.submit(str(number))
    assert len(begun) == 1000


def test_answers_are_matched_in_any_order() -> None:
    invocations, _begun = window(0)
    for name in "abc":
        invocations.submit(name)
    assert [invocations.responded(key, final=True) for key in (2, 3, 1)] == ["b", "c", "a"]
    assert len(invocations) == 0


def test_an_answer_that_is_not_final_leaves_the_operation_outstanding() -> None:
    invocations, begun = window(1)
    invocations.submit("a")
    invocations.submit("b")
    assert invocations.responded(1, final=False) == "a"
    invocations.advance()
    assert begun == [("a", 1)]
    assert invocations.responded(1, final=True) == "a"


@pytest.mark.parametrize("message_id", [0, 2, 0xFFFF])
def test_an_answer_to_nothing_that_was_asked_is_a_violation(message_id: int) -> None:
    invocations, _begun = window(1)
    invocations.submit("a")
    with pytest.raises(ProtocolViolation, match=f"message {message_id}, which is not under way"):
        invocations.responded(message_id, final=True)


def test_a_second_final_answer_is_a_violation() -> None:
    invocations, _begun = window(1)
    invocations.submit("a")
    invocations.responded(1, final=True)
    with pytest.raises(ProtocolViolation):
        invocations.responded(1, final=True)


def test_what_waits_can_be_withdrawn_and_what_has_begun_cannot() -> None:
    invocations, begun = window(1)
    for name in "abc":
        invocations.submit(name)
    assert invocations.withdraw("b")
    assert not invocations.withdraw("b")
    assert not invocations.withdraw("a")
    invocations.responded(1, final=True)
    invocations.advance()
    assert [name for name, _ in begun] == ["a", "c"]


def test_message_ids_go_up_to_65535_and_begin_again_at_1() -> None:
    invocations, begun = window(1)
    for _ in range(0xFFFF + 2):
        invocations.submit("x")
        invocations.responded(begun[-1][1], final=True)
    found = [message_id for _, message_id in begun]
    assert found == [*range(1, 0x10000), 1, 2]


def test_a_message_id_is_never_used_while_it_is_outstanding() -> None:
    invocations, begun = window(0)
    invocations.submit("long")
    for _ in range(0xFFFF + 5):
        invocations.submit("x")
        invocations.responded(begun[-1][1], final=True)
    assert 1 not in {message_id for _, message_id in begun[1:]}
    assert 0 not in {message_id for _, message_id in begun}


def test_with_all_message_ids_outstanding_the_next_operation_waits() -> None:
    invocations, begun = window(0)
    for _ in range(0xFFFF):
        invocations.submit("x")
    invocations.submit("one more")
    assert begun[-1] == ("x", 0xFFFF)
    invocations.responded(500, final=True)
    invocations.advance()
    assert begun[-1] == ("one more", 500)


def test_draining_gives_all_operations_and_leaves_none() -> None:
    invocations, _begun = window(1)
    for name in "abc":
        invocations.submit(name)
    assert invocations.drain() == ["a", "b", "c"]
    assert len(invocations) == 0
    assert invocations.drain() == []


@given(
    st.integers(0, 4),
    st.lists(
        st.one_of(
            st.just("submit"),
            st.just("withdraw"),
            st.tuples(st.booleans(), st.integers(0, 10)),
        ),
        max_size=60,
    ),
)
def test_the_window_is_kept_and_nothing_is_lost_whatever_happens(
    limit: int, steps: list[str | tuple[bool, int]]
) -> None:
    invocations, begun = window(limit)
    submitted: list[str] = []
    over: list[str] = []
    for step in steps:
        if step == "submit":
            submitted.append(f"operation {len(submitted)}")
            invocations.submit(submitted[-1])
        elif step == "withdraw":
            if invocations.waiting:
                name = invocations.waiting[-1]
                assert invocations.withdraw(name)
                over.append(name)
        elif invocations.outstanding:
            final, choice = step
            assert not isinstance(final, str)
            keys = list(invocations.outstanding)
            name = invocations.responded(keys[int(choice) % len(keys)], final=final)
            if final:
                over.append(name)
                invocations.advance()
        assert not limit or len(invocations.outstanding) <= limit
        assert not invocations.waiting or len(invocations.outstanding) == limit
    assert sorted([*over, *invocations.drain()]) == sorted(submitted)
    names = [name for name, _ in begun]
    assert names == [name for name in submitted if name in names]
