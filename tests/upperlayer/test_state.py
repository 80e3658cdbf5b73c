"""The state machine as data: all 13 x 19 cells of PS3.8 Table 9-10."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from facts import facts

from twisted_dimse.upperlayer.state import (
    OTHER_NEXT_STATE,
    TRANSITIONS,
    Action,
    Event,
    State,
)

FACTS = facts("state_machine")
CELLS = {(row["state"], row["event"]): row for row in FACTS["transitions"]}


def next_states(action: Action, state: State) -> list[str]:
    other = OTHER_NEXT_STATE.get(action)
    return [state.name] if other is None else [state.name, other.name]


def test_the_states_and_events_are_those_of_the_standard() -> None:
    assert [state.name for state in State] == list(FACTS["states"])
    assert [event.name for event in Event] == list(FACTS["events"])


def test_the_actions_are_those_of_the_standard() -> None:
    assert [action.value for action in Action] == list(FACTS["actions"])


@pytest.mark.parametrize(("state", "event"), list(product(FACTS["states"], FACTS["events"])))
def test_each_cell_has_the_action_and_the_next_state_of_the_standard(
    state: str, event: str
) -> None:
    cell = TRANSITIONS.get((State[state], Event[event]))
    row: Any = CELLS.get((state, event))
    if row is None:
        assert cell is None
    else:
        assert cell is not None
        action, then = cell
        assert action.value == row["action"]
        assert next_states(action, then) == row["next_states"]


def test_there_are_no_other_cells() -> None:
    assert len(TRANSITIONS) == len(FACTS["transitions"])
    assert 13 * 19 - len(TRANSITIONS) == FACTS["empty_cells"]["count"]


@pytest.mark.parametrize("name", FACTS["actions"])
def test_an_action_leads_to_the_same_states_from_wherever_it_is_taken(name: str) -> None:
    found = {
        tuple(next_states(action, then))
        for action, then in TRANSITIONS.values()
        if action.value == name
    }
    assert found == {tuple(FACTS["actions"][name]["next_states"])}
