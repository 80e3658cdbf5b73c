"""Negotiation, both sides, against ``negotiation.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from strategies import uids

from twisted_dimse import uids as named
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer.negotiation import (
    AcceptedContext,
    Agreement,
    Policy,
    PresentationContext,
    Proposal,
    Window,
    accept,
    as_context,
    confirm,
    propose,
)

FACTS = facts("negotiation")
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
PRINTER = "1.2.840.10008.5.1.1.16"
ANYTHING = Policy({CT: (), MR: ()})


def proposal(*contexts: PresentationContext, **more: Any) -> Proposal:
    contexts = contexts or (PresentationContext(CT, (IMPLICIT, EXPLICIT)),)
    return Proposal("ARCHIVE", "MODALITY", contexts, **more)


def over_the_wire(value: Any) -> Any:
    octets = value.encode()
    return pdu.decode(octets[0], octets[6:])


def negotiated(
    wanted: Proposal, policy: Policy = ANYTHING, identity_response: bytes | None = None
) -> tuple[Agreement, Agreement, pdu.AssociateAC]:
    """What requestor and acceptor come to, and the acceptance between them."""
    request = propose(wanted)
    answer, acceptor = accept(over_the_wire(request), policy, identity_response)
    answer = over_the_wire(answer)
    return confirm(request, answer), acceptor, answer


def answered(
    request: pdu.AssociateRQ,
    *user_information: pdu.UserItem,
    contexts: Iterable[pdu.ContextResult] | None = None,
) -> pdu.AssociateAC:
    """An acceptance that a peer might send, of the first transfer syntaxes unless told."""
    if contexts is None:
        contexts = [
            pdu.ContextResult(context.id, 0, context.transfer_syntaxes[0])
            for context in request.contexts
        ]
    return pdu.AssociateAC("ARCHIVE", "MODALITY", tuple(contexts), user_information)


# --- presentation contexts (PS3.8 9.3.2.2, 9.3.3.2)


def test_context_ids_are_odd_and_rise_in_the_order_of_the_proposal() -> None:
    request = propose(proposal(*(PresentationContext(f"1.2.{n}") for n in range(128))))
    assert [context.id for context in request.contexts] == list(range(1, 256, 2))
    assert [context.abstract_syntax for context in request.contexts] == [
        f"1.2.{n}" for n in range(128)
    ]


@pytest.mark.parametrize("count", [0, 129])
def test_more_than_128_contexts_cannot_be_proposed_nor_none(count: int) -> None:
    contexts = tuple(PresentationContext(f"1.2.{n}") for n in range(count))
    with pytest.raises(ValueError, match="1 to 128"):
        propose(Proposal("A", "B", contexts))


def test_a_context_without_a_transfer_syntax_cannot_be_proposed() -> None:
    with pytest.raises(ValueError, match="no transfer syntax"):
        propose(proposal(PresentationContext(CT, ())))


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy({CT: (EXPLICIT,)}), 0),
        (Policy({CT: ()}), 0),
        (Policy({MR: ()}), 3),
        (Policy({}), 3),
        (Policy({CT: (JPEG,)}), 4),
    ],
)
def test_each_context_gets_the_result_that_the_policy_gives(policy: Policy, code: int) -> None:
    requestor, acceptor, answer = negotiated(proposal(), policy)
    assert [result.result for result in answer.contexts] == [code]
    assert requestor.results == acceptor.results == {1: code}
    assert bool(requestor.contexts) == bool(acceptor.contexts) == (code == 0)


RESULTS = FACTS["presentation_contexts"]["results"]


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: str(row["name"]))
def test_a_context_with_any_result_but_acceptance_is_not_agreed(row: Any) -> None:
    request = propose(proposal())
    answer = answered(request, contexts=[pdu.ContextResult(1, row["code"], IMPLICIT)])
    agreement = confirm(request, answer)
    assert agreement.results == {1: row["code"]}
    assert bool(agreement.contexts) == (row["code"] == 0)


def test_both_sides_agree_on_the_same_context() -> None:
    requestor, acceptor, _answer = negotiated(proposal(), Policy({CT: (EXPLICIT,)}))
    assert requestor.contexts == {1: AcceptedContext(1, CT, EXPLICIT, scu=True, scp=False)}
    assert acceptor.contexts == {1: AcceptedContext(1, CT, EXPLICIT, scu=False, scp=True)}


def test_of_the_transfer_syntaxes_proposed_the_first_acceptable_one_is_taken() -> None:
    wanted = proposal(PresentationContext(CT, (JPEG, EXPLICIT, IMPLICIT)))
    requestor, _acceptor, _answer = negotiated(wanted, Policy({CT: (IMPLICIT, EXPLICIT)}))
    assert requestor.contexts[1].transfer_syntax == EXPLICIT


def test_an_acceptor_may_prefer_a_transfer_syntax_over_the_order_of_the_proposal() -> None:
    policy = Policy({CT: ()}, prefer=(JPEG, IMPLICIT))
    requestor, _acceptor, _answer = negotiated(proposal(), policy)
    assert requestor.contexts[1].transfer_syntax == IMPLICIT


def test_what_an_acceptor_prefers_and_does_not_accept_is_passed_over() -> None:
    wanted = proposal(PresentationContext(CT, (JPEG, EXPLICIT, IMPLICIT)))
    policy = Policy({CT: (IMPLICIT, EXPLICIT)}, prefer=(JPEG, IMPLICIT))
    requestor, _acceptor, _answer = negotiated(wanted, policy)
    assert requestor.contexts[1].transfer_syntax == IMPLICIT


def test_the_same_abstract_syntax_in_several_contexts_is_judged_in_each_alone() -> None:
    wanted = proposal(*(PresentationContext(CT, (uid,)) for uid in (IMPLICIT, JPEG, EXPLICIT)))
    _requestor, acceptor, answer = negotiated(wanted, Policy({CT: (IMPLICIT, EXPLICIT)}))
    assert [result.result for result in answer.contexts] == [0, 4, 0]
    assert {key: value.transfer_syntax for key, value in acceptor.contexts.items()} == {
        1: IMPLICIT,
        5: EXPLICIT,
    }


@given(st.lists(st.sampled_from([CT, MR, "1.2.3"]), min_size=1, max_size=10), st.data())
def test_every_proposed_context_gets_one_result_and_no_other_does(
    abstract: list[str], data: st.DataObject
) -> None:
    syntaxes = st.lists(st.sampled_from([IMPLICIT, EXPLICIT, JPEG]), min_size=1, unique=True)
    wanted = proposal(*(PresentationContext(uid, tuple(data.draw(syntaxes))) for uid in abstract))
    policy = Policy({CT: (), MR: (EXPLICIT,)}, prefer=tuple(data.draw(syntaxes)))
    requestor, acceptor, answer = negotiated(wanted, policy)
    assert [result.id for result in answer.contexts] == list(range(1, 2 * len(abstract), 2))
    assert requestor.contexts.keys() == acceptor.contexts.keys()
    for key, context in requestor.contexts.items():
        assert context.transfer_syntax in wanted.contexts[key // 2].transfer_syntaxes
        assert context.transfer_syntax == acceptor.contexts[key].transfer_syntax


def test_context_results_may_come_in_any_order() -> None:
    request = propose(proposal(PresentationContext(CT), PresentationContext(MR)))
    results = [pdu.ContextResult(3, 0, IMPLICIT), pdu.ContextResult(1, 0, EXPLICIT)]
    agreement = confirm(request, answered(request, contexts=results))
    assert agreement.contexts[1].abstract_syntax == CT
    assert agreement.contexts[3].abstract_syntax == MR


def test_a_result_for_a_context_never_proposed_is_ignored() -> None:
    request = propose(proposal())
    agreement = confirm(request, answered(request, contexts=[pdu.ContextResult(3, 0, IMPLICIT)]))
    assert agreement.contexts == {}
    assert agreement.results == {1: 2}


def test_a_transfer_syntax_never_proposed_is_not_agreed() -> None:
    request = propose(proposal())
    agreement = confirm(request, answered(request, contexts=[pdu.ContextResult(1, 0, JPEG)]))
    assert agreement.contexts == {}


def test_a_context_without_a_result_counts_as_refused_without_a_reason() -> None:
    request = propose(proposal(PresentationContext(CT), PresentationContext(MR)))
    agreement = confirm(request, answered(request, contexts=[pdu.ContextResult(3, 0, IMPLICIT)]))
    assert agreement.results == {1: 2, 3: 0}


@pytest.mark.parametrize(
    "item",
    [
        CT,
        (CT, named.DEFAULT_TRANSFER_SYNTAXES),
        (CT, list(named.DEFAULT_TRANSFER_SYNTAXES)),
        PresentationContext(CT),
    ],
    ids=["uid", "pair", "pair-with-list", "context"],
)
def test_a_context_may_be_written_in_each_form_of_the_interface(item: Any) -> None:
    assert as_context(item) == PresentationContext(CT, (EXPLICIT, IMPLICIT))


def test_a_pair_may_name_one_transfer_syntax() -> None:
    assert as_context((CT, JPEG)) == PresentationContext(CT, (JPEG,))


@pytest.mark.parametrize("syntaxes", [JPEG, [JPEG], (JPEG,), iter([JPEG])])
def test_a_context_takes_transfer_syntaxes_as_a_pair_does(syntaxes: Any) -> None:
    assert PresentationContext(CT, syntaxes) == PresentationContext(CT, (JPEG,))


# --- roles (PS3.7 D.3.3.4)


def selection(flags: dict[str, int]) -> pdu.RoleSelection:
    return pdu.RoleSelection(CT, bool(flags["scu_role"]), bool(flags["scp_role"]))


def role_id(row: dict[str, Any]) -> str:
    def text(flags: dict[str, int] | None) -> str:
        return "none" if flags is None else f"{flags['scu_role']}{flags['scp_role']}"

    return f"proposed-{text(row['proposed'])}-answered-{text(row['answered'])}"


def roles_of(context: AcceptedContext) -> set[str]:
    return {name for name, has in (("SCU", context.scu), ("SCP", context.scp)) if has}


ROLE_ROWS = FACTS["role_selection"]["table"]


def request_with(flags: dict[str, int] | None) -> pdu.AssociateRQ:
    items = (pdu.MaximumLength(0),) if flags is None else (pdu.MaximumLength(0), selection(flags))
    context = pdu.ProposedContext(1, CT, (IMPLICIT,))
    return pdu.AssociateRQ("ARCHIVE", "MODALITY", (context,), items)


@pytest.mark.parametrize("row", ROLE_ROWS, ids=role_id)
def test_a_requestor_has_the_roles_of_the_table(row: Any) -> None:
    request = request_with(row["proposed"])
    items = [] if row["answered"] is None else [selection(row["answered"])]
    agreement = confirm(request, over_the_wire(answered(request, *items)))
    assert roles_of(agreement.contexts[1]) == set(row["requestor"])


# What a policy has to allow, so that our acceptor gives the answer of a row.
POLICY_FOR = {(1, 0): "scu", (0, 1): "scp", (1, 1): "both"}


def allowed(row: dict[str, Any]) -> str | None:
    """The policy by which our acceptor answers as a row does, if it ever does."""
    offered, answer = row["proposed"], row["answered"]
    if offered is None:
        return "both" if answer is None else None
    if answer is None:
        return None  # we answer each selection for a SOP class that was proposed
    for (scu, scp), name in POLICY_FOR.items():
        if (scu & offered["scu_role"], scp & offered["scp_role"]) == tuple(answer.values()):
            return name
    return None


@pytest.mark.parametrize("row", [row for row in ROLE_ROWS if allowed(row)], ids=role_id)
def test_an_acceptor_has_the_roles_of_the_table(row: Any) -> None:
    policy = Policy({CT: ()}, roles={CT: str(allowed(row))})
    answer, agreement = accept(request_with(row["proposed"]), policy)
    assert answer.item(pdu.RoleSelection) == (row["answered"] and selection(row["answered"]))
    assert roles_of(agreement.contexts[1]) == set(row["acceptor"])


@given(st.booleans(), st.booleans(), st.sampled_from([None, "scu", "scp", "both"]))
def test_an_acceptor_never_answers_a_role_that_was_not_offered(
    scu: bool, scp: bool, role: str | None
) -> None:
    policy = Policy({CT: ()}, roles={CT: role} if role else {})
    answer, agreement = accept(request_with({"scu_role": scu, "scp_role": scp}), policy)
    item = answer.item(pdu.RoleSelection)
    assert item is not None
    assert not item.scu or scu
    assert not item.scp or scp
    # Both sides see the same thing, each from its own side.
    requestor = confirm(request_with({"scu_role": scu, "scp_role": scp}), answer)
    ours, theirs = agreement.contexts[1], requestor.contexts[1]
    assert (ours.scu, ours.scp) == (theirs.scp, theirs.scu)


def test_a_role_applies_to_every_context_of_its_abstract_syntax_and_to_no_other() -> None:
    wanted = proposal(
        PresentationContext(CT, (IMPLICIT,)),
        PresentationContext(MR, (IMPLICIT,)),
        PresentationContext(CT, (JPEG,)),
        roles={CT: "scp"},
    )
    requestor, _acceptor, _answer = negotiated(wanted)
    found = {key: roles_of(context) for key, context in requestor.contexts.items()}
    assert found == {1: {"SCP"}, 3: {"SCU"}, 5: {"SCP"}}


def test_a_role_for_a_sop_class_that_was_not_proposed_is_not_answered() -> None:
    _requestor, _acceptor, answer = negotiated(proposal(roles={MR: "both"}))
    assert answer.items(pdu.RoleSelection) == []


def test_an_answered_role_that_was_never_proposed_is_ignored() -> None:
    request = propose(proposal())
    agreement = confirm(request, answered(request, pdu.RoleSelection(MR, False, True)))
    assert roles_of(agreement.contexts[1]) == {"SCU"}


def test_a_role_that_is_none_cannot_be_proposed() -> None:
    with pytest.raises(ValueError, match="role 'client'"):
        propose(proposal(roles={CT: "client"}))


# --- the asynchronous operations window (PS3.7 D.3.3.3)

WINDOWS = FACTS["asynchronous_operations"]["examples"]
LEGAL = [(row["offered"], answer) for row in WINDOWS for answer in row["answers_legal"]]
ILLEGAL = [(row["offered"], answer) for row in WINDOWS for answer in row["answers_illegal"]]


def size(value: int) -> int:
    """Where a window value stands in 1 < 2 < … < 65535 < 0."""
    return value or 1 << 16


def confirmed_window(offered: list[int] | None, answer: list[int] | None) -> Window:
    request = propose(proposal(window=None if offered is None else Window(*offered)))
    items = [] if answer is None else [pdu.AsynchronousOperationsWindow(*answer)]
    return confirm(request, over_the_wire(answered(request, *items))).window


@pytest.mark.parametrize(("offered", "answer"), LEGAL, ids=str)
def test_a_legal_answer_is_the_window(offered: list[int] | None, answer: list[int] | None) -> None:
    assert confirmed_window(offered, answer) == Window(*(answer or (1, 1)))


@pytest.mark.parametrize(("offered", "answer"), ILLEGAL, ids=str)
def test_of_an_illegal_answer_no_more_is_taken_than_was_offered(
    offered: list[int] | None, answer: list[int]
) -> None:
    window = confirmed_window(offered, answer)
    most = offered or [1, 1]
    assert size(window.invoked) <= min(size(most[0]), size(answer[0]))
    assert size(window.performed) <= min(size(most[1]), size(answer[1]))


def test_without_an_answer_a_window_is_synchronous() -> None:
    assert confirmed_window([8, 8], None) == Window(1, 1)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_both_sides_come_to_the_same_window_and_never_above_the_offer(
    invoked: int, performed: int, ours: int
) -> None:
    policy = Policy({CT: ()}, window=ours)
    requestor, acceptor, answer = negotiated(proposal(window=Window(invoked, performed)), policy)
    item = answer.item(pdu.AsynchronousOperationsWindow)
    assert item is not None
    assert size(item.invoked) <= size(invoked)
    assert size(item.performed) <= size(performed)
    assert size(acceptor.window.performed) <= size(ours)
    assert requestor.window == Window(item.invoked, item.performed)
    assert acceptor.window == Window(item.performed, item.invoked)


def test_a_window_is_answered_only_where_it_was_offered() -> None:
    requestor, acceptor, answer = negotiated(proposal(), Policy({CT: ()}, window=16))
    assert answer.item(pdu.AsynchronousOperationsWindow) is None
    assert requestor.window == acceptor.window == Window(1, 1)


def test_by_default_an_acceptor_performs_one_operation_at_a_time() -> None:
    _requestor, acceptor, _answer = negotiated(proposal(window=Window(8, 8)), Policy({CT: ()}))
    assert acceptor.window == Window(1, 1)


@pytest.mark.parametrize("window", [Window(-1, 1), Window(1, 65536)])
def test_a_window_that_does_not_fit_its_field_cannot_be_proposed(window: Window) -> None:
    with pytest.raises(ValueError):
        propose(proposal(window=window))


# --- maximum length and implementation identity (PS3.8 D.1, PS3.7 D.3.3.2)


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF_FFFF))
def test_each_direction_has_the_maximum_length_of_its_receiver(ours: int, theirs: int) -> None:
    wanted, policy = proposal(max_pdu_length=ours), Policy({CT: ()}, max_pdu_length=theirs)
    requestor, acceptor, _answer = negotiated(wanted, policy)
    assert (requestor.max_send_length, requestor.max_receive_length) == (theirs, ours)
    assert (acceptor.max_send_length, acceptor.max_receive_length) == (ours, theirs)


def test_a_peer_that_announces_no_maximum_length_has_none() -> None:
    request = propose(proposal())
    assert confirm(request, answered(request)).max_send_length == 0


def test_each_side_learns_the_implementation_of_the_other() -> None:
    wanted = proposal(implementation=("1.2.3", "ASKING"))
    requestor, acceptor, _answer = negotiated(
        wanted, Policy({CT: ()}, implementation=("1.2.4", "ANSWERING"))
    )
    assert requestor.implementation_class_uid == "1.2.4"
    assert requestor.implementation_version_name == "ANSWERING"
    assert acceptor.implementation_class_uid == "1.2.3"
    assert acceptor.implementation_version_name == "ASKING"


def test_an_implementation_without_a_version_name_sends_none() -> None:
    request = propose(proposal(implementation=("1.2.3", "")))
    assert request.item(pdu.ImplementationVersionName) is None


@pytest.mark.parametrize(
    "more",
    [
        {"max_pdu_length": -1},
        {"max_pdu_length": 1 << 32},
        {"implementation": ("1.2.3", "SEVENTEEN_LETTERS")},
        {"extended": {CT: bytes(70000)}},
    ],
    ids=str,
)
def test_what_does_not_fit_its_field_cannot_be_proposed(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        propose(proposal(**more))


@pytest.mark.parametrize("title", ["", "  ", "SEVENTEEN_LETTERS", "MÜLLER", "A\\B"])
def test_a_bad_title_cannot_be_proposed(title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        propose(Proposal(title, "WS", (PresentationContext(CT),)))


# --- which item goes where


ALL_ASKED = proposal(
    PresentationContext(CT, (IMPLICIT,)),
    window=Window(4, 2),
    roles={CT: "both"},
    extended={CT: b"\x01"},
    common_extended={CT: (named.STORAGE_SERVICE, [MR])},
    user_identity=pdu.UserIdentity.username("gantry", response=True),
)
ALL_ANSWERED = Policy({CT: ()}, window=4, extended={CT: lambda offered: offered})


@pytest.mark.parametrize(
    "row", FACTS["user_information_items"], ids=lambda row: str(row["name"]).replace(" ", "-")
)
def test_an_item_goes_out_where_the_standard_has_it(row: Any) -> None:
    kind = int(row["type"], 16)
    everything, nothing = propose(ALL_ASKED), propose(proposal())
    answer, _agreement = accept(everything, ALL_ANSWERED, b"")
    bare, _agreement = accept(nothing, ALL_ANSWERED, b"")
    in_request = kind in {item.kind for item in everything.user_information}
    in_answer = kind in {item.kind for item in answer.user_information}
    assert in_request == ("RQ" in row["direction"])
    assert in_answer == ("AC" in row["direction"])
    always = row["required"] or kind == 0x55  # we always say our version
    for without in (nothing, bare):
        assert (kind in {item.kind for item in without.user_information}) == always


@pytest.mark.parametrize("answer", [False, True], ids=["request", "acceptance"])
def test_items_go_out_in_rising_order_of_type(answer: bool) -> None:
    value: Any = propose(ALL_ASKED)
    if answer:
        value, _agreement = accept(value, ALL_ANSWERED, b"")
    kinds = [item.kind for item in over_the_wire(value).user_information]
    assert kinds == sorted(kinds)
    assert len(kinds) == len(set(kinds))


# --- extended negotiation (PS3.7 D.3.3.5, D.3.3.6)


def test_extended_negotiation_is_answered_by_the_policy_of_its_sop_class() -> None:
    wanted = proposal(
        PresentationContext(CT), PresentationContext(MR), extended={CT: b"\x01\x01", MR: b"\x02"}
    )
    policy = Policy({CT: (), MR: ()}, extended={CT: lambda offered: offered[:1] + b"\0"})
    requestor, acceptor, _answer = negotiated(wanted, policy)
    assert acceptor.extended == {CT: b"\x01\x01", MR: b"\x02"}
    assert requestor.extended == {CT: b"\x01\0"}


def test_a_policy_may_leave_extended_negotiation_unanswered() -> None:
    policy = Policy({CT: ()}, extended={CT: lambda _offered: None})
    requestor, _acceptor, _answer = negotiated(proposal(extended={CT: b"\x01"}), policy)
    assert requestor.extended == {}


def test_extended_negotiation_that_was_not_asked_for_is_ignored() -> None:
    request = propose(proposal(extended={CT: b"\x01"}))
    answer = answered(request, pdu.SOPClassExtendedNegotiation(MR, b"\x01"))
    assert confirm(request, answer).extended == {}


def test_common_extended_negotiation_is_seen_by_the_acceptor() -> None:
    _requestor, acceptor, _answer = negotiated(ALL_ASKED)
    assert acceptor.common_extended == {CT: (named.STORAGE_SERVICE, (MR,))}


RELATED = FACTS["related_general_sop_classes"]["map"]


@pytest.mark.parametrize("specific", RELATED)
def test_a_class_is_taken_that_is_related_to_one_that_is_accepted(specific: str) -> None:
    for general in RELATED[specific]:
        wanted = proposal(
            PresentationContext(specific, (JPEG, IMPLICIT)),
            common_extended={specific: ("1.2.3", [general])},
        )
        policy = Policy({general: (IMPLICIT,)}, storage_of_any_kind=True)
        requestor, _acceptor, _answer = negotiated(wanted, policy)
        assert requestor.contexts[1].transfer_syntax == IMPLICIT


def test_an_unknown_class_of_the_storage_service_is_taken_where_the_policy_says_so() -> None:
    assert FACTS["service_class_uids"]["Storage"] == named.STORAGE_SERVICE
    wanted = proposal(
        PresentationContext("1.2.3", (JPEG,)),
        common_extended={"1.2.3": (named.STORAGE_SERVICE, [])},
    )
    policies = {0: Policy({CT: ()}, storage_of_any_kind=True), 3: Policy({CT: ()})}
    for result, policy in policies.items():
        requestor, _acceptor, _answer = negotiated(wanted, policy)
        assert requestor.results == {1: result}


@pytest.mark.parametrize(
    ("uid", "result"),
    [("1.2.840.113619.4.30", 0), ("1.2.840.10008.5.1.4.1.1.99999", 0), (PRINTER, 3)],
    ids=["private", "newer", "registered and not accepted"],
)
def test_a_promiscuous_acceptor_takes_what_is_not_registered(uid: str, result: int) -> None:
    wanted = proposal(PresentationContext(uid, (JPEG, EXPLICIT)))
    for policy, expected in ((Policy({CT: ()}, promiscuous=True), result), (Policy({CT: ()}), 3)):
        _requestor, _acceptor, answer = negotiated(wanted, policy)
        assert [one.result for one in answer.contexts] == [expected]


@pytest.mark.parametrize(
    "declared",
    [{}, {"1.2.3": (FACTS["service_class_uids"]["Unified Procedure Step"], [])}],
    ids=["nothing-said", "another-service"],
)
def test_an_unknown_class_of_another_service_is_not_taken(declared: Any) -> None:
    wanted = proposal(PresentationContext("1.2.3", (JPEG,)), common_extended=declared)
    policy = Policy({CT: ()}, storage_of_any_kind=True)
    requestor, _acceptor, _answer = negotiated(wanted, policy)
    assert requestor.results == {1: 3}


# --- user identity (PS3.7 D.3.3.7)

NAME = pdu.UserIdentity.username("gantry")
NAME_AND_ANSWER = pdu.UserIdentity.username("gantry", response=True)
IDENTITY_OUTCOMES: dict[str, tuple[pdu.UserIdentity, bytes | None, bool]] = {
    "does not support user identity": (NAME_AND_ANSWER, None, False),
    "authenticated, response not asked for": (NAME, b"ticket", False),
    "authenticated, response asked for": (NAME_AND_ANSWER, b"ticket", True),
}


@pytest.mark.parametrize("case", IDENTITY_OUTCOMES)
def test_an_identity_is_answered_as_the_standard_says(case: str) -> None:
    assert case in {row["acceptor"] for row in FACTS["user_identity"]["outcomes"]}
    identity, response, is_answered = IDENTITY_OUTCOMES[case]
    requestor, acceptor, answer = negotiated(
        proposal(user_identity=identity), identity_response=response
    )
    assert acceptor.user_identity == identity
    assert (answer.item(pdu.UserIdentityResponse) is not None) == is_answered
    assert requestor.user_identity_response == (response if is_answered else None)


def test_an_empty_response_is_a_response() -> None:
    requestor, _acceptor, _answer = negotiated(
        proposal(user_identity=NAME_AND_ANSWER), identity_response=b""
    )
    assert requestor.user_identity_response == b""


def test_no_identity_is_answered_where_none_was_sent() -> None:
    _requestor, acceptor, answer = negotiated(proposal(), identity_response=b"ticket")
    assert answer.item(pdu.UserIdentityResponse) is None
    assert acceptor.user_identity is None


# --- anything at all


@given(
    st.lists(uids, min_size=1, max_size=4),
    st.dictionaries(uids, st.sampled_from(["scu", "scp", "both"]), max_size=3),
    st.dictionaries(uids, st.binary(max_size=10), max_size=3),
)
def test_whatever_is_proposed_both_sides_see_the_same_association(
    abstract: list[str], roles: dict[str, str], extended: dict[str, bytes]
) -> None:
    wanted = proposal(*map(PresentationContext, abstract), roles=roles, extended=extended)
    policy = Policy(dict.fromkeys(abstract[::2], ()), window=3)
    requestor, acceptor, answer = negotiated(wanted, policy)
    assert requestor.results == acceptor.results
    assert acceptor.extended == extended
    assert (acceptor.called_ae_title, acceptor.calling_ae_title) == ("ARCHIVE", "MODALITY")
    assert (requestor.called_ae_title, requestor.calling_ae_title) == ("ARCHIVE", "MODALITY")
    assert (answer.called_ae_title, answer.calling_ae_title) == ("ARCHIVE", "MODALITY")
    for key, context in requestor.contexts.items():
        other = acceptor.contexts[key]
        assert (context.scu, context.scp) == (other.scp, other.scu)
