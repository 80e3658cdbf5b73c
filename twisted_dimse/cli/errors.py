"""Errors in plain words, and the exit status that each has."""

from __future__ import annotations

from twisted_dimse.errors import AssociationRejected, DimseError, StatusError

ANSWERED_WITH_FAILURE, WRONG_USAGE, NO_ASSOCIATION, INTERRUPTED = 1, 2, 3, 130

_ADVICE = {
    (1, 2): "it does not know the application context name DICOM",
    (
        1,
        3,
    ): "it does not know the calling AE title{calling}. Ask for that title to be allowed there",
    (1, 7): "it does not know the called AE title{called}. Ask for the title it goes by",
    (2, 1): "it gives no reason; a user identity that it does not accept is one",
    (2, 2): "it does not speak this version of the protocol",
    (3, 1): "it is too busy for the moment. Try again later",
    (3, 2): "it has as many associations as it allows. Try again later",
}


def explain(error: BaseException, peer: object = None, calling: str = "") -> tuple[str, int]:
    """The one line for a person, and the exit status."""
    if isinstance(error, AssociationRejected):
        return _rejected(error, peer, calling), NO_ASSOCIATION
    if isinstance(error, StatusError):
        return f"{peer or 'the peer'} answered: {error}", ANSWERED_WITH_FAILURE
    if isinstance(error, DimseError):
        return _about(peer, str(error)), NO_ASSOCIATION
    if (why := getattr(error, "socketError", None)) is not None:  # Twisted's CannotListenError
        where = f"{error.interface or 'any'}:{error.port}"  # type: ignore[attr-defined]
        return f"cannot listen at {where}: {why.strerror or why}", NO_ASSOCIATION
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", WRONG_USAGE
    if isinstance(error, OSError):
        return f"the output cannot be written: {error.strerror or error}", 1
    return f"{type(error).__name__}: {error}", 1


def _about(peer: object, text: str) -> str:
    """The text with the peer in front, where it does not say whom it is about."""
    if peer is None or str(peer) in text:
        return text
    title = str(peer).partition("@")[0]
    if text.startswith(f"{title} "):
        return f"{peer}{text[len(title) :]}"
    return f"{peer}: {text}"


def _rejected(error: AssociationRejected, peer: object, calling: str) -> str:
    result = "permanent" if error.result == 1 else "transient"
    called = str(peer).partition("@")[0] if peer else ""
    advice = _ADVICE.get((error.source, error.reason), f"{error.meaning}")
    advice = advice.format(
        calling=f" {calling}" if calling else "", called=f" {called}" if called else ""
    )
    reason, dot, more = advice.partition(". ")
    return f"{peer or 'the peer'} rejected the association: {reason} ({result}){dot}{more}" + (
        "." if dot else ""
    )
