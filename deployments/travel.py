"""What the tour does in passing: it asks flows, reads back what came of them, and says what it saw."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect import Flow
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from sqlmodel import col, update

from deployments.posted_files import PreparedDrive
from flows.create_job import create_job
from models.copies import copied_bytes
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.jobs import Job, find_job, read_job
from models.lifecycle import KEPT, DriveState, JobState
from models.settings import Settings

_SUBSCRIPTION: Final = "tour"
_GROUP: Final = "drivepost"
ACCOUNT: Final = "touraccount"
PERSON: Final = "Tour Recipient 7f3a"
TRACKING: Final = "TOUR-TRACKING-7f3a"
CARRIER_ACCOUNT: Final = "TOUR-ACCOUNT-7f3a"
SERIALS: Final = ("TOUR-DRIVE-7f3a-1", "TOUR-DRIVE-7f3a-2", "TOUR-DRIVE-7f3a-3")


class PromiseBrokenError(Exception):
    """Something was not as promised."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one promise."""

    promise: str
    kept: bool
    seen: str


def require(fact: object, otherwise: str) -> None:
    """Hold a promise against a fact.

    Raises:
        PromiseBrokenError: the fact is not so.
    """
    if not fact:
        raise PromiseBrokenError(otherwise)


class Traveller:
    """Somebody who asks and looks, and writes down what was seen.

    Args:
        console: takes progress and one line per promise.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._settings = Settings()
        self.seen: list[Seen] = []
        self.figures: dict[str, float] = {}

    @contextmanager
    def _promise(self, promise: str) -> Iterator[list[str]]:
        observed: list[str] = []
        try:
            yield observed
            kept = True
        except PromiseBrokenError as broken:
            observed, kept = [str(broken)], False
        except Exception as error:  # noqa: BLE001  a tour tells what went wrong and goes on
            observed, kept = [f"{type(error).__name__}: {error}"], False
        self.seen.append(Seen(promise, kept, "; ".join(observed)))
        mark = "[green]kept[/green]  " if kept else "[red]BROKEN[/red]"
        line = f"{mark} {promise}: [dim]{escape('; '.join(observed))}[/dim]"
        self._console.print(line, soft_wrap=True)

    def _create(self, name: str, drives: Sequence[PreparedDrive] = (), **properties: object) -> UUID:
        entries = [drive.drive_list_entry() for drive in drives] or [
            {"driveId": f"TOUR-DRIVE-7f3a-{name}", "manifestFile": "\\DriveManifest.xml", "manifestHash": "0" * 32}
        ]
        self._put_in_intake(f"{name}.json", _request(name, entries, properties))
        ended: Any = create_job(request_file=f"{name}.json", return_state=True)
        require(ended.is_completed(), str(ended.message))
        return self._find(name)

    def _put_in_intake(self, name: str, content: Mapping[str, object]) -> None:
        (self._settings.intake / name).write_text(json.dumps(content), "utf-8")

    def _find(self, name: str) -> UUID:
        with reading() as session:
            return find_job(session, f"{_SUBSCRIPTION}/{_GROUP}/{name}")

    def _done(self, flow: Flow[..., Any], job_id: UUID | None = None, **parameters: object) -> str:
        named = {"job": str(job_id)} if job_id else {}
        ended: Any = flow(**named, **parameters, return_state=True)
        require(ended.is_completed(), f"{flow.name} ended {ended.name}: {ended.message}")
        return str(ended.message)

    def _refused(self, flow: Flow[..., Any], job_id: UUID, code: str) -> str:
        ended: Any = flow(job=str(job_id), return_state=True)
        require(ended.is_failed(), f"{flow.name} was not refused: {ended.message}")
        require(str(ended.message).startswith(code), f"refused otherwise: {ended.message}")
        return str(ended.message)

    def _state(self, job_id: UUID) -> JobState:
        with reading() as session:
            return read_job(session, job_id).state

    def _drive_states(self, job_id: UUID) -> list[DriveState]:
        with reading() as session:
            return [drive.state for drive in drives_of(session, job_id)]

    def _exists(self, job_id: UUID) -> bool:
        with reading() as session:
            return session.get(Job, job_id) is not None

    def _copied(self, job_id: UUID) -> tuple[int, int]:
        with reading() as session:
            return copied_bytes(session, job_id)

    def _now(self) -> datetime:
        with reading() as session:
            return database_time(session)

    def _age(self, job_id: UUID, state: JobState, left: timedelta) -> datetime:
        """Make a job as old as it may get, less `left`; tells when its time is over."""
        with writing() as session:
            ends = database_time(session) + left
            since = ends - KEPT[state]
            aged = update(Job).where(col(Job.id) == job_id, col(Job.state) == state)
            session.connection().execute(aged.values(state_since=since, updated_at=since, expires_at=ends))
        return ends

    @contextmanager
    def _bar(self, what: str, total: float) -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda count: progress.advance(bar, count)

    @contextmanager
    def _progress(self, job_id: UUID) -> Iterator[None]:
        """Show how far a copy has come, as its rows tell it."""
        over = threading.Event()
        with reading() as session:
            total = sum(self._size_of(drive.drive_id) for drive in drives_of(session, job_id))

        def watch() -> None:
            shown = 0
            with self._bar("copying", total) as advance:
                while not over.wait(0.2):
                    copied = self._copied(job_id)[0]
                    advance(copied - shown)
                    shown = copied

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _size_of(self, serial: str) -> int:
        return sum(path.stat().st_size for path in (self._settings.bay / serial).rglob("*") if path.is_file())


def _request(name: str, entries: Sequence[Mapping[str, str]], properties: Mapping[str, object]) -> dict[str, Any]:
    account = f"/subscriptions/{_SUBSCRIPTION}/resourceGroups/{_GROUP}/providers/Microsoft.Storage"
    details = {
        "storageAccountId": f"{account}/storageAccounts/{ACCOUNT}",
        "jobType": "Import",
        "returnAddress": address(),
        "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": CARRIER_ACCOUNT},
        "deliveryPackage": {"carrierName": "FedEx", "trackingNumber": TRACKING, "driveCount": len(entries)},
        "driveList": list(entries),
        **properties,
    }
    return {
        "subscriptionId": _SUBSCRIPTION,
        "resourceGroupName": _GROUP,
        "jobName": name,
        "body": {
            "location": "West US",
            "properties": {key: value for key, value in details.items() if value is not None},
        },
    }


def address() -> dict[str, str]:
    """Make a return address of nobody."""
    return {
        "recipientName": PERSON,
        "streetAddress1": "1 Tour Road",
        "city": "Tour",
        "postalCode": "00000",
        "countryOrRegion": "USA",
        "phone": "000 000 0000",
        "email": "tour@example.com",
    }


def package() -> dict[str, object]:
    """Make the package that brings two drives back."""
    return {
        "carrierName": "FedEx",
        "trackingNumber": TRACKING,
        "driveCount": 2,
        "shipDate": datetime.now(UTC).date().isoformat(),
    }
