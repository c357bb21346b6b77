"""The only place that knows which state follows which, who may cause it, and what may be done when.

Everything else asks here. Sources: the specification, sections 2 (states), 3 (cancel), 4 (delete) and
5 (updates); a rule of the seed document outranks every other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from models.errors import (
    ActorNotAllowedError,
    CancelAcceptedError,
    DriveMoveNotAllowedError,
    JobStateConflictError,
    MoveNotAllowedError,
)


class JobType(StrEnum):
    """Whether data comes in on drives or goes out on them."""

    IMPORT = "Import"
    EXPORT = "Export"


class JobState(StrEnum):
    """Where a job is on its way, in the words of Microsoft.ImportExport."""

    CREATING = "Creating"
    SHIPPING = "Shipping"
    RECEIVED = "Received"
    TRANSFERRING = "Transferring"
    PACKAGING = "Packaging"
    COMPLETED = "Completed"
    CLOSED = "Closed"


class DriveState(StrEnum):
    """Where one drive of a job is, in the words of Microsoft.ImportExport."""

    SPECIFIED = "Specified"
    RECEIVED = "Received"
    NEVER_RECEIVED = "NeverReceived"
    TRANSFERRING = "Transferring"
    COMPLETED = "Completed"
    COMPLETED_MORE_INFO = "CompletedMoreInfo"
    SHIPPED_BACK = "ShippedBack"


class Actor(StrEnum):
    """Who asks."""

    CUSTOMER = "customer"
    OPERATOR = "operator"
    SERVICE = "service"


class Operation(StrEnum):
    """What may be asked of a job that exists."""

    REPLACE = "replace"
    UPDATE = "update"
    SHIP = "ship"
    CANCEL = "cancel"
    CHECK_IN = "check in"
    COPY = "copy"
    RETURN_DRIVES = "return drives"
    CLOSE = "close"
    DELETE = "delete"
    EXPIRE = "expire"
    ERASE = "erase personal data"
    HOLD = "hold"


class JobProperty(StrEnum):
    """What Update Job Properties may name."""

    STATE = "state"
    CANCEL_REQUESTED = "cancelRequested"
    DELIVERY_PACKAGE = "deliveryPackage"
    DRIVE_LIST = "driveList"
    RETURN_ADDRESS = "returnAddress"
    RETURN_SHIPPING = "returnShipping"
    LOG_LEVEL = "logLevel"
    BACKUP_DRIVE_MANIFEST = "backupDriveManifest"
    TAGS = "tags"


class Outcome(StrEnum):
    """What comes of an operation that is not refused."""

    DONE = "done"
    NOTHING_TO_DO = "nothing to do"
    WISHED = "wished"


_S: Final = JobState
_D: Final = DriveState
_O: Final = Operation


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a job from state to state.

    `cancelled` tells on which side of an accepted cancel the step lies: a step that carries a cancel out
    is possible only after one was accepted, every other step only before.
    """

    source: JobState
    target: JobState
    operation: Operation
    when: str
    cancelled: bool = False


MOVES: Final = (
    Move(_S.CREATING, _S.SHIPPING, _O.SHIP, "the customer says the package is on its way"),
    Move(_S.SHIPPING, _S.RECEIVED, _O.CHECK_IN, "every drive is checked in, or told as never received"),
    Move(_S.RECEIVED, _S.TRANSFERRING, _O.COPY, "the first drive begins to copy"),
    Move(_S.TRANSFERRING, _S.PACKAGING, _O.COPY, "every drive is done"),
    Move(_S.PACKAGING, _S.COMPLETED, _O.RETURN_DRIVES, "sent back, no errors"),
    Move(_S.PACKAGING, _S.CLOSED, _O.RETURN_DRIVES, "sent back, some errors"),
    Move(_S.SHIPPING, _S.CLOSED, _O.CLOSE, "no answer for 30 days"),
    Move(_S.CREATING, _S.COMPLETED, _O.CANCEL, "cancelled before anything was sent", cancelled=True),
    Move(_S.SHIPPING, _S.COMPLETED, _O.CANCEL, "cancelled on the way", cancelled=True),
    Move(_S.RECEIVED, _S.COMPLETED, _O.CANCEL, "cancelled before the copy", cancelled=True),
    Move(_S.TRANSFERRING, _S.COMPLETED, _O.CANCEL, "cancelled, and the copy has stopped", cancelled=True),
)

ENDS: Final = frozenset(JobState) - {move.source for move in MOVES}
"""States without a way on; what follows is deletion alone."""

CANCELLABLE: Final = frozenset(move.source for move in MOVES if move.cancelled)
"""States in which a cancel is accepted: every one before Packaging."""


@dataclass(frozen=True, slots=True)
class DriveMove:
    """One step of a drive from state to state."""

    source: DriveState
    target: DriveState
    when: str


DRIVE_MOVES: Final = (
    DriveMove(_D.SPECIFIED, _D.RECEIVED, "found in the bay"),
    DriveMove(_D.SPECIFIED, _D.NEVER_RECEIVED, "the package came without it, or not in 14 days"),
    DriveMove(_D.NEVER_RECEIVED, _D.RECEIVED, "turned up after all"),
    DriveMove(_D.RECEIVED, _D.TRANSFERRING, "its copy begins"),
    DriveMove(_D.TRANSFERRING, _D.COMPLETED, "copied as listed"),
    DriveMove(_D.TRANSFERRING, _D.COMPLETED_MORE_INFO, "copied with errors or warnings, or stopped"),
    DriveMove(_D.RECEIVED, _D.SHIPPED_BACK, "sent back unopened"),
    DriveMove(_D.COMPLETED, _D.SHIPPED_BACK, "sent back"),
    DriveMove(_D.COMPLETED_MORE_INFO, _D.SHIPPED_BACK, "sent back"),
)

DRIVE_ON_SITE: Final = frozenset(move.source for move in DRIVE_MOVES if move.target is _D.SHIPPED_BACK) | {
    _D.TRANSFERRING
}
"""States of a drive that lies with us and must go back."""

DRIVE_TO_COPY: Final = frozenset({_D.RECEIVED, _D.TRANSFERRING})
"""States of a drive whose copy is not over."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What comes of one operation in each state.

    Attributes:
        by: who may ask.
        done: states in which it is done.
        nothing: states in which it was done already, so that asking again is harmless.
        after_cancel: what comes of it where a cancel was accepted and it would otherwise be done; None is
            a refusal.
        way_out: per refusing state, what would have worked; every state in neither `done` nor `nothing`.
    """

    by: frozenset[Actor]
    done: frozenset[JobState]
    nothing: frozenset[JobState] = frozenset()
    after_cancel: Outcome | None = None
    way_out: Mapping[JobState, str] = field(default_factory=dict)


_ANY: Final = frozenset(_S)
_CUSTOMERS: Final = frozenset({Actor.CUSTOMER, Actor.OPERATOR})
_OPERATORS: Final = frozenset({Actor.OPERATOR})
_ON_ITS_WAY: Final = "cancel it first: once it is Completed it can be deleted"
_GOING_BACK: Final = "its drives are going back: once it is Completed it can be deleted"
_COPY_OVER: Final = "its copy is over: wait until the drives are sent back"
_AT_ITS_END: Final = "it is at its end: create a new job"
_BEFORE_CREATION_ENDS: Final = "a job can be replaced only in Creating: create one by another name"
_NOT_SHIPPED: Final = "mark it as shipped first"
_NOT_CHECKED_IN: Final = "check its drives in first"


def _each(states: frozenset[JobState], text: str) -> dict[JobState, str]:
    return dict.fromkeys(states, text)


RULES: Final[Mapping[Operation, Rule]] = {
    _O.REPLACE: Rule(
        by=_CUSTOMERS, done=frozenset({_S.CREATING}), way_out=_each(_ANY - {_S.CREATING}, _BEFORE_CREATION_ENDS)
    ),
    # Which property may change when is the table UPDATABLE; as an operation an update is never refused.
    _O.UPDATE: Rule(by=_CUSTOMERS, done=_ANY, after_cancel=Outcome.DONE),
    _O.SHIP: Rule(
        by=_CUSTOMERS,
        done=frozenset({_S.CREATING}),
        nothing=frozenset({_S.SHIPPING}),
        way_out={
            **_each(frozenset({_S.RECEIVED, _S.TRANSFERRING, _S.PACKAGING}), "its drives are here already"),
            **_each(frozenset({_S.COMPLETED, _S.CLOSED}), _AT_ITS_END),
        },
    ),
    _O.CANCEL: Rule(
        by=_CUSTOMERS | {Actor.SERVICE},
        done=CANCELLABLE,
        way_out={
            _S.PACKAGING: _COPY_OVER,
            _S.COMPLETED: "it is over: it can be deleted",
            _S.CLOSED: "it is over: the service deletes it 90 days after it was closed",
        },
    ),
    _O.CHECK_IN: Rule(
        by=_OPERATORS,
        done=_ANY - {_S.CREATING},
        after_cancel=Outcome.DONE,
        way_out={_S.CREATING: _NOT_SHIPPED},
    ),
    _O.COPY: Rule(
        by=frozenset({Actor.SERVICE, Actor.OPERATOR}),
        done=frozenset({_S.RECEIVED, _S.TRANSFERRING}),
        nothing=frozenset({_S.PACKAGING, _S.COMPLETED, _S.CLOSED}),
        way_out={_S.CREATING: _NOT_SHIPPED, _S.SHIPPING: _NOT_CHECKED_IN},
    ),
    _O.RETURN_DRIVES: Rule(
        by=_OPERATORS,
        done=frozenset({_S.PACKAGING, _S.COMPLETED, _S.CLOSED}),
        way_out={
            _S.CREATING: _NOT_SHIPPED,
            _S.SHIPPING: _NOT_CHECKED_IN,
            **_each(frozenset({_S.RECEIVED, _S.TRANSFERRING}), "let its copy end, or cancel it first"),
        },
    ),
    _O.CLOSE: Rule(
        by=_OPERATORS,
        done=frozenset({_S.SHIPPING}),
        nothing=frozenset({_S.CLOSED}),
        way_out={
            _S.CREATING: "delete it, or let it expire 14 days after its last update",
            **_each(frozenset({_S.RECEIVED, _S.TRANSFERRING}), "let its copy end, or cancel it"),
            _S.PACKAGING: "send its drives back",
            _S.COMPLETED: "it is over: it can be deleted",
        },
    ),
    _O.DELETE: Rule(
        by=_CUSTOMERS,
        done=frozenset({_S.CREATING, _S.COMPLETED}),
        after_cancel=Outcome.DONE,
        way_out={
            **_each(frozenset({_S.SHIPPING, _S.RECEIVED, _S.TRANSFERRING}), _ON_ITS_WAY),
            _S.PACKAGING: _GOING_BACK,
            _S.CLOSED: "the service deletes it 90 days after it was closed",
        },
    ),
    _O.EXPIRE: Rule(
        by=frozenset({Actor.SERVICE}),
        done=frozenset({_S.CREATING, _S.COMPLETED, _S.CLOSED}),
        nothing=frozenset({_S.SHIPPING, _S.RECEIVED, _S.TRANSFERRING, _S.PACKAGING}),
        # An idle job whose cancel was accepted becomes Completed, and is kept for 90 days from then.
        after_cancel=Outcome.NOTHING_TO_DO,
    ),
    _O.HOLD: Rule(by=_OPERATORS, done=_ANY, after_cancel=Outcome.DONE),  # placed and released
    _O.ERASE: Rule(  # at once, or as a wish: `models.erasure` says when it is carried out
        by=_CUSTOMERS,
        done=_ANY - {_S.CREATING},
        after_cancel=Outcome.DONE,
        way_out={_S.CREATING: "nothing was sent yet: delete it"},
    ),
}

UPDATABLE: Final[Mapping[JobProperty, frozenset[JobState]]] = {
    JobProperty.STATE: RULES[_O.SHIP].done,
    JobProperty.CANCEL_REQUESTED: CANCELLABLE,
    JobProperty.DELIVERY_PACKAGE: frozenset({_S.CREATING, _S.SHIPPING}),
    JobProperty.DRIVE_LIST: frozenset({_S.CREATING}),
    JobProperty.RETURN_ADDRESS: CANCELLABLE,
    JobProperty.RETURN_SHIPPING: CANCELLABLE,
    JobProperty.LOG_LEVEL: CANCELLABLE,
    JobProperty.BACKUP_DRIVE_MANIFEST: CANCELLABLE,
    JobProperty.TAGS: _ANY,
}
"""In which states a property may be changed; a request that changes nothing is no violation."""

KEPT: Final[Mapping[JobState, timedelta]] = {
    _S.CREATING: timedelta(days=14),
    _S.COMPLETED: timedelta(days=90),
    _S.CLOSED: timedelta(days=90),
}
"""How long the service keeps a job: in Creating after its last update, in an end after it was entered."""

PACKAGE_OVERDUE: Final = timedelta(days=14)
"""Shipping for so long without the package: its drives are NeverReceived, and operators are told."""

CLOSABLE: Final = timedelta(days=30)
"""Shipping for so long without an answer: an operator may close it."""


def require_move(source: JobState, target: JobState) -> Move:
    """Find the move from `source` to `target`.

    Raises:
        MoveNotAllowedError: there is none; the text names the states that can follow.
    """
    for move in MOVES:
        if move.source is source and move.target is target:
            return move
    raise MoveNotAllowedError(source, target, {move.target for move in MOVES if move.source is source})


def require_drive_move(source: DriveState, target: DriveState) -> DriveMove:
    """Find the drive's move from `source` to `target`.

    Raises:
        DriveMoveNotAllowedError: there is none.
    """
    for move in DRIVE_MOVES:
        if move.source is source and move.target is target:
            return move
    allowed = {move.target for move in DRIVE_MOVES if move.source is source}
    raise DriveMoveNotAllowedError(source, target, allowed)


def require_actor(operation: Operation, actor: Actor) -> None:
    """Refuse an operation that is not for this actor.

    Raises:
        ActorNotAllowedError: it is for others.
    """
    if actor not in RULES[operation].by:
        raise ActorNotAllowedError(operation, actor, RULES[operation].by)


def decide(operation: Operation, state: JobState, *, cancel_accepted: bool = False) -> Outcome:
    """Tell what comes of an operation in a state.

    Args:
        operation: what is asked.
        state: the job's state.
        cancel_accepted: whether a cancel has been accepted for the job, carried out or not.

    Raises:
        CancelAcceptedError: it would have been done, had not a cancel been accepted.
        JobStateConflictError: the state forbids it; the text says what would have worked.

    Source: the specification, sections 2 to 5.
    """
    rule = RULES[operation]
    if operation is Operation.CANCEL and cancel_accepted:
        return Outcome.NOTHING_TO_DO
    if state in rule.done and cancel_accepted and state in CANCELLABLE:
        if rule.after_cancel is None:
            raise CancelAcceptedError(operation)
        return rule.after_cancel
    if state in rule.done:
        return Outcome.DONE
    if state in rule.nothing:
        return Outcome.NOTHING_TO_DO
    raise JobStateConflictError(operation, state, rule.way_out[state])


def expiry(state: JobState, *, entered: datetime, updated: datetime, cancel_accepted: bool) -> datetime | None:
    """Tell when the service deletes a job; None while it does not.

    Args:
        state: the job's state.
        entered: when the job entered it, aware UTC.
        updated: when the job was last updated, aware UTC.
        cancel_accepted: whether a cancel has been accepted for the job.

    Source: the specification, sections 2 and 4: Completed and Closed 90 days after they were entered,
    Creating 14 days after the last update.
    """
    if state not in KEPT or (cancel_accepted and state in CANCELLABLE):
        return None
    return (updated if state is JobState.CREATING else entered) + KEPT[state]


def states_diagram() -> str:
    """Draw the job's states as mermaid text, one line a move, from MOVES."""
    arrows = [f"    {move.source} --> {move.target}: {move.when}" for move in MOVES]
    ends = [f"    {state} --> [*]: deleted after {KEPT[state].days} days" for state in JobState if state in KEPT]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {JobState.CREATING}: put", *arrows, *ends])
