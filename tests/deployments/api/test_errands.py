"""Errands: runs are asked for after the answer, twice as once, and Prefect may be away without anybody waiting."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, active_count
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from deployments.api.errands import Errands
from models.database import reading, writing
from models.jobs import read_named_job
from models.lifecycle import JobState
from tests.builders import ADDRESS, DRIVE, PACKAGE, RETURN_SHIPPING, job_in, rows_of
from tests.deployments.api.conftest import Server, serving

CANCEL: Final = {"properties": {"cancelRequested": True}}
WAIT_SECONDS_MAX: Final = 60.0
LEFT: Final = "left to advance-jobs"
WAITING_MAX: Final = 1_000


@dataclass(slots=True)
class Prefect:
    """A Prefect server of the test's own: it knows each flow's deployment, and writes down what it is asked for.

    Attributes:
        url: where it is.
        runs: what was sent to make runs, with the flow that each is of, as asked for.
        texts: every request's path and body.
        may_answer: while it is not set, requests are taken and not answered.
        taken: set once a request was taken.
        fails: whether it answers 500.
    """

    url: str = ""
    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    may_answer: Event = field(default_factory=Event)
    taken: Event = field(default_factory=Event)
    fails: bool = False
    deployments: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Answer a request as Prefect does."""
        self.texts.append(f"{path} {body.decode()}")
        self.taken.set()
        assert self.may_answer.wait(WAIT_SECONDS_MAX)
        if self.fails:
            return 500, {"detail": "no"}
        parts = path.partition("?")[0].strip("/").split("/")
        match method, parts:
            case "GET", ["api", "deployments", "name", flow, name] if flow == name:
                made = self.deployments.setdefault(str(uuid4()), flow)
                found = next(each for each, of in self.deployments.items() if of == made)
                return 200, {"id": found, "name": flow, "flow_id": str(uuid4())}
            case "POST", ["api", "deployments", found, "create_flow_run"]:
                self.runs.append((self.deployments[found], json.loads(body)))
                return 201, {"id": str(uuid4()), "flow_id": str(uuid4()), "name": "run"}
        return 404, {"detail": "Not Found"}


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    """Start a Prefect server of the test's own."""
    made = Prefect()
    made.may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, told = made.answer(self.command, self.path, body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{listening.server_port}/api"
        yield made
        made.may_answer.set()
        listening.shutdown()


@contextmanager
def served(folder: Path, prefect_url: str = "") -> Iterator[Server]:
    """Serve the database, with Prefect's files in a folder of its own and its server where it is said to be."""
    home = folder / "prefect"
    variables = {"PREFECT_HOME": str(home), "DRIVEPOST_API_REQUESTS_PER_MINUTE": "1000000"}
    if prefect_url:
        variables["PREFECT_API_URL"] = prefect_url
    with serving(folder, **variables) as server:
        yield server


def closed_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute at most."""
    give_up = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def make(name: str, state: str = "Creating") -> UUID:
    """Make a job in a state."""
    with writing() as session:
        return job_in(session, JobState(state), name)


def is_cancelled(name: str) -> bool:
    """Tell whether a cancel was accepted for a job."""
    with reading() as session:
        return read_named_job(session, "s1", "g1", name).cancel_requested


def cancel_and_delete(server: Server, cut: str, doomed: str, doomed_id: UUID) -> None:
    """Cancel one job and delete another, and see that both are done in the database when they are answered."""
    with server.client() as client:
        answer = client.patch(server.job_url(cut), json=CANCEL)
        assert (answer.status_code, answer.json()["properties"]["cancelRequested"]) == (200, True)
        assert is_cancelled(cut)
        answer = client.delete(server.job_url(doomed))
        assert (answer.status_code, answer.content) == (200, b"")
        with reading() as session:
            assert not any(rows_of(session, doomed_id).values())


# Prefect is there.


def test_runs_are_asked_for_by_the_opaque_id_alone(sqlite: str, tmp_path: Path, prefect: Prefect) -> None:
    """Of cancel-job and of delete-job; nothing that is sent tells of a person, nor by which name the job goes."""
    cut, doomed = make("Zebulons-job"), make("Quinces-job", "Completed")
    with served(tmp_path, prefect.url) as server:
        cancel_and_delete(server, "Zebulons-job", "Quinces-job", doomed)
        until(lambda: len(prefect.runs) == 2)
    asked = [(flow, run["parameters"]) for flow, run in prefect.runs]
    assert asked == [("cancel-job", {"job": str(cut)}), ("delete-job", {"job": str(doomed)})]
    personal = {
        *ADDRESS.values(),
        *PACKAGE.values(),
        *RETURN_SHIPPING.values(),
        DRIVE["driveId"],
        "Zebulon",
        "Quince",
    }
    said = {str(value) for value in personal if len(str(value)) > 3}
    assert not [value for value in said if value in "\n".join(prefect.texts)]


def test_what_is_asked_twice_has_the_same_key_so_that_it_runs_once(
    sqlite: str, tmp_path: Path, prefect: Prefect
) -> None:
    """By whichever door; another job's has another."""
    cut, other = make("cut"), make("other")
    with served(tmp_path, prefect.url) as server, server.client() as client:
        for _ in range(2):
            assert client.patch(server.job_url("cut"), json=CANCEL).status_code == 200
        assert client.post(f"/portal/jobs/{cut}/cancel").status_code == 200
        assert client.patch(f"/portal/jobs/{cut}", json=CANCEL).status_code == 200
        assert client.patch(server.job_url("other"), json=CANCEL).status_code == 200
        assert client.delete(server.job_url("cut")).status_code == 200
        until(lambda: len(prefect.runs) == 6)
    assert {flow for flow, _ in prefect.runs[:5]} == {"cancel-job"}
    keys = [run["idempotency_key"] for _, run in prefect.runs]
    assert keys == [*[f"cancel-job {cut}"] * 4, f"cancel-job {other}", f"delete-job {cut}"]


def test_what_cancels_nothing_asks_for_nothing(sqlite: str, tmp_path: Path, prefect: Prefect) -> None:
    """An update, a `false`, a refusal, a job that is over."""
    make("job1"), make("over", "Packaging"), make("away", "Shipping")
    with writing() as session:
        job_in(session, JobState.COMPLETED, "was-cut", cancelled=True)
    with served(tmp_path, prefect.url) as server, server.client() as client:
        for name, body, status in (
            ("job1", {"tags": {"a": "b"}}, 200),
            ("job1", {"properties": {"cancelRequested": False}}, 200),
            ("job1", {"properties": {"cancelRequested": True, "logLevel": "none"}}, 400),
            ("over", CANCEL, 409),
            ("was-cut", CANCEL, 200),
            ("none", CANCEL, 404),
        ):
            assert client.patch(server.job_url(name), json=body).status_code == status, (name, body)
        assert client.delete(server.job_url("away")).status_code == 409
        assert client.delete(server.job_url("none")).status_code == 404
        assert client.patch(server.job_url("job1"), json=CANCEL).status_code == 200
        until(lambda: bool(prefect.runs))
    assert [flow for flow, _ in prefect.runs] == ["cancel-job"]


# Prefect is away.


def test_with_prefect_down_cancel_and_delete_answer_just_as_well(any_database: str, tmp_path: Path) -> None:
    """The errand fails beside it, is told in one line without a job's name, and the next is taken up."""
    doomed = [make("Quinces-job", "Completed"), make("doomed", "Completed")]
    make("Zebulons-job"), make("cut")
    with served(tmp_path, f"http://127.0.0.1:{closed_port()}/api") as server:
        cancel_and_delete(server, "Zebulons-job", "Quinces-job", doomed[0])
        until(lambda: server.log.read_text().count(LEFT) == 2)
        cancel_and_delete(server, "cut", "doomed", doomed[1])
        until(lambda: server.log.read_text().count(LEFT) == 4)
        log = server.log.read_text()
    assert "Zebulon" not in log
    assert "Quince" not in log
    assert "Traceback" not in log


def test_an_answer_comes_while_prefect_keeps_us_waiting(sqlite: str, tmp_path: Path, prefect: Prefect) -> None:
    """It has taken the errand and says nothing; both are answered meanwhile, and done once it speaks again."""
    prefect.may_answer.clear()
    make("first"), make("cut")
    doomed = make("doomed", "Completed")
    with served(tmp_path, prefect.url) as server:
        with server.client() as client:
            assert client.patch(server.job_url("first"), json=CANCEL).status_code == 200
        until(prefect.taken.is_set)
        cancel_and_delete(server, "cut", "doomed", doomed)
        assert prefect.runs == []
        prefect.may_answer.set()
        until(lambda: len(prefect.runs) == 3)
    assert [flow for flow, _ in prefect.runs] == ["cancel-job", "cancel-job", "delete-job"]


def test_a_prefect_that_fails_or_forgot_its_deployments_hinders_nobody(
    sqlite: str, tmp_path: Path, prefect: Prefect
) -> None:
    """Deployments are looked up anew after a failure."""
    make("job1"), make("job2"), make("job3")
    with served(tmp_path, prefect.url) as server, server.client() as client:
        assert client.patch(server.job_url("job1"), json=CANCEL).status_code == 200
        until(lambda: len(prefect.runs) == 1)
        prefect.fails = True
        assert client.patch(server.job_url("job2"), json=CANCEL).status_code == 200
        until(lambda: LEFT in server.log.read_text())
        prefect.fails = False
        prefect.deployments.clear()
        assert client.patch(server.job_url("job3"), json=CANCEL).status_code == 200
        until(lambda: len(prefect.runs) == 2)
    assert [flow for flow, _ in prefect.runs] == ["cancel-job", "cancel-job"]


def test_without_prefects_address_no_server_of_its_own_is_started(sqlite: str, tmp_path: Path) -> None:
    """No process, no file; what was asked for stays written down, for advance-jobs to find."""
    make("cut")
    doomed = make("doomed", "Completed")
    with served(tmp_path) as server:
        cancel_and_delete(server, "cut", "doomed", doomed)
    # It has ended, and its errands with it.
    assert LEFT not in server.log.read_text()
    home = tmp_path / "prefect"
    assert not home.exists() or list(home.iterdir()) == []
    assert is_cancelled("cut")


# The thread itself.


def test_without_prefects_address_prefects_client_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start a server of its own."""
    asked: list[object] = []
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda **options: asked.append(options))
    for address in (None, ""):
        if address is None:
            monkeypatch.delenv("PREFECT_API_URL", raising=False)
        else:
            monkeypatch.setenv("PREFECT_API_URL", address)
        errands = Errands()
        errands.start()
        errands.ask("cancel-job", uuid4())
        errands.stop()
        assert not errands._thread.is_alive()
    assert asked == []


def test_a_flood_of_errands_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first is not over a thousand wait, and the rest are left; then all that waited go."""
    began, may_end = Event(), Event()
    done: list[UUID] = []

    def work(_errands: Errands, _flow: str, job_id: UUID) -> None:
        began.set()
        assert may_end.wait(WAIT_SECONDS_MAX)
        done.append(job_id)

    monkeypatch.setattr(Errands, "_run", work)
    errands = Errands()
    errands.start()
    first, *others = ids = [uuid4() for _ in range(3 * WAITING_MAX)]
    errands.ask("cancel-job", first)
    until(began.is_set)
    for job_id in others:
        errands.ask("cancel-job", job_id)
    errands.return_free_pages()
    assert done == [], "nobody waited for the first"
    may_end.set()
    until(lambda: len(done) == 1 + WAITING_MAX)
    assert done == ids[: 1 + WAITING_MAX]
    errands.stop()
    assert not errands._thread.is_alive()


def test_an_errand_that_fails_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told by type and place, never by its text."""
    done: list[UUID] = []

    def work(_errands: Errands, _flow: str, job_id: UUID) -> None:
        if job_id.int % 2:
            raise RuntimeError("Zebulon of 77 Quince Lane")
        done.append(job_id)

    monkeypatch.setattr(Errands, "_run", work)
    errands = Errands()
    errands.start()
    for number in range(10):
        errands.ask("delete-job", UUID(int=number))
    until(lambda: len(done) == 5 and caplog.text.count(LEFT) == 5)
    errands.stop()
    assert not errands._thread.is_alive()
    assert done == [UUID(int=number) for number in range(0, 10, 2)]
    assert caplog.text.count(LEFT) == 5
    assert "RuntimeError" in caplog.text
    assert "Zebulon" not in caplog.text


def test_stopping_ends_the_thread_and_what_comes_later_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for again it is stopped already."""
    done: list[UUID] = []
    monkeypatch.setattr(Errands, "_run", lambda _errands, _flow, job_id: done.append(job_id))
    before = active_count()
    errands = Errands()
    errands.start()
    assert active_count() == before + 2
    errands.stop()
    assert active_count() == before
    errands.ask("cancel-job", uuid4())
    errands.stop()
    assert done == []


def test_a_server_that_is_told_to_stop_does_not_wait_for_prefect(
    sqlite: str, tmp_path: Path, prefect: Prefect
) -> None:
    """It ends by itself, with an errand under way and others waiting."""
    prefect.may_answer.clear()
    for number in range(3):
        make(f"job{number}")
    with served(tmp_path, prefect.url) as server:
        with server.client() as client:
            for number in range(3):
                assert client.patch(server.job_url(f"job{number}"), json=CANCEL).status_code == 200
        until(prefect.taken.is_set)
    assert "Application shutdown complete" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
    assert all(is_cancelled(f"job{number}") for number in range(3))
