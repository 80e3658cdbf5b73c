"""Association negotiation: a proposal and a policy in, what is agreed out.

PS3.8 7.1.1 and 9.3.2 to 9.3.3 (presentation contexts, maximum length), PS3.7 annex D.3.3
(implementation identity, asynchronous window, roles, extended negotiation, user identity).

    request = propose(Proposal("ARCHIVE", "MODALITY", contexts))     # requestor
    answer, agreement = accept(request, policy)                      # acceptor
    agreement = confirm(request, answer)                             # requestor again

Both sides come to an `Agreement` seen from their own side. What the peer answers beyond what was
proposed is ignored: contexts and transfer syntaxes never proposed, roles and window values above
the offer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from twisted_dimse.uids import (
    DEFAULT_TRANSFER_SYNTAXES,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    STORAGE_SERVICE,
    registered,
)
from twisted_dimse.upperlayer import pdu

DEFAULT_MAX_PDU_LENGTH = 262144
MAX_CONTEXTS = 128

ACCEPTANCE, USER_REJECTION, NO_REASON = 0, 1, 2
ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 3, 4
ROLES = {"scu": (True, False), "scp": (False, True), "both": (True, True)}


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """An abstract syntax with the transfer syntaxes to propose, or to accept, for it.

    As something to accept, no transfer syntaxes means any.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = DEFAULT_TRANSFER_SYNTAXES

    def __post_init__(self) -> None:
        given = self.transfer_syntaxes
        if not isinstance(given, tuple):  # a list, or one alone
            syntaxes = (given,) if isinstance(given, str) else tuple(given)
            object.__setattr__(self, "transfer_syntaxes", syntaxes)


ContextLike = str | PresentationContext | tuple[str, Iterable[str]]


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that both sides agreed on. `scu` and `scp` say which roles *we*
    have in it (PS3.7 D.3.3.4)."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    scu: bool = True
    scp: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """How many operations we may have outstanding (`invoked`) and how many the peer may have
    with us (`performed`); 0 is no limit, 1 and 1 is synchronous (PS3.7 D.3.3.3)."""

    invoked: int = 1
    performed: int = 1


@dataclass(frozen=True, slots=True)
class Agreement:
    """What an association is, once accepted, seen from one side."""

    called_ae_title: str
    calling_ae_title: str
    contexts: Mapping[int, AcceptedContext]
    results: Mapping[int, int]
    max_send_length: int
    max_receive_length: int
    window: Window = Window()
    extended: Mapping[str, bytes] = field(default_factory=dict)
    common_extended: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    user_identity: pdu.UserIdentity | None = None
    user_identity_response: bytes | None = None
    implementation_class_uid: str = ""
    implementation_version_name: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a requestor asks for. `roles` maps an abstract syntax to "scu", "scp" or "both"."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[PresentationContext, ...]
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH
    window: Window | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    common_extended: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    user_identity: pdu.UserIdentity | None = None
    implementation: tuple[str, str] = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an acceptor agrees to.

    `contexts` maps an abstract syntax to the transfer syntaxes accepted for it, none meaning
    any; `storage_of_any_kind` also takes abstract syntaxes that the peer declares (57H) to be of
    the storage service, or related to one that is accepted; `promiscuous` takes any that PS3.6 does
    not register, such as private SOP classes, for storage. Of the transfer syntaxes proposed,
    the first acceptable one is taken, or the first of `prefer` among them. `window` is the
    largest number of operations that we perform at once. `roles` limits the roles that a
    requestor gets, any by default; `extended` answers extended negotiation by SOP class.
    """

    contexts: Mapping[str, tuple[str, ...]]
    prefer: tuple[str, ...] = ()
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH
    window: int = 1
    roles: Mapping[str, str] = field(default_factory=dict)
    extended: Mapping[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)
    storage_of_any_kind: bool = False
    promiscuous: bool = False
    implementation: tuple[str, str] = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


def as_context(
    item: ContextLike, default: tuple[str, ...] = DEFAULT_TRANSFER_SYNTAXES
) -> PresentationContext:
    """A `PresentationContext` of what a caller may write: a UID, a pair, or one already. Raises
    `ValueError` for anything else."""
    if isinstance(item, PresentationContext):
        return item
    if isinstance(item, str):
        return PresentationContext(str(item), default)
    try:
        abstract, transfer = item
    except (TypeError, ValueError):
        raise ValueError(
            f"{item!r} is no presentation context: write an abstract syntax UID, or a pair of it "
            "and its transfer syntaxes"
        ) from None
    transfer = (transfer,) if isinstance(transfer, str) else transfer
    return PresentationContext(str(abstract), tuple(str(uid) for uid in transfer))


def propose(proposal: Proposal) -> pdu.AssociateRQ:
    """The A-ASSOCIATE-RQ of a proposal; context IDs are 1, 3, 5 … in order.

    Raises `ValueError` where it does not fit: no context, over 128, one without a transfer syntax,
    a bad AE title, role, window or maximum length.
    """
    if not 0 < len(proposal.contexts) <= MAX_CONTEXTS:
        raise ValueError(f"{len(proposal.contexts)} presentation contexts, 1 to 128 fit")
    for context in proposal.contexts:
        if not context.transfer_syntaxes:
            raise ValueError(f"no transfer syntax to propose for {context.abstract_syntax}")
    contexts = tuple(
        pdu.ProposedContext(2 * number + 1, context.abstract_syntax, context.transfer_syntaxes)
        for number, context in enumerate(proposal.contexts)
    )
    user = _identity_items(proposal.max_pdu_length, proposal.implementation)
    if proposal.window is not None:
        window = proposal.window
        user.append(pdu.AsynchronousOperationsWindow(window.invoked, window.performed))
    user += (_role_selection(uid, role) for uid, role in proposal.roles.items())
    user += (
        pdu.SOPClassExtendedNegotiation(uid, information)
        for uid, information in proposal.extended.items()
    )
    user += (
        pdu.SOPClassCommonExtendedNegotiation(uid, service, tuple(related))
        for uid, (service, related) in proposal.common_extended.items()
    )
    if proposal.user_identity is not None:
        user.append(proposal.user_identity)
    request = pdu.AssociateRQ(
        proposal.called_ae_title, proposal.calling_ae_title, contexts, tuple(user)
    )
    try:
        request.encode()  # what does not fit shows here, not when the transport is open
    except struct.error as error:
        raise ValueError(f"a number of the proposal does not fit its field: {error}") from None
    return request


def accept(
    request: pdu.AssociateRQ, policy: Policy, identity_response: bytes | None = None
) -> tuple[pdu.AssociateAC, Agreement]:
    """Judge each proposed context alone and answer the rest of the proposal.

    ``identity_response`` is the answer to a user identity that was accepted; it goes out only
    where the request asked for one.
    """
    identity = request.item(pdu.UserIdentity)
    if identity is None or not identity.response:
        identity_response = None
    common = _common_extended(request)
    results = tuple(_judge(context, policy, common) for context in request.contexts)
    roles = _answered_roles(request, policy)
    window = request.item(pdu.AsynchronousOperationsWindow)
    extended = dict(_answered_extended(request, policy))

    user = _identity_items(policy.max_pdu_length, policy.implementation)
    agreed_window = Window()
    if window is not None:
        # The offer counts from the requestor's view, `Agreement` from ours.
        performed = _smaller(window.invoked, policy.window)
        invoked = _smaller(window.performed, policy.window)
        user.append(pdu.AsynchronousOperationsWindow(performed, invoked))
        agreed_window = Window(invoked, performed)
    user += roles.values()
    user += (pdu.SOPClassExtendedNegotiation(uid, info) for uid, info in extended.items())
    if identity_response is not None:
        user.append(pdu.UserIdentityResponse(identity_response))
    answer = pdu.AssociateAC(
        request.called_ae_title, request.calling_ae_title, results, tuple(user), echo=request.echo
    )
    contexts = _accepted(request, results, roles, requestor=False)
    agreement = Agreement(
        request.called_ae_title,
        request.calling_ae_title,
        contexts,
        {result.id: result.result for result in results},
        _max_length(request),
        policy.max_pdu_length,
        agreed_window,
        {item.sop_class_uid: item.information for item in _extended_items(request)},
        common,
        identity,
        identity_response,
        *_implementation(request),
    )
    return answer, agreement


def confirm(request: pdu.AssociateRQ, answer: pdu.AssociateAC) -> Agreement:
    """What an acceptance makes of our own proposal."""
    proposed = {item.sop_class_uid: item for item in request.items(pdu.RoleSelection)}
    roles = {
        item.sop_class_uid: pdu.RoleSelection(
            item.sop_class_uid,
            item.scu and proposed[item.sop_class_uid].scu,
            item.scp and proposed[item.sop_class_uid].scp,
        )
        for item in answer.items(pdu.RoleSelection)
        if item.sop_class_uid in proposed
    }
    offered = request.item(pdu.AsynchronousOperationsWindow)
    answered = answer.item(pdu.AsynchronousOperationsWindow)
    window = Window()
    if offered is not None and answered is not None:
        window = Window(
            _smaller(offered.invoked, answered.invoked),
            _smaller(offered.performed, answered.performed),
        )
    asked = {item.sop_class_uid for item in _extended_items(request)}
    response = answer.item(pdu.UserIdentityResponse)
    return Agreement(
        request.called_ae_title,
        request.calling_ae_title,
        _accepted(request, answer.contexts, roles, requestor=True),
        _results(request, answer),
        _max_length(answer),
        _max_length(request),
        window,
        {
            item.sop_class_uid: item.information
            for item in _extended_items(answer)
            if item.sop_class_uid in asked
        },
        _common_extended(request),
        request.item(pdu.UserIdentity),
        response.response if response is not None else None,
        *_implementation(answer),
    )


def _role_selection(uid: str, role: str) -> pdu.RoleSelection:
    if role not in ROLES:
        raise ValueError(f"role {role!r} for {uid}: it is one of {', '.join(ROLES)}")
    scu, scp = ROLES[role]
    return pdu.RoleSelection(uid, scu, scp)


def _judge(
    context: pdu.ProposedContext,
    policy: Policy,
    common: Mapping[str, tuple[str, tuple[str, ...]]],
) -> pdu.ContextResult:
    acceptable = _transfer_syntaxes(context.abstract_syntax, policy, common)
    proposed = context.transfer_syntaxes
    if acceptable is None:
        return pdu.ContextResult(context.id, ABSTRACT_SYNTAX_NOT_SUPPORTED, proposed[0])
    candidates = [uid for uid in proposed if not acceptable or uid in acceptable]
    if not candidates:
        return pdu.ContextResult(context.id, TRANSFER_SYNTAXES_NOT_SUPPORTED, proposed[0])
    preferred = next((uid for uid in policy.prefer if uid in candidates), candidates[0])
    return pdu.ContextResult(context.id, ACCEPTANCE, preferred)


def _transfer_syntaxes(
    abstract: str, policy: Policy, common: Mapping[str, tuple[str, tuple[str, ...]]]
) -> tuple[str, ...] | None:
    if abstract in policy.contexts:
        return policy.contexts[abstract]
    if policy.promiscuous and abstract not in registered():
        return ()
    if policy.storage_of_any_kind and abstract in common:
        service, related = common[abstract]
        if service == STORAGE_SERVICE:
            return ()
        return next((policy.contexts[uid] for uid in related if uid in policy.contexts), None)
    return None


def _answered_roles(request: pdu.AssociateRQ, policy: Policy) -> dict[str, pdu.RoleSelection]:
    abstract = {context.abstract_syntax for context in request.contexts}
    roles = {}
    for item in request.items(pdu.RoleSelection):
        uid = item.sop_class_uid
        if uid in abstract:
            scu, scp = ROLES[policy.roles.get(uid, "both")]
            roles[uid] = pdu.RoleSelection(uid, item.scu and scu, item.scp and scp)
    return roles


def _answered_extended(request: pdu.AssociateRQ, policy: Policy) -> Iterable[tuple[str, bytes]]:
    for item in _extended_items(request):
        answer = policy.extended.get(item.sop_class_uid)
        information = answer(item.information) if answer is not None else None
        if information is not None:
            yield item.sop_class_uid, information


def _accepted(
    request: pdu.AssociateRQ,
    results: Iterable[pdu.ContextResult],
    roles: Mapping[str, pdu.RoleSelection],
    *,
    requestor: bool,
) -> dict[int, AcceptedContext]:
    proposed = {context.id: context for context in request.contexts}
    accepted = {}
    for result in results:
        context = proposed.get(result.id)
        if (
            context is None
            or result.result != ACCEPTANCE
            or result.transfer_syntax not in context.transfer_syntaxes
        ):
            continue
        role = roles.get(context.abstract_syntax)
        scu, scp = (role.scu, role.scp) if role is not None else (True, False)
        if not requestor:
            scu, scp = scp, scu
        accepted[result.id] = AcceptedContext(
            result.id, context.abstract_syntax, result.transfer_syntax, scu, scp
        )
    return accepted


def _results(request: pdu.AssociateRQ, answer: pdu.AssociateAC) -> dict[int, int]:
    answered = {result.id: result.result for result in answer.contexts}
    return {context.id: answered.get(context.id, NO_REASON) for context in request.contexts}


def _smaller(offered: int, ours: int) -> int:
    """The smaller of two window values, where 0 is the largest."""
    return min(offered or 0x10000, ours or 0x10000) & 0xFFFF


def _identity_items(max_pdu_length: int, implementation: tuple[str, str]) -> list[pdu.UserItem]:
    class_uid, version_name = implementation
    items: list[pdu.UserItem] = [
        pdu.MaximumLength(max_pdu_length),
        pdu.ImplementationClassUID(class_uid),
    ]
    if version_name:
        items.append(pdu.ImplementationVersionName(version_name))
    return items


def _implementation(source: pdu.AssociateRQ | pdu.AssociateAC) -> tuple[str, str]:
    uid = source.item(pdu.ImplementationClassUID)
    name = source.item(pdu.ImplementationVersionName)
    return (uid.uid if uid else "", name.name if name else "")


def _max_length(source: pdu.AssociateRQ | pdu.AssociateAC) -> int:
    item = source.item(pdu.MaximumLength)
    return item.octets if item is not None else 0


def _extended_items(
    source: pdu.AssociateRQ | pdu.AssociateAC,
) -> list[pdu.SOPClassExtendedNegotiation]:
    return source.items(pdu.SOPClassExtendedNegotiation)


def _common_extended(request: pdu.AssociateRQ) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        item.sop_class_uid: (item.service_class_uid, item.related_general_sop_class_uids)
        for item in request.items(pdu.SOPClassCommonExtendedNegotiation)
    }
