"""Alerts reach Prefect's events and a webhook: at least once, by opaque ids alone, whoever is away."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import SecretStr
from sqlalchemy import text

from models.alerts import TEXTS, AlertKind, Found, alerts_to_send, raise_alerts
from models.database import database_time, reading, writing
from models.errors import PrefectAwayError
from models.lifecycle import JobState
from tasks.alerts import send_alerts
from tests.builders import job_in

TOKEN: Final = SecretStr("the secret of the webhook")


class Webhook:
    """Listens on this machine, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.drips = ""
        self.heard: list[tuple[dict[str, str], dict[str, Any]]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.heard.append((dict(self.headers), body))
                self.send_response(webhook.status)
                self.send_header("Content-Length", "1000" if webhook.drips else "0")
                self.send_header("Retry-After", "0.01")
                if webhook.drips == "headers":
                    self.drip()
                self.end_headers()
                self.drip()

            def do_GET(self) -> None:
                self.send_error(404)

            def drip(self) -> None:
                """Go on slowly until nobody listens."""
                self.flush_headers()
                with suppress(OSError):
                    while webhook.drips:
                        self.wfile.write(b"a")
                        time.sleep(0.05)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Give a webhook."""
    made = Webhook()
    thread = Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.drips = ""
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


class Prefect:
    """Stands in for Prefect's client; takes events down, or is away."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.is_away = False

    def request(self, method: str, path: str, *, json: list[dict[str, Any]]) -> None:
        """Take events down."""
        assert (method, path) == ("POST", "/events")
        self.events += json


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    """Give who hears the events."""
    made = Prefect()

    @contextmanager
    def client() -> Iterator[Prefect]:
        if made.is_away:
            raise PrefectAwayError("away")
        yield made

    monkeypatch.setattr("tasks.alerts.prefect_client", client)
    return made


def raise_two() -> UUID:
    """Raise one alert of a job, and one of the service."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.PACKAGING, at=now)
        raise_alerts(session, [Found(AlertKind.RETURN_DUE, str(job_id), job_id)], now)
        raise_alerts(session, [Found(AlertKind.RETENTION_FAILED, "then")], now)
    return job_id


def send(webhook: Webhook | None = None) -> int:
    """Send what is to be told; gives how many could not be."""
    count: int = send_alerts.fn(webhook.url if webhook else "", TOKEN, 100)
    return count


def make_due() -> None:
    """Let every alert that was not told be due now."""
    with writing() as session:
        session.connection().execute(text("UPDATE alert SET next_try_at = at WHERE next_try_at IS NOT NULL"))


def left() -> int:
    """Count what is still to be told."""
    make_due()
    with reading() as session:
        return len(alerts_to_send(session, database_time(session), 100))


def test_both_hear_each_alert_once(any_database: str, webhook: Webhook, prefect: Prefect) -> None:
    """Kind, moment, opaque id and a text, and nothing else; a key against doubles goes along."""
    job_id = raise_two()
    assert send(webhook) == 0
    bodies = {body["kind"]: body for _, body in webhook.heard}
    assert len(webhook.heard) == len(prefect.events) == 2
    told = bodies["package-due-back"]
    assert told.keys() == {"id", "kind", "job", "at", "text"}
    assert (told["job"], told["text"]) == (str(job_id), TEXTS[AlertKind.RETURN_DUE])
    assert bodies["retention-failed"]["job"] is None
    for headers, body in webhook.heard:
        assert headers["Idempotency-Key"] == body["id"]
        assert headers["Authorization"] == f"Bearer {TOKEN.get_secret_value()}"
    events = {each["event"]: each for each in prefect.events}
    event = events["drivepost.package-due-back"]
    assert (event["id"], event["payload"]) == (told["id"], told)
    assert event["resource"] == {"prefect.resource.id": f"drivepost.job.{job_id}"}
    assert events["drivepost.retention-failed"]["resource"] == {"prefect.resource.id": "drivepost.service"}
    assert left() == 0
    assert send(webhook) == 0
    assert len(webhook.heard) == 2


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
def test_a_webhook_that_refuses_is_told_again_with_the_same_key(
    sqlite: str, webhook: Webhook, prefect: Prefect, status: int
) -> None:
    """Prefect, which has heard, does not hear it again."""
    raise_two()
    webhook.status = status
    assert send(webhook) == 2
    webhook.status = 200
    assert left() == 2
    assert send(webhook) == 0
    keys = [headers["Idempotency-Key"] for headers, _ in webhook.heard]
    assert len(keys) == 4
    assert len(set(keys)) == 2
    assert len(prefect.events) == 2
    assert left() == 0


def test_nobody_is_told_before_prefect_and_nothing_is_lost_while_it_is_away(
    sqlite: str, webhook: Webhook, prefect: Prefect
) -> None:
    """The alert stays on the list, and both hear it once Prefect is back."""
    raise_two()
    prefect.is_away = True
    assert send(webhook) == 2
    assert webhook.heard == []
    prefect.is_away = False
    assert left() == 2
    assert send(webhook) == 0
    assert len(webhook.heard) == len(prefect.events) == 2


def test_a_webhook_that_is_gone_keeps_nobody_waiting_for_long(
    sqlite: str, webhook: Webhook, prefect: Prefect
) -> None:
    """After three in vain it is asked no more this time; Prefect hears all, and nothing is lost."""
    with writing() as session:
        now = database_time(session)
        raise_alerts(session, [Found(AlertKind.RETENTION_FAILED, str(number)) for number in range(5)], now)
    count: int = send_alerts.fn("http://127.0.0.1:9/", TOKEN, 100)
    assert count == left() == len(prefect.events) == 5
    assert send(webhook) == 0
    assert len(webhook.heard) == 5


def test_a_webhook_that_answers_slowly_is_left_for_later(
    sqlite: str, webhook: Webhook, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is a good one, and all together take too long; Prefect hears all, and nothing is lost."""
    # Each look at the clock after the events is six seconds later.
    clock = iter(range(0, 10_000, 6))
    watch = SimpleNamespace(monotonic=lambda: next(clock) if len(prefect.events) == 5 else 0)
    monkeypatch.setattr("tasks.alerts.time", watch)
    with writing() as session:
        now = database_time(session)
        raise_alerts(session, [Found(AlertKind.RETENTION_FAILED, str(number)) for number in range(5)], now)
    assert send(webhook) == left() == 1
    assert len(webhook.heard) == 4
    assert len(prefect.events) == 5


def test_a_webhook_whose_answer_never_ends_keeps_nobody_waiting(
    sqlite: str, webhook: Webhook, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is enough; one that drips its headers is given up, for all its signs of life."""
    monkeypatch.setattr("tasks.alerts._ANSWER_SECONDS_MAX", 0.5)
    raise_two()
    webhook.drips = "headers"
    assert send(webhook) == 2
    assert left() == 2
    webhook.drips = "body"
    assert send(webhook) == 0


def test_a_prefect_that_is_busy_keeps_nobody_waiting(sqlite: str, webhook: Webhook) -> None:
    """Each alert is asked for once this time; nothing is lost."""
    raise_two()
    webhook.status = 503
    with temporary_settings({PREFECT_API_URL: webhook.url, PREFECT_CLIENT_MAX_RETRIES: 1}):
        assert send() == left() == 2
    assert len(webhook.heard) == 2


def test_without_a_webhook_prefect_alone_is_told(sqlite: str, prefect: Prefect) -> None:
    """That is the default."""
    raise_two()
    assert send() == 0
    assert len(prefect.events) == 2
    assert left() == 0
