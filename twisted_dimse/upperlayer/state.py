"""The association state machine of PS3.8 9.2 as data: Table 9-10, cell by cell.

`TRANSITIONS` maps ``(state, event)`` to ``(action, next state)``; a pair that is not in it has
no action. Where the standard gives two next states (AE-6 and AR-8) the second is in
`OTHER_NEXT_STATE`, and `provider` decides between them. What an action does is in `provider`.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class State(IntEnum):
    """The states of Tables 9-1 to 9-5."""

    Sta1 = 1
    Sta2 = 2
    Sta3 = 3
    Sta4 = 4
    Sta5 = 5
    Sta6 = 6
    Sta7 = 7
    Sta8 = 8
    Sta9 = 9
    Sta10 = 10
    Sta11 = 11
    Sta12 = 12
    Sta13 = 13


class Event(IntEnum):
    """The events of Table 9-10."""

    Evt1 = 1
    Evt2 = 2
    Evt3 = 3
    Evt4 = 4
    Evt5 = 5
    Evt6 = 6
    Evt7 = 7
    Evt8 = 8
    Evt9 = 9
    Evt10 = 10
    Evt11 = 11
    Evt12 = 12
    Evt13 = 13
    Evt14 = 14
    Evt15 = 15
    Evt16 = 16
    Evt17 = 17
    Evt18 = 18
    Evt19 = 19


(Sta1, Sta2, Sta3, Sta4, Sta5, Sta6, Sta7, Sta8, Sta9, Sta10, Sta11, Sta12, Sta13) = State

Evt1 = Event.Evt1  # A-ASSOCIATE request (local user)
Evt2 = Event.Evt2  # transport connect confirmation
Evt3 = Event.Evt3  # A-ASSOCIATE-AC PDU
Evt4 = Event.Evt4  # A-ASSOCIATE-RJ PDU
Evt5 = Event.Evt5  # transport connection indication
Evt6 = Event.Evt6  # A-ASSOCIATE-RQ PDU
Evt7 = Event.Evt7  # A-ASSOCIATE response, accept (local user)
Evt8 = Event.Evt8  # A-ASSOCIATE response, reject (local user)
Evt9 = Event.Evt9  # P-DATA request (local user)
Evt10 = Event.Evt10  # P-DATA-TF PDU
Evt11 = Event.Evt11  # A-RELEASE request (local user)
Evt12 = Event.Evt12  # A-RELEASE-RQ PDU
Evt13 = Event.Evt13  # A-RELEASE-RP PDU
Evt14 = Event.Evt14  # A-RELEASE response (local user)
Evt15 = Event.Evt15  # A-ABORT request (local user)
Evt16 = Event.Evt16  # A-ABORT PDU
Evt17 = Event.Evt17  # transport connection closed
Evt18 = Event.Evt18  # ARTIM timer expired
Evt19 = Event.Evt19  # unknown or invalid PDU


class Action(Enum):
    """The actions of Tables 9-6 to 9-9."""

    AE_1, AE_2, AE_3, AE_4 = "AE-1", "AE-2", "AE-3", "AE-4"
    AE_5, AE_6, AE_7, AE_8 = "AE-5", "AE-6", "AE-7", "AE-8"
    DT_1, DT_2 = "DT-1", "DT-2"
    AR_1, AR_2, AR_3, AR_4, AR_5 = "AR-1", "AR-2", "AR-3", "AR-4", "AR-5"
    AR_6, AR_7, AR_8, AR_9, AR_10 = "AR-6", "AR-7", "AR-8", "AR-9", "AR-10"
    AA_1, AA_2, AA_3, AA_4 = "AA-1", "AA-2", "AA-3", "AA-4"
    AA_5, AA_6, AA_7, AA_8 = "AA-5", "AA-6", "AA-7", "AA-8"


(
    AE_1, AE_2, AE_3, AE_4, AE_5, AE_6, AE_7, AE_8, DT_1, DT_2,
    AR_1, AR_2, AR_3, AR_4, AR_5, AR_6, AR_7, AR_8, AR_9, AR_10,
    AA_1, AA_2, AA_3, AA_4, AA_5, AA_6, AA_7, AA_8,
) = Action  # fmt: skip

# AE-6 rejects instead of indicating; AR-8 happens to the acceptor instead of the requestor.
OTHER_NEXT_STATE = {AE_6: Sta13, AR_8: Sta10}

TRANSITIONS: dict[tuple[State, Event], tuple[Action, State]] = {
    # Sta1: idle
    (Sta1, Evt1): (AE_1, Sta4),
    (Sta1, Evt5): (AE_5, Sta2),
    # Sta2: transport open, awaiting A-ASSOCIATE-RQ
    (Sta2, Evt3): (AA_1, Sta13),
    (Sta2, Evt4): (AA_1, Sta13),
    (Sta2, Evt6): (AE_6, Sta3),  # or reject and go to Sta13
    (Sta2, Evt10): (AA_1, Sta13),
    (Sta2, Evt12): (AA_1, Sta13),
    (Sta2, Evt13): (AA_1, Sta13),
    (Sta2, Evt16): (AA_2, Sta1),
    (Sta2, Evt17): (AA_5, Sta1),
    (Sta2, Evt18): (AA_2, Sta1),
    (Sta2, Evt19): (AA_1, Sta13),
    # Sta3: awaiting the local A-ASSOCIATE response
    (Sta3, Evt3): (AA_8, Sta13),
    (Sta3, Evt4): (AA_8, Sta13),
    (Sta3, Evt6): (AA_8, Sta13),
    (Sta3, Evt7): (AE_7, Sta6),
    (Sta3, Evt8): (AE_8, Sta13),
    (Sta3, Evt10): (AA_8, Sta13),
    (Sta3, Evt12): (AA_8, Sta13),
    (Sta3, Evt13): (AA_8, Sta13),
    (Sta3, Evt15): (AA_1, Sta13),
    (Sta3, Evt16): (AA_3, Sta1),
    (Sta3, Evt17): (AA_4, Sta1),
    (Sta3, Evt19): (AA_8, Sta13),
    # Sta4: awaiting the transport
    (Sta4, Evt2): (AE_2, Sta5),
    (Sta4, Evt15): (AA_2, Sta1),
    (Sta4, Evt17): (AA_4, Sta1),
    # Sta5: awaiting A-ASSOCIATE-AC or -RJ
    (Sta5, Evt3): (AE_3, Sta6),
    (Sta5, Evt4): (AE_4, Sta1),
    (Sta5, Evt6): (AA_8, Sta13),
    (Sta5, Evt10): (AA_8, Sta13),
    (Sta5, Evt12): (AA_8, Sta13),
    (Sta5, Evt13): (AA_8, Sta13),
    (Sta5, Evt15): (AA_1, Sta13),
    (Sta5, Evt16): (AA_3, Sta1),
    (Sta5, Evt17): (AA_4, Sta1),
    (Sta5, Evt19): (AA_8, Sta13),
    # Sta6: established, data transfer
    (Sta6, Evt3): (AA_8, Sta13),
    (Sta6, Evt4): (AA_8, Sta13),
    (Sta6, Evt6): (AA_8, Sta13),
    (Sta6, Evt9): (DT_1, Sta6),
    (Sta6, Evt10): (DT_2, Sta6),
    (Sta6, Evt11): (AR_1, Sta7),
    (Sta6, Evt12): (AR_2, Sta8),
    (Sta6, Evt13): (AA_8, Sta13),
    (Sta6, Evt15): (AA_1, Sta13),
    (Sta6, Evt16): (AA_3, Sta1),
    (Sta6, Evt17): (AA_4, Sta1),
    (Sta6, Evt19): (AA_8, Sta13),
    # Sta7: awaiting A-RELEASE-RP
    (Sta7, Evt3): (AA_8, Sta13),
    (Sta7, Evt4): (AA_8, Sta13),
    (Sta7, Evt6): (AA_8, Sta13),
    (Sta7, Evt10): (AR_6, Sta7),
    (Sta7, Evt12): (AR_8, Sta9),  # the acceptor goes to Sta10
    (Sta7, Evt13): (AR_3, Sta1),
    (Sta7, Evt15): (AA_1, Sta13),
    (Sta7, Evt16): (AA_3, Sta1),
    (Sta7, Evt17): (AA_4, Sta1),
    (Sta7, Evt19): (AA_8, Sta13),
    # Sta8: awaiting the local A-RELEASE response
    (Sta8, Evt3): (AA_8, Sta13),
    (Sta8, Evt4): (AA_8, Sta13),
    (Sta8, Evt6): (AA_8, Sta13),
    (Sta8, Evt9): (AR_7, Sta8),
    (Sta8, Evt10): (AA_8, Sta13),
    (Sta8, Evt12): (AA_8, Sta13),
    (Sta8, Evt13): (AA_8, Sta13),
    (Sta8, Evt14): (AR_4, Sta13),
    (Sta8, Evt15): (AA_1, Sta13),
    (Sta8, Evt16): (AA_3, Sta1),
    (Sta8, Evt17): (AA_4, Sta1),
    (Sta8, Evt19): (AA_8, Sta13),
    # Sta9: collision, requestor: awaiting the local A-RELEASE response
    (Sta9, Evt3): (AA_8, Sta13),
    (Sta9, Evt4): (AA_8, Sta13),
    (Sta9, Evt6): (AA_8, Sta13),
    (Sta9, Evt10): (AA_8, Sta13),
    (Sta9, Evt12): (AA_8, Sta13),
    (Sta9, Evt13): (AA_8, Sta13),
    (Sta9, Evt14): (AR_9, Sta11),
    (Sta9, Evt15): (AA_1, Sta13),
    (Sta9, Evt16): (AA_3, Sta1),
    (Sta9, Evt17): (AA_4, Sta1),
    (Sta9, Evt19): (AA_8, Sta13),
    # Sta10: collision, acceptor: awaiting A-RELEASE-RP
    (Sta10, Evt3): (AA_8, Sta13),
    (Sta10, Evt4): (AA_8, Sta13),
    (Sta10, Evt6): (AA_8, Sta13),
    (Sta10, Evt10): (AA_8, Sta13),
    (Sta10, Evt12): (AA_8, Sta13),
    (Sta10, Evt13): (AR_10, Sta12),
    (Sta10, Evt15): (AA_1, Sta13),
    (Sta10, Evt16): (AA_3, Sta1),
    (Sta10, Evt17): (AA_4, Sta1),
    (Sta10, Evt19): (AA_8, Sta13),
    # Sta11: collision, requestor: awaiting A-RELEASE-RP
    (Sta11, Evt3): (AA_8, Sta13),
    (Sta11, Evt4): (AA_8, Sta13),
    (Sta11, Evt6): (AA_8, Sta13),
    (Sta11, Evt10): (AA_8, Sta13),
    (Sta11, Evt12): (AA_8, Sta13),
    (Sta11, Evt13): (AR_3, Sta1),
    (Sta11, Evt15): (AA_1, Sta13),
    (Sta11, Evt16): (AA_3, Sta1),
    (Sta11, Evt17): (AA_4, Sta1),
    (Sta11, Evt19): (AA_8, Sta13),
    # Sta12: collision, acceptor: awaiting the local A-RELEASE response
    (Sta12, Evt3): (AA_8, Sta13),
    (Sta12, Evt4): (AA_8, Sta13),
    (Sta12, Evt6): (AA_8, Sta13),
    (Sta12, Evt10): (AA_8, Sta13),
    (Sta12, Evt12): (AA_8, Sta13),
    (Sta12, Evt13): (AA_8, Sta13),
    (Sta12, Evt14): (AR_4, Sta13),
    (Sta12, Evt15): (AA_1, Sta13),
    (Sta12, Evt16): (AA_3, Sta1),
    (Sta12, Evt17): (AA_4, Sta1),
    (Sta12, Evt19): (AA_8, Sta13),
    # Sta13: awaiting the transport's close
    (Sta13, Evt3): (AA_6, Sta13),
    (Sta13, Evt4): (AA_6, Sta13),
    (Sta13, Evt6): (AA_7, Sta13),
    (Sta13, Evt10): (AA_6, Sta13),
    (Sta13, Evt12): (AA_6, Sta13),
    (Sta13, Evt13): (AA_6, Sta13),
    (Sta13, Evt16): (AA_2, Sta1),
    (Sta13, Evt17): (AR_5, Sta1),
    (Sta13, Evt18): (AA_2, Sta1),
    (Sta13, Evt19): (AA_7, Sta13),
}
