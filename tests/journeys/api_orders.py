"""Whether what was asked of one job, and what was answered, can have happened in some order.

The model is written by hand from the specification, sections 2 to 5, and imports nothing of the product. The
search is that of Wing and Gong in the form of Lowe, "Testing for linearizability" (2017): at every answer, all
orders of the acts under way that explain it are followed, and such as lead to the same are followed once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Literal

# Section 5, read by hand: in which states a property may be changed.
BEFORE_PACKAGING: Final = frozenset({"Creating", "Shipping", "Received", "Transferring"})
STATES: Final = BEFORE_PACKAGING | {"Packaging", "Completed", "Closed"}
CHANGED_IN: Final = {
    "log_level": BEFORE_PACKAGING,
    "address": BEFORE_PACKAGING,
    "package": frozenset({"Creating", "Shipping"}),
    "key": frozenset({"Creating"}),
    "tags": STATES,
}

# Section 2, read by hand: from where to where a move leads; a cancel bars it, but drives may still come in.
ONWARD: Final = {
    "check in": ("Shipping", "Received"),
    "begin copy": ("Received", "Transferring"),
    "end copy": ("Transferring", "Packaging"),
    "return, all well": ("Packaging", "Completed"),
    "return, some errors": ("Packaging", "Closed"),
    "close": ("Shipping", "Closed"),
}
HARMLESS: Final = {
    "check in": STATES - {"Creating"},
    "begin copy": frozenset[str](),
    "end copy": frozenset[str](),
    "return, all well": frozenset({"Completed", "Closed"}),
    "return, some errors": frozenset({"Completed", "Closed"}),
    "close": frozenset({"Closed"}),
}

NOT_FOUND: Final = "404 ResourceNotFound"
CONFLICT: Final = "409 JobStateConflict"
CANCELLED: Final = "409 CancelAccepted"
NOT_UPDATABLE: Final = "409 PropertyNotUpdatable"
NOT_READY: Final = "400 NotReadyToShip"

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What there is to know of a job; no package or address is None, and `key` is that of its one drive."""

    state: str = "Creating"
    cancelled: bool = False
    log_level: str = "Error"
    tags: Tags = ()
    package: str | None = None
    address: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Put:
    """Create Job, with these properties."""

    log_level: str = "Error"
    tags: Tags = ()
    package: str | None = None
    address: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """Update Job Properties; None is left out of the request."""

    state: Literal["Shipping", ""] | None = None
    cancel: bool | None = None
    log_level: str | None = None
    tags: Tags | None = None
    package: str | None = None
    address: str | None = None
    key: str | None = None


Word = Literal[
    "get",
    "delete",
    "list keys",
    "check in",
    "begin copy",
    "end copy",
    "return, all well",
    "return, some errors",
    "finish cancel",
    "close",
]
"""What is asked without more: three of the API, and what operators and the service do to move a job on."""

Asked = Put | Patch | Word


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered.

    Attributes:
        said: the status, and of a refusal its code beside.
        told: the job as the answer shows it, its key aside; None where an answer shows no job.
        key: what `listBitLockerKeys` gave out.
    """

    said: str
    told: Job | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One thing asked of a job and its answer, with the moments on one clock between which it happened."""

    began: float
    ended: float
    asked: Asked
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to come of a request: every refusal that is as good as another, or what it is when it is done."""

    said: frozenset[str]
    after: Job | None


def _done(after: Job | None, said: str = "200") -> _Due:
    return _Due(frozenset({said}), after)


def _refused(before: Job | None, *said: str) -> _Due:
    return _Due(frozenset(said), before)


def _due(before: Job | None, asked: Asked) -> _Due:
    """Tell what the specification wants of a request to a job that is like this; None is that there is none."""
    match asked:
        case Put():
            return _due_of_put(before, asked)
        case _ if before is None:
            return _refused(None, NOT_FOUND)
        case Patch():
            return _due_of_patch(before, asked)
        case "get" | "list keys":
            return _done(before)
        case "delete":
            return _done(None) if before.state in {"Creating", "Completed"} else _refused(before, CONFLICT)
        case _:
            return _due_of_move(before, asked)


def _due_of_put(before: Job | None, asked: Put) -> _Due:
    put = Job(
        log_level=asked.log_level,
        tags=asked.tags,
        package=asked.package,
        address=asked.address,
        key=asked.key,
    )
    if before is None:
        return _done(put, "201")
    if before.state != "Creating":
        return _refused(before, CONFLICT)
    return _refused(before, CANCELLED) if before.cancelled else _done(put)


def _due_of_patch(before: Job, asked: Patch) -> _Due:
    wanted = {name: value for name in CHANGED_IN if (value := getattr(asked, name)) is not None}
    changes = {name: value for name, value in wanted.items() if value != getattr(before, name)}
    after = replace(before, **changes)
    faults: list[str] = []
    if any(before.state not in CHANGED_IN[name] for name in changes):
        faults.append(NOT_UPDATABLE)
    if asked.state and before.state != "Shipping":
        if before.state != "Creating":
            faults.append(CONFLICT)
        elif before.cancelled:
            faults.append(CANCELLED)
        elif after.package is None or after.address is None:
            faults.append(NOT_READY)
        after = replace(after, state="Shipping")
    if asked.cancel and not before.cancelled:
        if before.state not in BEFORE_PACKAGING:
            faults.append(CONFLICT)
        after = replace(after, cancelled=True)
    return _refused(before, *faults) if faults else _done(after)


def _due_of_move(before: Job, asked: Word) -> _Due:
    if asked == "finish cancel":
        done = _done(replace(before, state="Completed"))
        return done if before.cancelled else _refused(before, CONFLICT)
    source, target = ONWARD[asked]
    if before.state == source and not before.cancelled:
        return _done(replace(before, state=target))
    if before.state in HARMLESS[asked]:
        return _done(before)
    return _refused(before, CANCELLED if before.state == source else CONFLICT)


def _fits(before: Job | None, act: Act, due: _Due) -> bool:
    """Tell whether an act's answer is the one that is due."""
    answer = act.answer
    if answer.said not in due.said:
        return False
    if answer.told is not None and (due.after is None or answer.told != replace(due.after, key="")):
        return False
    return answer.key is None or (before is not None and answer.key == before.key)


_Course = tuple[Job | None, frozenset[int]]
"""How a job may be, and which of the acts under way have then had their effect."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a search.

    Attributes:
        fault: empty where some order explains everything.
        courses: how many ways for things to have gone were open at once, at most.
    """

    fault: str
    courses: int


def search(history: Sequence[Act]) -> Verdict:
    """Look for an order of the acts on one job, none there at first, that explains every answer.

    An act takes effect between its two moments; one that ended before another began comes before it.
    """
    # At the same moment, what begins comes first: the two may have been at once.
    moments = sorted(chain.from_iterable(((act.began, 0, i), (act.ended, 1, i)) for i, act in enumerate(history)))
    open_now: set[int] = set()
    courses: set[_Course] = {(None, frozenset())}
    most = 1
    for _, is_answer, number in moments:
        if not is_answer:
            open_now.add(number)
            continue
        left = {(job, done - {number}) for job, done in _reach(history, courses, open_now, number)}
        if not left:
            return Verdict(_tell(history, courses, open_now, number), most)
        most = max(most, len(left))
        courses = left
        open_now.remove(number)
    return Verdict("", most)


def _reach(history: Sequence[Act], courses: set[_Course], open_now: set[int], number: int) -> Iterator[_Course]:
    """Follow every course until the act of that number has had its effect."""
    seen = set(courses)
    waiting = list(courses)
    while waiting:
        job, done = waiting.pop()
        if number in done:
            yield job, done
            continue
        for each in open_now - done:
            due = _due(job, history[each].asked)
            course = (due.after, done | {each})
            if course not in seen and _fits(job, history[each], due):
                seen.add(course)
                waiting.append(course)


def _tell(history: Sequence[Act], courses: set[_Course], open_now: set[int], number: int) -> str:
    before = sorted((act for act in history if act.ended < history[number].ended), key=lambda act: act.ended)
    lines = ["no order explains", f"  {history[number]}", "which may have come on"]
    lines += [f"  {job} with {sorted(done)} in effect" for job, done in courses]
    lines += ["with these under way", *[f"  {each}: {history[each]}" for each in sorted(open_now)]]
    return "\n".join([*lines, "after", *[f"  {act}" for act in before[-12:]]])
