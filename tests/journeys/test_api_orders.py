"""Many callers at four processes of the API: some order of their requests explains every answer, job by job."""

import os
import random
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from threading import Barrier, Event, Lock
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
from sqlmodel import Session

from models.bay import check_in, return_drives
from models.copy_logs import DriveStatus
from models.database import database_time, writing
from models.drives import drives_of
from models.errors import DrivepostError
from models.jobs import close_job, find_job, finish_cancel, move, read_job
from models.lifecycle import Actor, JobState
from tests.builders import ADDRESS, DRIVE, PACKAGE, job_request
from tests.deployments.api.conftest import VERSION, Server, serving
from tests.journeys.api_orders import (
    CANCELLED,
    CONFLICT,
    NOT_FOUND,
    NOT_READY,
    NOT_UPDATABLE,
    STATES,
    Act,
    Answer,
    Asked,
    Job,
    Patch,
    Put,
    Tags,
    Word,
    search,
)

PROCESSES: Final = 4
CALLERS: Final = 8
NAMES: Final = 12
REQUESTS: Final = 400
REQUESTS_THOROUGH: Final = 10_000
MEETING: Final = 16
"""So many requests long every second one goes to the same job, so that callers meet there."""

LISTINGS: Final = 10
LISTINGS_THOROUGH: Final = 100
START_SECONDS_MAX: Final = 120.0

# Every caller's requests go to whichever process is free, not to the one that took the first of them.
NO_KEEPING: Final = httpx.Limits(max_keepalive_connections=0)

# --- The search itself -------------------------------------------------------------------------------------

PUT: Final = Put(tags=(("by", "p"),), package="T", address="A", key="K")
JOB: Final = Job(tags=(("by", "p"),), package="T", address="A")
SHIPPING: Final = Job("Shipping", tags=(("by", "p"),), package="T", address="A")


def _act(
    began: float, ended: float, asked: Asked, said: str, told: Job | None = None, key: str | None = None
) -> Act:
    return Act(began, ended, asked, Answer(said, told, key))


def _copying(cancelled: bool = False) -> Job:
    return Job("Transferring", cancelled, tags=JOB.tags, package="T", address="A")


CREATED: Final = _act(0, 1, PUT, "201", JOB)
UNTIL_COPYING: Final = (
    CREATED,
    _act(2, 3, Patch(state="Shipping"), "200", SHIPPING),
    _act(4, 5, "check in", "200"),
    _act(6, 7, "begin copy", "200"),
)
VERBOSE: Final = Job(log_level="Verbose", tags=JOB.tags, package="T", address="A")
TAGGED: Final = Job(tags=(("by", "x"),), package="T", address="A")
BOTH: Final = Job(log_level="Verbose", tags=(("by", "x"),), package="T", address="A")
STOPPED: Final = Job(cancelled=True, tags=JOB.tags, package="T", address="A")

WRONG: Final[Mapping[str, Sequence[Act]]] = {
    "an update is lost": (
        CREATED,
        _act(2, 5, Patch(log_level="Verbose"), "200", VERBOSE),
        _act(3, 6, Patch(tags=(("by", "x"),)), "200", TAGGED),
        _act(7, 8, "get", "200", TAGGED),
    ),
    "an update is lost, and no answer but the last tells it": (
        CREATED,
        _act(2, 5, Patch(log_level="Verbose"), "200"),
        _act(3, 6, Patch(tags=(("by", "x"),)), "200"),
        _act(7, 8, "get", "200", VERBOSE),
    ),
    "a deleted job is read": (CREATED, _act(2, 3, "delete", "200"), _act(4, 5, "get", "200", JOB)),
    "keys of a deleted job are given out": (
        CREATED,
        _act(2, 3, "delete", "200"),
        _act(4, 5, "list keys", "200", key="K"),
    ),
    "a job is not found before it is deleted": (
        CREATED,
        _act(2, 3, "get", NOT_FOUND),
        _act(4, 5, "delete", "200"),
    ),
    "a job is created twice": (CREATED, _act(0, 2, PUT, "201", JOB)),
    "a job is created twice, with a delete before both": (
        CREATED,
        _act(2, 3, "delete", "200"),
        _act(4, 6, PUT, "201", JOB),
        _act(5, 7, PUT, "201", JOB),
    ),
    "a job is deleted twice": (CREATED, _act(2, 4, "delete", "200"), _act(3, 5, "delete", "200")),
    "a cancel is undone by false": (
        CREATED,
        _act(2, 3, Patch(cancel=True), "200", STOPPED),
        _act(4, 5, Patch(cancel=False), "200", JOB),
    ),
    "a cancel is undone by a second put": (
        CREATED,
        _act(2, 3, Patch(cancel=True), "200", STOPPED),
        _act(4, 5, PUT, "200", JOB),
    ),
    "a cancel and the last byte both win": (
        *UNTIL_COPYING,
        _act(8, 10, Patch(cancel=True), "200", _copying(cancelled=True)),
        _act(8, 10, "end copy", "200"),
    ),
    "a cancel loses although the copy is not over": (
        *UNTIL_COPYING,
        _act(8, 10, Patch(cancel=True), CONFLICT),
        _act(9, 11, "get", "200", _copying()),
    ),
    "half of a refused update is kept": (
        *UNTIL_COPYING,
        _act(8, 9, Patch(package="T2", tags=(("by", "x"),)), NOT_UPDATABLE),
        _act(10, 11, "get", "200", Job("Transferring", tags=(("by", "x"),), package="T", address="A")),
    ),
    "tracking data alone ships a job": (
        _act(0, 1, Put(address="A"), "201", Job(address="A")),
        _act(2, 3, Patch(package="T"), "200", Job("Shipping", package="T", address="A")),
    ),
    "a job ships without an address": (
        _act(0, 1, Put(package="T"), "201"),
        _act(2, 3, Patch(state="Shipping"), "200"),
    ),
    "what changes nothing is refused": (*UNTIL_COPYING, _act(8, 9, Patch(package="T"), NOT_UPDATABLE)),
    "two reads one after the other see an update come and go": (
        CREATED,
        _act(2, 9, Patch(log_level="Verbose"), "200", VERBOSE),
        _act(3, 4, "get", "200", VERBOSE),
        _act(5, 6, "get", "200", JOB),
    ),
    "the key of before a replacement is given out": (
        CREATED,
        _act(2, 3, Put(key="K2"), "200", Job()),
        _act(4, 5, "list keys", "200", key="K"),
    ),
    "a fault of ours": (CREATED, _act(2, 3, "get", "500 InternalError")),
}

RIGHT: Final[Mapping[str, Sequence[Act]]] = {
    "nothing": (),
    "two updates at once, one before the other": (
        CREATED,
        _act(2, 5, Patch(log_level="Verbose"), "200", BOTH),
        _act(3, 6, Patch(tags=(("by", "x"),)), "200", TAGGED),
        _act(7, 8, "get", "200", BOTH),
    ),
    "a job is read while it is deleted": (CREATED, _act(2, 5, "delete", "200"), _act(3, 4, "get", "200", JOB)),
    "a job is not found while it is deleted": (CREATED, _act(2, 5, "delete", "200"), _act(3, 4, "get", NOT_FOUND)),
    "a job is created twice, with a delete between": (
        CREATED,
        _act(2, 6, PUT, "201", JOB),
        _act(3, 5, "delete", "200"),
    ),
    "of two who create at once one replaces": (CREATED, _act(0, 1, Put(key="K2"), "200", Job())),
    "of two who delete at once one is late": (
        CREATED,
        _act(2, 4, "delete", "200"),
        _act(3, 5, "delete", NOT_FOUND),
    ),
    "a cancel wins, and the last byte loses": (
        *UNTIL_COPYING,
        _act(8, 10, Patch(cancel=True), "200", _copying(cancelled=True)),
        _act(8, 10, "end copy", CANCELLED),
        _act(11, 12, Patch(cancel=False), "200", _copying(cancelled=True)),
        _act(13, 14, "finish cancel", "200"),
        _act(15, 16, Patch(cancel=True), "200"),
        _act(17, 18, "delete", "200"),
    ),
    "the last byte wins, and a cancel loses": (
        *UNTIL_COPYING,
        _act(8, 10, Patch(cancel=True), CONFLICT),
        _act(8, 10, "end copy", "200"),
    ),
    "one request gives the package and ships": (
        _act(0, 1, Put(address="A"), "201"),
        _act(2, 3, Patch(state="Shipping"), NOT_READY),
        _act(4, 5, Patch(state="Shipping", package="T"), "200", Job("Shipping", package="T", address="A")),
    ),
    "one that takes long has its effect late": (
        _act(0, 9, PUT, "201", JOB),
        _act(1, 2, "get", NOT_FOUND),
        _act(3, 4, "get", "200", JOB),
        _act(5, 6, "get", "200", JOB),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_history_that_cannot_have_happened_is_found_out(case: str) -> None:
    """Made up by hand: each breaks one promise, so that no order explains it; without one act of it one does."""
    history = WRONG[case]
    assert "no order explains" in search(history).fault
    assert any(not search([*history[:place], *history[place + 1 :]]).fault for place in range(len(history)))


@pytest.mark.parametrize("case", RIGHT)
def test_a_history_that_can_have_happened_is_explained(case: str) -> None:
    """Made up by hand: acts at once may have come in either order, and one of them explains all answers."""
    assert not search(RIGHT[case]).fault


# --- The server --------------------------------------------------------------------------------------------


def _processes(server: Server, expected: int) -> list[int]:
    """Wait until so many processes serve, and find them, as the server's log tells them."""
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up:
        told = server.log.read_text()
        started = [int(found) for found in re.findall(r"Started server process \[(\d+)\]", told)]
        alive = [process for process in started if Path(f"/proc/{process}").exists()]
        if len(alive) == expected and told.count("Application startup complete") >= len(started):
            return alive
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())


@contextmanager
def _many(folder: Path, processes: int) -> Iterator[Server]:
    with serving(
        folder,
        DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000",
        DRIVEPOST_API_PROCESSES=str(processes),
    ) as served:
        yield served


def _seconds_worked(process: int) -> float:
    of_user, of_system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(of_user) + int(of_system)) / os.sysconf("SC_CLK_TCK")


def test_each_of_four_processes_serves_and_ends_with_the_server(sqlite: str, tmp_path: Path) -> None:
    """Each answers while the other three are stopped; none is taken for dead while it starts, none is left."""
    with _many(tmp_path, PROCESSES) as server:
        processes = _processes(server, PROCESSES)
        for process in processes:
            others = [each for each in processes if each != process]
            try:
                for each in others:
                    os.kill(each, signal.SIGSTOP)
                with server.client() as client:
                    assert client.get("/health").text == "ok"
            finally:
                for each in others:
                    os.kill(each, signal.SIGCONT)
        told = server.log.read_text()
    assert not [each for each in processes if Path(f"/proc/{each}").exists()]
    assert " died" not in told, told


# --- Mixed requests ----------------------------------------------------------------------------------------

ALONG: Final[Mapping[str, Sequence[Word]]] = {
    "Shipping": ("check in", "check in", "check in", "close"),
    "Received": ("begin copy",),
    "Transferring": ("end copy",),
    "Packaging": ("return, all well", "return, all well", "return, some errors"),
}
"""What moves a job on from a state; in the others nothing of an operator's does."""

SHIP: Final = Patch(state="Shipping")
WAYS: Final[Mapping[str, Sequence[Asked]]] = {
    "Creating": (PUT,),
    "Shipping": (PUT, SHIP),
    "Received": (PUT, SHIP, "check in"),
    "Transferring": (PUT, SHIP, "check in", "begin copy"),
    "Packaging": (PUT, SHIP, "check in", "begin copy", "end copy"),
    "Completed": (PUT, SHIP, "check in", "begin copy", "end copy", "return, all well"),
    "Closed": (PUT, SHIP, "check in", "begin copy", "end copy", "return, some errors"),
}
"""How a job comes to each state: a few hundred requests would come to the ends of a life by chance alone."""

MOVES: Final[Sequence[Word]] = (
    "check in",
    "begin copy",
    "end copy",
    "return, all well",
    "return, some errors",
    "finish cancel",
    "close",
)


@dataclass
class Traffic:
    """Callers that ask this and that of a few jobs, and what they wrote down of each job's name.

    Attributes:
        left: requests to the API that are still to be made; an operator's moves come beside.
        found: state -> name of the job that is in it when the callers come.
        seen: how each job was last seen, by whomever: a hint for what to ask next, and no more.
    """

    server: Server
    seed: int
    left: int
    names: list[str] = field(default_factory=lambda: [f"job{number:02}" for number in range(NAMES)])
    histories: dict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    found: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Job] = field(default_factory=dict)
    marks: Iterator[int] = field(default_factory=lambda: count(1))
    lock: Lock = field(default_factory=Lock)

    def run(self) -> None:
        """Let all callers ask until nothing is left to ask; they find a job in each state."""
        self.found = dict(zip(WAYS, self.names, strict=False))
        with self.server.client(limits=NO_KEEPING) as client:
            for state, name in self.found.items():
                for asked in WAYS[state]:
                    assert self._ask(client, name, asked)
        together = Barrier(CALLERS)
        with ThreadPoolExecutor(CALLERS) as pool:
            for done in [pool.submit(self._call, number, together) for number in range(CALLERS)]:
                done.result()

    def _call(self, number: int, together: Barrier) -> None:
        dice = random.Random(self.seed * CALLERS + number)  # noqa: S311  no secret
        with self.server.client(limits=NO_KEEPING) as client:
            together.wait(30)
            # All look at once, before anybody changes anything: every state is come to, whatever the dice say.
            assert self._ask(client, [*self.found.values()][number % len(self.found)], "get")
            together.wait(30)
            while self._ask(client, *(self._move(dice) if dice.random() < 0.2 else self._request(dice))):
                pass

    def _ask(self, client: httpx.Client, name: str, asked: Asked) -> bool:
        """Ask one thing; False where nothing is left to ask."""
        with self.lock:
            if not isinstance(asked, str) or asked not in MOVES:
                if not self.left:
                    return False
                self.left -= 1
        self._act(client, name, asked)
        return True

    def _act(self, client: httpx.Client, name: str, asked: Asked) -> None:
        began = time.monotonic()
        if isinstance(asked, str) and asked in MOVES:
            answer = moved(name, asked)
        else:
            answer = answered(ask(client, self.server, name, asked))
        act = Act(began, time.monotonic(), asked, answer)
        with self.lock:
            self.histories[name].append(act)
            if answer.told:
                self.seen[name] = answer.told
            elif asked == "delete" or answer.said == NOT_FOUND:
                self.seen.pop(name, None)
            if answer.told and answer.told.state == "Closed" and next(self.marks) % 4 == 0:
                self._retire(name)

    def _retire(self, name: str) -> None:
        """Go on with another name: what is Closed cannot be deleted by hand, so its name is not free again."""
        another = f"{name.partition('-')[0]}-{next(self.marks)}"
        self.names = [another if each == name else each for each in self.names]

    def _name(self, dice: random.Random) -> str:
        if dice.random() < 0.5:
            return self.names[self.left // MEETING % NAMES]
        return dice.choice(self.names)

    def _move(self, dice: random.Random) -> tuple[str, Asked]:
        name = self._name(dice)
        job = self.seen.get(name, Job())
        fitting: Sequence[Word] = ("finish cancel",) if job.cancelled else ALONG.get(job.state, ())
        return name, dice.choice(fitting if fitting and dice.random() < 0.8 else MOVES)

    def _request(self, dice: random.Random) -> tuple[str, Asked]:
        name = self._name(dice)
        job = self.seen.get(name)
        # What is there is rarely deleted before it has come to an end, and what is not is soon put.
        puts, deletes = (40, 5) if job is None else (8, 20 if job.state == "Completed" else 4)
        wish = dice.choices(["put", "patch", "get", "delete", "list keys"], [puts, 35, 25, deletes, 8])[0]
        if wish == "put":
            return name, self._put(dice)
        return name, self._patch(dice) if wish == "patch" else cast("Word", wish)

    def _mark(self) -> str:
        return f"m{next(self.marks)}"

    def _tags(self, dice: random.Random) -> Tags:
        return () if dice.random() < 0.1 else (("by", self._mark()),)

    def _put(self, dice: random.Random) -> Put:
        return Put(
            log_level=dice.choice(["Error", "Verbose"]),
            tags=self._tags(dice),
            package=self._mark() if dice.random() < 0.5 else None,
            address=self._mark() if dice.random() < 0.7 else None,
            key=self._mark(),
        )

    def _patch(self, dice: random.Random) -> Patch:
        def at_times(share: float) -> str | None:
            return self._mark() if dice.random() < share else None

        states: list[Literal["Shipping", ""] | None] = ["Shipping", "", None]
        return Patch(
            state=dice.choices(states, [40, 20, 40])[0],
            cancel=dice.choices([True, False, None], [6, 47, 47])[0],
            log_level=dice.choice(["Error", "Verbose", None, None]),
            tags=self._tags(dice) if dice.random() < 0.5 else None,
            package=at_times(0.4),
            address=at_times(0.3),
            key=at_times(0.1),
        )


def _drive(name: str, key: str) -> dict[str, str]:
    return {**DRIVE, "driveId": f"DRIVE-{name}", "bitLockerKey": key}


def ask(client: httpx.Client, server: Server, name: str, asked: Asked) -> httpx.Response:
    """Ask the API."""
    url = server.job_url(name)
    match asked:
        case Put():
            return client.put(url, json=_create_body(name, asked))
        case Patch():
            return client.patch(url, json=_update_body(name, asked))
        case "list keys":
            return client.post(server.job_url(name, part="/listBitLockerKeys"))
        case _:
            return client.request(asked.upper(), url)


def _create_body(name: str, asked: Put) -> dict[str, Any]:
    made = job_request(
        name,
        tags=dict(asked.tags),
        logLevel=asked.log_level,
        returnAddress=asked.address and {**ADDRESS, "recipientName": asked.address},
        deliveryPackage=asked.package and {**PACKAGE, "trackingNumber": asked.package},
        driveList=[_drive(name, asked.key)],
    )
    body: dict[str, Any] = made["body"]
    return body


def _update_body(name: str, asked: Patch) -> dict[str, Any]:
    properties = {
        "state": asked.state,
        "cancelRequested": asked.cancel,
        "logLevel": asked.log_level,
        "returnAddress": asked.address and {**ADDRESS, "recipientName": asked.address},
        "deliveryPackage": asked.package and {**PACKAGE, "trackingNumber": asked.package},
        "driveList": asked.key and [_drive(name, asked.key)],
    }
    given = {member: value for member, value in properties.items() if value is not None}
    return {"properties": given} | ({} if asked.tags is None else {"tags": dict(asked.tags)})


def answered(response: httpx.Response) -> Answer:
    """Read what the API answered."""
    if not response.is_success:
        return Answer(f"{response.status_code} {response.json()['error']['code']}")
    said = str(response.status_code)
    if not response.content:
        return Answer(said)
    body = response.json()
    if "value" in body:
        return Answer(said, key=body["value"][0]["bitLockerKey"])
    properties = body["properties"]
    told = Job(
        state=properties["state"],
        cancelled=properties["cancelRequested"],
        log_level=properties["logLevel"],
        tags=tuple(body.get("tags", {}).items()),
        package=properties.get("deliveryPackage", {}).get("trackingNumber"),
        address=properties.get("returnAddress", {}).get("recipientName"),
    )
    return Answer(said, told)


def moved(name: str, asked: Word) -> Answer:
    """Move a job on, as operators and the service do, in this process; refusals are told as the API tells them."""
    try:
        with writing() as session:
            job_id = find_job(session, f"s1/g1/{name}")
            _move(session, job_id, name, asked)
    except DrivepostError as error:
        return Answer(f"{404 if error.code == 'ResourceNotFound' else 409} {error.code}")
    return Answer("200")


def _move(session: Session, job_id: UUID, name: str, asked: Word) -> None:
    at = database_time(session)
    job = read_job(session, job_id, lock=True)
    match asked:
        case "check in":
            check_in(session, job_id, [f"DRIVE-{name}"], at=at, by=Actor.OPERATOR)
        case "begin copy":
            move(session, job, JobState.TRANSFERRING, at=at, by=Actor.SERVICE)
        case "end copy":
            move(session, job, JobState.PACKAGING, at=at, by=Actor.SERVICE)
        case "return, all well" | "return, some errors":
            for drive in drives_of(session, job_id):
                drive.copy_status = (
                    DriveStatus.COMPLETED if asked == "return, all well" else DriveStatus.COMPLETED_WITH_ERRORS
                )
            return_drives(session, job_id, None, at=at, by=Actor.OPERATOR)
        case "finish cancel":
            finish_cancel(session, job_id, at=at)
        case _:
            close_job(session, job_id, at=at + timedelta(days=31), by=Actor.OPERATOR)


def _overlaps(history: Sequence[Act]) -> int:
    """Count the acts that began before an earlier one had ended."""
    ended, overlapping = 0.0, 0
    for act in sorted(history, key=lambda each: each.began):
        overlapping += act.began < ended
        ended = max(ended, act.ended)
    return overlapping


def test_some_order_of_mixed_requests_explains_every_answer_of_four_processes(
    any_database: str, tmp_path: Path, thorough: bool
) -> None:
    """Eight callers and the operators' moves on twelve jobs at once: no answer breaks the specification."""
    requests = REQUESTS_THOROUGH if thorough else REQUESTS
    with _many(tmp_path, PROCESSES) as server:
        processes = _processes(server, PROCESSES)
        worked = {process: _seconds_worked(process) for process in processes}
        began = time.monotonic()
        traffic = Traffic(server, seed=random.SystemRandom().randrange(2**32), left=requests)
        traffic.run()
        seconds = time.monotonic() - began
        shares = [_seconds_worked(process) - worked[process] for process in processes]
    began = time.monotonic()
    verdicts = {name: search(history) for name, history in traffic.histories.items()}
    searched = time.monotonic() - began

    acts = [act for history in traffic.histories.values() for act in history]
    moves = sum(act.asked in MOVES for act in acts)
    overlapping = sum(map(_overlaps, traffic.histories.values()))
    states = Counter(act.answer.told.state for act in acts if act.answer.told)
    print(  # noqa: T201  figures to be read
        f"\nseed {traffic.seed}: {len(acts) - moves} requests and {moves} moves on {len(verdicts)} names in "
        f"{seconds:.1f} s, {overlapping} while another was under way on the same job; processes worked "
        f"{', '.join(f'{share:.1f}' for share in shares)} s; searched in {searched:.2f} s, at most "
        f"{max(verdict.courses for verdict in verdicts.values())} courses at once; answers: "
        f"{dict(Counter(act.answer.said for act in acts))}; states seen: {dict(states)}"
    )

    faults = [f"{name}: {verdict.fault}" for name, verdict in verdicts.items() if verdict.fault]
    assert not faults, "\n\n".join(faults)
    assert len(acts) - moves == requests
    assert states.keys() == STATES
    assert overlapping > requests // 20
    assert len(shares) == PROCESSES
    assert all(shares)


# --- Lists -------------------------------------------------------------------------------------------------

Span = tuple[float, float]
"""Two moments between which something happened."""


@dataclass(frozen=True, slots=True)
class Life:
    """When a job was created and when it was deleted; None where nobody deleted it."""

    created: Span
    deleted: Span | None

    def spans(self, listing: Span) -> bool:
        """Tell whether it surely lived throughout a listing."""
        return self.created[1] <= listing[0] and (self.deleted is None or listing[1] <= self.deleted[0])

    def meets(self, listing: Span) -> bool:
        """Tell whether it may have lived at any moment of a listing."""
        return self.created[0] <= listing[1] and (self.deleted is None or listing[0] <= self.deleted[1])


def _group(name: str) -> str:
    return "g1" if name < "n18" else "g2"


def _timed(response: Callable[[], httpx.Response], status: int) -> Span:
    began = time.monotonic()
    assert response().status_code == status
    return began, time.monotonic()


def _churn(server: Server, names: Sequence[str], stop: Event, seed: int) -> dict[str, list[Life]]:
    """Create and delete jobs of these names, again and again."""
    dice = random.Random(seed)  # noqa: S311  no secret
    created: dict[str, Span] = {}
    lives: dict[str, list[Life]] = {name: [] for name in names}
    with server.client(limits=NO_KEEPING) as client:
        while not stop.is_set():
            name = dice.choice(names)
            url = server.job_url(name, group=_group(name))
            if name in created:
                deleted = _timed(partial(client.delete, url), 200)
                lives[name].append(Life(created.pop(name), deleted))
            else:
                created[name] = _timed(partial(client.put, url, json=job_request(name)["body"]), 201)
    for name, span in created.items():
        lives[name].append(Life(span, None))
    return lives


def _listing(client: httpx.Client, server: Server) -> tuple[Span, list[str]]:
    """Follow a subscription's list, three jobs a page, to its end."""
    began = time.monotonic()
    names: list[str] = []
    link: str | None = f"/subscriptions/s1/providers/Microsoft.ImportExport/jobs?api-version={VERSION}&$top=3"
    while link is not None:
        page = client.get(link).json()
        names += [job["name"] for job in page["value"]]
        assert len(page["value"]) <= 3
        link = page.get("nextLink")
        if link is not None:
            assert link.startswith(f"{server.address}/subscriptions/s1/providers/Microsoft.ImportExport/jobs?")
            assert parse_qs(urlsplit(link).query)["api-version"] == [VERSION]
    return (began, time.monotonic()), names


def test_a_list_loses_and_doubles_nothing_that_lives_while_others_come_and_go(
    any_database: str, tmp_path: Path, thorough: bool
) -> None:
    """Two processes, three callers that create and delete: what lived throughout a listing is in it just once."""
    names = [f"n{number:02}" for number in range(36)]
    lasting, churned = names[::4], [name for name in names if name not in names[::4]]
    stop = Event()
    with _many(tmp_path, 2) as server, ThreadPoolExecutor(3) as pool, server.client(limits=NO_KEEPING) as client:
        _processes(server, 2)
        lives = {
            name: [Life(_timed(partial(client.put, url, json=job_request(name)["body"]), 201), None)]
            for name in lasting
            if (url := server.job_url(name, group=_group(name)))
        }
        churns = [pool.submit(_churn, server, churned[part::3], stop, part) for part in range(3)]
        try:
            listings = [_listing(client, server) for _ in range(LISTINGS_THOROUGH if thorough else LISTINGS)]
        finally:
            stop.set()
        for churn in churns:
            lives |= churn.result()

    lived = 0
    for span, listed in listings:
        assert all(earlier < later for earlier, later in pairwise(listed)), "in the order of names, none twice"
        throughout = {name for name in names if any(life.spans(span) for life in lives[name])}
        assert throughout <= set(listed)
        assert {*listed} <= {name for name in names if any(life.meets(span) for life in lives[name])}
        lived += len(throughout) - len(lasting)
    within = [
        life
        for of_name in lives.values()
        for life in of_name
        if listings[0][0][0] < life.created[0] and life.created[1] < listings[-1][0][1]
    ]
    print(  # noqa: T201  figures to be read
        f"\n{len(listings)} listings of {sum(len(listed) for _, listed in listings)} jobs in all; meanwhile "
        f"{len(within)} jobs were created, and {lived} times one of those lived throughout a listing"
    )
    assert within
    assert lived
