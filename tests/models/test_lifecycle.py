"""The rules of states, against tables copied by hand from the specification, never from the code."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final

import pytest

from models.errors import (
    ActorNotAllowedError,
    CancelAcceptedError,
    JobStateConflictError,
    MoveNotAllowedError,
)
from models.lifecycle import (
    CANCELLABLE,
    CLOSABLE,
    DRIVE_MOVES,
    DRIVE_ON_SITE,
    DRIVE_TO_COPY,
    ENDS,
    MOVES,
    PACKAGE_OVERDUE,
    RULES,
    UPDATABLE,
    Actor,
    DriveState,
    JobProperty,
    JobState,
    Operation,
    Outcome,
    decide,
    expiry,
    require_actor,
    require_drive_move,
    require_move,
    states_diagram,
)

STATES: Final = ["Creating", "Shipping", "Received", "Transferring", "Packaging", "Completed", "Closed"]
DRIVE_STATES: Final = [
    "Specified",
    "Received",
    "NeverReceived",
    "Transferring",
    "Completed",
    "CompletedMoreInfo",
    "ShippedBack",
]

# Section 2, read by hand: from where each state may be entered.
FROM_WHERE: Final = {
    "Creating": set(),
    "Shipping": {"Creating"},
    "Received": {"Shipping"},
    "Transferring": {"Received"},
    "Packaging": {"Transferring"},
    "Completed": {"Packaging", "Creating", "Shipping", "Received", "Transferring"},
    "Closed": {"Packaging", "Shipping"},
}
# Section 3: a cancel is the only way from these to Completed.
CANCEL_ACCEPTED_IN: Final = {"Creating", "Shipping", "Received", "Transferring"}
# Section 2, drive states; a drive that was only received goes back unopened (sections 2 and 3).
DRIVE_FROM_WHERE: Final = {
    "Specified": set(),
    "Received": {"Specified", "NeverReceived"},
    "NeverReceived": {"Specified"},
    "Transferring": {"Received"},
    "Completed": {"Transferring"},
    "CompletedMoreInfo": {"Transferring"},
    "ShippedBack": {"Received", "Completed", "CompletedMoreInfo"},
}
# Section 5, the table of updates; columns in the order of STATES.
UPDATE_TABLE: Final = {
    "state": "yes no no no no no no",
    "cancelRequested": "yes yes yes yes no no no",
    "deliveryPackage": "yes yes no no no no no",
    "driveList": "yes no no no no no no",
    "returnAddress": "yes yes yes yes no no no",
    "returnShipping": "yes yes yes yes no no no",
    "logLevel": "yes yes yes yes no no no",
    "backupDriveManifest": "yes yes yes yes no no no",
    "tags": "yes yes yes yes yes yes yes",
}
# Sections 2 to 4 and the table of deployments: who may cause what.
WHO: Final = {
    "replace": "customer operator",
    "update": "customer operator",
    "ship": "customer operator",
    "cancel": "customer operator service",
    "check in": "operator",
    "copy": "operator service",
    "return drives": "operator",
    "close": "operator",
    "delete": "customer operator",
    "expire": "service",
    "erase personal data": "customer operator",
    "hold": "operator",
}
# What comes of each operation in each state, in the same order: d(one), n(othing to do), r(efused).
WITHOUT_CANCEL: Final = {
    "replace": "drrrrrr",
    "update": "ddddddd",
    "ship": "dnrrrrr",
    "cancel": "ddddrrr",
    "check in": "rdddddd",
    "copy": "rrddnnn",
    "return drives": "rrrrddd",
    "close": "rdrrrrn",
    "delete": "drrrrdr",
    "expire": "dnnnndd",
    "erase personal data": "rdddddd",
    "hold": "ddddddd",
}
# The same where a cancel was accepted; c is refused on the cancel's account. Packaging and Closed cannot be.
AFTER_CANCEL: Final = {
    "replace": "crrr r ",
    "update": "dddd d ",
    "ship": "cnrr r ",
    "cancel": "nnnn n ",
    "check in": "rddd d ",
    "copy": "rrcc n ",
    "return drives": "rrrr d ",
    "close": "rcrr r ",
    "delete": "drrr d ",
    "expire": "nnnn d ",
    "erase personal data": "rddd d ",
    "hold": "dddd d ",
}
# A word of the way out that each refusal must show.
WAY_OUT: Final = {
    ("delete", "Shipping"): "cancel it first",
    ("delete", "Received"): "cancel it first",
    ("delete", "Transferring"): "cancel it first",
    ("delete", "Packaging"): "once it is Completed",
    ("delete", "Closed"): "90 days",
    ("cancel", "Packaging"): "wait until the drives are sent back",
    ("cancel", "Completed"): "can be deleted",
    ("cancel", "Closed"): "90 days",
    ("replace", "Shipping"): "by another name",
    ("ship", "Completed"): "new job",
    ("check in", "Creating"): "shipped first",
    ("copy", "Shipping"): "check its drives in",
    ("return drives", "Transferring"): "cancel it",
    ("close", "Creating"): "14 days",
    ("erase personal data", "Creating"): "delete it",
}

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
EARLIER: Final = NOON - timedelta(days=3, microseconds=7)


def test_the_words_are_those_of_the_specification() -> None:
    """No state, property or operation is missing here or there."""
    assert [*JobState] == STATES
    assert [*DriveState] == DRIVE_STATES
    assert set(JobProperty) == set(UPDATE_TABLE)
    assert set(Operation) == set(WHO) == set(WITHOUT_CANCEL) == set(AFTER_CANCEL)


@pytest.mark.parametrize(("source", "target"), list(product(JobState, JobState)))
def test_a_job_moves_only_where_the_description_says(source: JobState, target: JobState) -> None:
    """All pairs of states: the listed ones pass and every other one is refused, naming what could follow."""
    if source in FROM_WHERE[target]:
        assert require_move(source, target).when
        return
    with pytest.raises(MoveNotAllowedError, match=f"{source} job cannot become {target}") as refused:
        require_move(source, target)
    can_follow = {state for state in STATES if source in FROM_WHERE[state]}
    told = str(refused.value).partition("can become")[2]
    assert {state for state in STATES if state in told} == can_follow
    assert can_follow or "nothing: it is at its end" in told


def test_a_cancel_ends_in_completed_and_nowhere_else() -> None:
    """From each state before Packaging there is one move of a cancel, to Completed; every other is not one."""
    of_cancel = {(move.source, move.target) for move in MOVES if move.cancelled}
    assert of_cancel == {(source, "Completed") for source in CANCEL_ACCEPTED_IN}
    assert len({(move.source, move.target) for move in MOVES}) == len(MOVES)
    assert CANCELLABLE == CANCEL_ACCEPTED_IN
    assert {"Completed", "Closed"} == ENDS


@pytest.mark.parametrize(("source", "target"), list(product(DriveState, DriveState)))
def test_a_drive_moves_only_where_the_description_says(source: DriveState, target: DriveState) -> None:
    """All pairs of drive states."""
    if source in DRIVE_FROM_WHERE[target]:
        assert require_drive_move(source, target).when
        return
    with pytest.raises(MoveNotAllowedError, match=f"{source} drive .*cannot become {target}"):
        require_drive_move(source, target)


def test_each_drive_that_lies_with_us_counts_as_one_that_must_go_back() -> None:
    """What is on its way to us, never came, or has gone back, does not."""
    assert {"Received", "Transferring", "Completed", "CompletedMoreInfo"} == DRIVE_ON_SITE
    assert {"Received", "Transferring"} == DRIVE_TO_COPY
    assert {(move.source, move.target) for move in DRIVE_MOVES} == {
        (source, target) for target, sources in DRIVE_FROM_WHERE.items() for source in sources
    }


@pytest.mark.parametrize("name", JobProperty)
def test_a_property_may_be_updated_where_the_table_says_yes(name: JobProperty) -> None:
    """Property by property, all seven states."""
    yes = {state for state, word in zip(STATES, UPDATE_TABLE[name].split(), strict=True) if word == "yes"}
    assert UPDATABLE[name] == yes


@pytest.mark.parametrize(("operation", "actor"), list(product(Operation, Actor)))
def test_each_operation_is_for_those_whose_it_is(operation: Operation, actor: Actor) -> None:
    """Who may not is told who may."""
    if actor in WHO[operation].split():
        require_actor(operation, actor)
        return
    with pytest.raises(ActorNotAllowedError, match=f"'{operation}' is not for the {actor}") as refused:
        require_actor(operation, actor)
    for allowed in WHO[operation].split():
        assert allowed in str(refused.value)


def _expected(operation: Operation, state: JobState, cancel_accepted: bool) -> str:
    table = AFTER_CANCEL if cancel_accepted else WITHOUT_CANCEL
    return table[operation][STATES.index(state)]


CASES: Final = [
    (operation, state, cancel_accepted)
    for operation, state, cancel_accepted in product(Operation, JobState, (False, True))
    if _expected(operation, state, cancel_accepted) != " "
]


@pytest.mark.parametrize(("operation", "state", "cancel_accepted"), CASES)
def test_every_operation_in_every_state_has_one_defined_outcome(
    operation: Operation, state: JobState, cancel_accepted: bool
) -> None:
    """Done, nothing to do, or a named error that says what would have worked."""
    expected = _expected(operation, state, cancel_accepted)
    if expected == "d":
        assert decide(operation, state, cancel_accepted=cancel_accepted) is Outcome.DONE
    elif expected == "n":
        assert decide(operation, state, cancel_accepted=cancel_accepted) is Outcome.NOTHING_TO_DO
    elif expected == "c":
        with pytest.raises(CancelAcceptedError, match=f"'{operation}' is over; it will become Completed"):
            decide(operation, state, cancel_accepted=cancel_accepted)
    else:
        with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take '{operation}'") as refused:
            decide(operation, state, cancel_accepted=cancel_accepted)
        assert WAY_OUT.get((operation, state), "; ") in str(refused.value)


@pytest.mark.parametrize("operation", Operation)
def test_a_rule_answers_for_each_state_once_and_names_the_way_out(operation: Operation) -> None:
    """Done, nothing and refused share the states out among them, without a gap and without an overlap."""
    rule = RULES[operation]
    assert not rule.done & rule.nothing
    assert set(rule.way_out) == set(JobState) - rule.done - rule.nothing
    assert all(len(text) > 10 for text in rule.way_out.values())


def test_a_delete_by_hand_is_for_creating_and_completed_alone() -> None:
    """Section 4, as the seed document says."""
    assert RULES[Operation.DELETE].done == {"Creating", "Completed"}


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("cancel_accepted", [False, True])
def test_a_job_is_kept_exactly_as_long_as_the_specification_says(state: JobState, cancel_accepted: bool) -> None:
    """90 days from the end, 14 from the last update; a cancel that waits stops the 14 days."""
    found = expiry(state, entered=EARLIER, updated=NOON, cancel_accepted=cancel_accepted)
    if state in {"Completed", "Closed"}:
        assert found == EARLIER + timedelta(days=90)
    elif state == "Creating" and not cancel_accepted:
        assert found == NOON + timedelta(days=14)
    else:
        assert found is None


def test_the_other_spans_are_those_of_the_specification() -> None:
    """14 days until operators hear of a missing package, 30 until one may close the job."""
    assert timedelta(days=14) == PACKAGE_OVERDUE
    assert timedelta(days=30) == CLOSABLE


def test_the_diagram_draws_each_move_once_and_no_other() -> None:
    """What the README shows is the table."""
    lines = [line.strip() for line in states_diagram().splitlines()]
    drawn = {tuple(line.partition(":")[0].split(" --> ")) for line in lines if " --> " in line}
    expected = {(source, target) for target, sources in FROM_WHERE.items() for source in sources}
    assert drawn == expected | {("[*]", "Creating")} | {(s, "[*]") for s in ("Creating", "Completed", "Closed")}
    assert len(lines) == len(drawn) + 1
    assert all(move.when in "\n".join(lines) for move in MOVES)
