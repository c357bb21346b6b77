"""Personal data is erased as soon as nothing has to go back to the address, wholly, and nobody else's."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text, update
from sqlmodel import Session, SQLModel, col, select

import models.portal  # noqa: F401  importing a module of tables makes its tables known
from models.bay import check_in, return_drives, tell_overdue_packages
from models.copy_logs import DriveStatus
from models.database import engine, reading, writing
from models.deletion import delete_expired_jobs, delete_job
from models.drives import Drive, ExtraDrive
from models.erasure import carry_out_wish, due_erasures, jobs_to_erase, wish_erasure
from models.errors import (
    ActorNotAllowedError,
    AddressNeededError,
    JobNotFoundError,
    JobStateConflictError,
    PersonalDataErasedError,
    PropertyNotUpdatableError,
)
from models.events import EventKind, JobEvent
from models.jobs import Job, close_job, finish_cancel, read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState, Outcome
from models.personal_data import places
from models.receipts import ReceiptEntry, verify_receipts
from models.requests import ReturnPackageShape, UpdateJobBody, parse
from models.updates import update_job
from tests.builders import (
    DRIVE,
    NOON,
    at_once,
    events_of,
    job_in,
    job_request,
    put,
    rows_of,
    set_columns,
    with_every_row,
)

MICROSECOND: Final = timedelta(microseconds=1)
LATER: Final = NOON + timedelta(hours=1)
FORTNIGHT: Final = timedelta(days=14)
# Section 2, copied by hand: where a drive lies with us, so that it has to go back.
ON_SITE: Final = ["Received", "Transferring", "Completed", "CompletedMoreInfo"]
ENDS: Final = ["Completed", "Closed"]
# Section 3: a cancelled job is never in Packaging or Closed.
CANCELLED_IN: Final = ["Shipping", "Received", "Transferring", "Completed"]

PERSON: Final[dict[str, Any]] = {
    "returnAddress": {
        "recipientName": "Ada Quince",
        "streetAddress1": "77 Quince Road",
        "streetAddress2": "Backyard",
        "city": "Quinceton",
        "stateOrProvince": "Quinceshire",
        "postalCode": "Q7777X",
        "countryOrRegion": "Quinceland",
        "phone": "+49 77 1234567",
        "email": "ada@quince.example",
    },
    "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": "QACCOUNT77"},
    "deliveryPackage": {
        "carrierName": "FedEx",
        "trackingNumber": "QTRACK77",
        "driveCount": 3,
        "shipDate": "2026-05-30",
    },
}
USER: Final = UUID("77777777-1234-4321-8888-999999999999")
RETURN_PACKAGE: Final = ReturnPackageShape(
    carrier_name="UPS", tracking_number="QBACK77", drive_count=3, ship_date="2026-06-20"
)
OF_JOBS: Final = {
    (place.table, place.column)
    for place in places(SQLModel.metadata)
    if "job_id" in SQLModel.metadata.tables[place.table].c
}


def full_job(state: str = "Completed", name: str = "job1", *, drives: str = "ShippedBack", **options: Any) -> UUID:
    """Make a job of a user with something in every personal column; no extra drive of it is here."""
    listed = [
        {**DRIVE, "driveId": f"Q{name}-{number}", "bitLockerKey": f"QKEY-{name}-{number}"} for number in range(3)
    ]
    with writing() as session:
        job_id = job_in(session, JobState(state), name, driveList=listed, **PERSON, **options)
        with_every_row(session, job_id)
        values = {"state": DriveState(drives), "bytes_total": 7, "bytes_succeeded": 5}
        of_job = col(Drive.job_id) == job_id
        logs = {f"{log}_uri": f"https://q/{name}/{log}" for log in ("error_log", "verbose_log", "manifest")}
        session.connection().execute(update(Drive).where(of_job).values(**values, **logs))
        sent_back = update(ExtraDrive).where(col(ExtraDrive.job_id) == job_id).values(shipped_back_at=NOON)
        session.connection().execute(sent_back)
        set_columns(session, job_id, user_id=USER)
    return job_id


def read(job_id: UUID) -> Job:
    """Read a job as everyone sees it now."""
    with reading() as session:
        return read_job(session, job_id)


def wish(job_id: UUID, at: datetime = LATER, by: Actor = Actor.OPERATOR, **options: Any) -> Outcome:
    """Wish the erasure in a transaction of its own."""
    with writing() as session:
        return wish_erasure(session, job_id, at=at, by=by, **options)


def send_back(job_id: UUID, at: datetime = LATER, package: ReturnPackageShape | None = None) -> None:
    """Send the drives back in a transaction of its own."""
    with writing() as session:
        return_drives(session, job_id, package, at=at, by=Actor.OPERATOR)


def due(at: datetime, rows_max: int = 100) -> list[UUID]:
    """Find what is due."""
    with reading() as session:
        return list(due_erasures(session, at, rows_max))


def personal_values(job_id: UUID) -> dict[tuple[str, str], list[str]]:
    """Read what any query gives of a job's personal values and secrets: (table, column) -> what says anything."""
    found: dict[tuple[str, str], list[str]] = {}
    with reading() as session:
        for table, column in OF_JOBS:
            columns = SQLModel.metadata.tables[table].c
            values = session.connection().execute(select(columns[column]).where(columns["job_id"] == job_id))
            found[table, column] = [value for value in values.scalars() if value]
    return {place: values for place, values in found.items() if values}


def sealed_bytes(job_id: UUID) -> set[bytes]:
    """Read whatever is stored sealed in rows of a job, as it is stored."""
    sealed: set[bytes] = set()
    with reading() as session:
        for table, column in OF_JOBS:
            key = job_id.hex if engine().dialect.name == "sqlite" else job_id
            stored = text(f"SELECT {column} FROM {table} WHERE job_id = :job_id")  # noqa: S608  names of ours
            rows = session.connection().execute(stored, {"job_id": key}).scalars()
            sealed |= {bytes(value) for value in rows if value is not None}
    return sealed


def impersonal_rows(job_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """Read every row of a job, but for its personal columns and what erasure writes into the job itself."""
    told: dict[str, list[dict[str, Any]]] = {}
    with reading() as session:
        for table in SQLModel.metadata.sorted_tables:
            of_job = table.c["id"] if table.name == "job" else table.c.get("job_id")
            if of_job is None:
                continue
            kept = [column for column in table.c if (table.name, column.name) not in OF_JOBS]
            rows = session.connection().execute(select(*kept).where(of_job == job_id).order_by(*table.primary_key))
            told[table.name] = [dict(row._mapping) for row in rows]
    for job in told["job"]:
        for name in ("user_id", "erasure_wished_at", "erased_at"):
            job.pop(name)
    return told


def receipts_of(job_id: UUID) -> list[ReceiptEntry]:
    """Read the receipts of a job, and see that the chain is whole."""
    with reading() as session:
        assert verify_receipts(session).faults == ()
        of_job = select(ReceiptEntry).where(col(ReceiptEntry.opaque_id) == job_id)
        return list(session.exec(of_job.order_by(col(ReceiptEntry.number))))


def require_erased(job_id: UUID) -> None:
    """Nothing personal of the job is left, by any query; the job itself is there."""
    assert personal_values(job_id) == {}
    job = read(job_id)
    assert job.user_id is None
    assert job.erased_at is not None
    assert job.erasure_wished_at is not None
    assert job.erasure_wished_at <= job.erased_at
    left = impersonal_rows(job_id)
    assert not {"return_address", "return_shipping", "package", "extra_drive"} & {
        table for table, rows in left.items() if rows
    }


# At once, a wish, or refused.


def expected(state: str, drives: str, *, extra: bool, shipped: bool, ended: timedelta) -> str:
    """Tell what comes of asking, by the specification's sections 2 and 6 alone."""
    if state == "Creating":
        return "refused"
    if state not in ENDS:
        return "wished"
    if drives in ON_SITE or extra:
        return "wished"
    if drives == "Specified" and shipped and ended < FORTNIGHT:
        return "wished"
    return "done"


def ask(session: Session, job_id: UUID, at: datetime) -> str:
    """Ask at once, and where that is refused for the address's sake without it; what comes of it stays so."""
    before = len(events_of(session, job_id))
    refused = False
    try:
        outcome = wish_erasure(session, job_id, at=at, by=Actor.OPERATOR, at_once=True)
    except JobStateConflictError:
        return "refused"
    except AddressNeededError:
        refused = True
        assert len(events_of(session, job_id)) == before
        assert read_job(session, job_id).erasure_wished_at is None
        outcome = wish_erasure(session, job_id, at=at, by=Actor.OPERATOR)
    assert outcome is (Outcome.WISHED if refused else Outcome.DONE)
    assert wish_erasure(session, job_id, at=at, by=Actor.OPERATOR) is Outcome.NOTHING_TO_DO
    job = read_job(session, job_id)
    assert (job.erasure_wished_at, job.erased_at) == (at, None if refused else at)
    assert len(events_of(session, job_id)) == before + 1
    assert due_erasures(session, at, 10) == []
    return str(outcome)


@pytest.mark.parametrize("state", [state.value for state in JobState])
def test_it_is_done_at_once_where_nothing_goes_back_to_the_address(any_database: str, state: str) -> None:
    """All states of the job, those of its drives, an extra drive here, sent back or none, cancelled or not."""
    on_the_way = product(["Specified", "Received", "NeverReceived", "ShippedBack"], (None, "here"), [FORTNIGHT])
    at_its_end = product(DriveState, (None, "here", "sent back"), [timedelta(0), FORTNIGHT])
    just_before = product(["Specified"], (None, "here", "sent back"), [FORTNIGHT - MICROSECOND])
    combinations = [*at_its_end, *just_before] if state in ENDS else list(on_the_way)
    seen = set()
    for cancelled in (False, True)[: 1 + (state in CANCELLED_IN or state == "Creating")]:
        with writing() as session:
            job_id = job_in(session, JobState(state), f"job-{cancelled}", cancelled=cancelled)
            shipped = any(told.target == "Shipping" for told in events_of(session, job_id, EventKind.MOVED))
            for drives, extra, ended in combinations:
                with session.begin_nested() as combination:
                    session.connection().execute(update(Drive).values(state=drives))
                    if extra:
                        gone = NOON if extra == "sent back" else None
                        session.add(ExtraDrive(job_id=job_id, drive_id="X", found_at=NOON, shipped_back_at=gone))
                    came = ask(session, job_id, NOON + ended)
                    combination.rollback()
                meant = expected(state, drives, extra=extra == "here", shipped=shipped, ended=ended)
                assert came == meant, (cancelled, drives, extra, ended)
                seen.add(came)
    assert seen == ({"done", "wished"} if state in ENDS else {"refused" if state == "Creating" else "wished"})


def test_a_cancelled_job_whose_package_was_sent_waits_for_it(any_database: str) -> None:
    """14 days from the end of the job, to the microsecond; one that was never sent is erased at once."""
    made = {}
    for shipped in (False, True):
        with writing() as session:
            job_id = job_in(session, JobState.SHIPPING if shipped else JobState.CREATING, f"job-{shipped}")
            request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
            finish_cancel(session, job_id, at=LATER)
        made[shipped] = job_id
    assert wish(made[False], at=LATER) is Outcome.DONE
    assert wish(made[True], at=LATER) is Outcome.WISHED
    for early in (LATER, LATER + FORTNIGHT - MICROSECOND):
        assert due(early) == []
        with pytest.raises(AddressNeededError, match="its package was sent and may still come"):
            wish(made[True], at=early, at_once=True)
    for late in (LATER + FORTNIGHT, LATER + FORTNIGHT + MICROSECOND):
        assert due(late) == [made[True]]
    with writing() as session:
        assert not carry_out_wish(session, read_job(session, made[True]), at=LATER + FORTNIGHT - MICROSECOND)
        assert carry_out_wish(session, read_job(session, made[True]), at=LATER + FORTNIGHT)
    require_erased(made[True])


def export_job(name: str = "job1") -> UUID:
    """Make an Export job that was sent: its drives are known when they come."""
    with writing() as session:
        export = {"blobList": {"blobPath": ["/data/a"]}}
        return job_in(session, JobState.SHIPPING, name, jobType="Export", driveList=None, export=export)


def test_an_export_job_whose_package_was_sent_waits_for_it(any_database: str) -> None:
    """Though it knows no drive: cancelled on its way, it waits 14 days; what comes, goes back to the address."""
    job_id = export_job()
    with writing() as session:
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
        finish_cancel(session, job_id, at=NOON)
    with pytest.raises(AddressNeededError, match="its package was sent and may still come"):
        wish(job_id, at_once=True)
    assert wish(job_id) is Outcome.WISHED
    assert due(NOON + FORTNIGHT - MICROSECOND) == []
    assert due(NOON + FORTNIGHT) == [job_id]
    with writing() as session:
        assert check_in(session, job_id, ["QEMPTY"], at=LATER, by=Actor.OPERATOR).received == 1
    assert due(NOON + FORTNIGHT) == []
    send_back(job_id, at=LATER)
    require_erased(job_id)


def test_an_export_job_closed_for_want_of_its_package_is_erased_at_once(any_database: str) -> None:
    """Operators were told after 14 days that it did not come; nobody waits for it again."""
    job_id = export_job()
    with writing() as session:
        assert tell_overdue_packages(session, NOON + FORTNIGHT, 10) == [job_id]
        close_job(session, job_id, at=NOON + timedelta(days=30), by=Actor.OPERATOR)
    assert wish(job_id, at=NOON + timedelta(days=30), at_once=True) is Outcome.DONE
    require_erased(job_id)


def test_a_refusal_says_why_and_what_would_work(any_database: str) -> None:
    """And leaves nothing behind."""
    reasons = {
        "is on its way": full_job("Packaging", "job1"),
        "drives of it are here": full_job("Completed", "job2", drives="Completed"),
        "its package was sent": full_job("Closed", "job3", drives="Specified"),
    }
    for reason, job_id in reasons.items():
        before, values = impersonal_rows(job_id), personal_values(job_id)
        with pytest.raises(AddressNeededError, match=rf"{reason}.*; ask without 'at once'"):
            wish(job_id, at_once=True)
        assert (impersonal_rows(job_id), personal_values(job_id)) == (before, values)
        assert read(job_id).erasure_wished_at is None
        assert receipts_of(job_id) == []
    creating = full_job("Creating", "job4", drives="Specified")
    with pytest.raises(JobStateConflictError, match="nothing was sent yet: delete it"):
        wish(creating)
    with pytest.raises(JobNotFoundError):
        wish(uuid4())
    for job_id in (creating, *reasons.values()):
        with pytest.raises(ActorNotAllowedError):
            wish(job_id, by=Actor.SERVICE)
    assert wish(reasons["is on its way"], by=Actor.CUSTOMER) is Outcome.WISHED


def test_a_wish_is_written_down_once_and_told_of(any_database: str) -> None:
    """Asked again later, it is as old as it was; asked at once, it is refused as before and stays a wish."""
    job_id = full_job("Transferring", drives="Transferring")
    values = personal_values(job_id)
    assert wish(job_id, by=Actor.CUSTOMER) is Outcome.WISHED
    assert wish(job_id, at=LATER + timedelta(days=1)) is Outcome.NOTHING_TO_DO
    with pytest.raises(AddressNeededError):
        wish(job_id, at=LATER + timedelta(days=1), at_once=True)
    job = read(job_id)
    assert (job.erasure_wished_at, job.erased_at, job.user_id) == (LATER, None, USER)
    assert personal_values(job_id) == values
    assert receipts_of(job_id) == []
    with reading() as session:
        (told,) = events_of(session, job_id, EventKind.ERASURE_WISHED)
    assert (told.at, told.by) == (LATER, Actor.CUSTOMER)


def test_a_wish_is_carried_out_by_asking_again_when_the_drives_are_back(any_database: str) -> None:
    """Done then, and by whom it was asked."""
    job_id = full_job(drives="Received")
    assert wish(job_id) is Outcome.WISHED
    with writing() as session:
        session.connection().execute(update(Drive).values(state=DriveState.SHIPPED_BACK))
    assert due(LATER) == [job_id]
    assert wish(job_id, at=LATER + MICROSECOND, by=Actor.CUSTOMER, at_once=True) is Outcome.DONE
    require_erased(job_id)
    job = read(job_id)
    assert (job.erasure_wished_at, job.erased_at) == (LATER, LATER + MICROSECOND)
    with reading() as session:
        (told,) = events_of(session, job_id, EventKind.ERASED)
    assert (told.at, told.by) == (LATER + MICROSECOND, Actor.CUSTOMER)
    (entry,) = receipts_of(job_id)
    assert (entry.due_at, entry.at) == (LATER, LATER + MICROSECOND)
    assert due(LATER) == []


# When the drives are back.


@pytest.mark.parametrize("package", [None, RETURN_PACKAGE])
@pytest.mark.parametrize("status", [DriveStatus.COMPLETED, DriveStatus.COMPLETED_WITH_ERRORS])
def test_sending_the_drives_back_carries_the_wish_out(
    any_database: str, status: DriveStatus, package: ReturnPackageShape | None
) -> None:
    """In one transaction with the end of the job, Completed or Closed; the new package is not kept either."""
    job_id = full_job("Packaging", drives="Completed")
    other = full_job("Packaging", "job2", drives="Completed")
    with writing() as session:
        session.connection().execute(update(Drive).values(copy_status=status))
        session.add(ExtraDrive(job_id=job_id, drive_id="QEXTRA2", found_at=NOON))
    assert wish(job_id) is Outcome.WISHED
    at = LATER + timedelta(days=1)
    send_back(job_id, at, package)
    send_back(other, at, package)
    require_erased(job_id)
    job = read(job_id)
    assert job.state == ("Completed" if status is DriveStatus.COMPLETED else "Closed")
    assert (job.state_since, job.erased_at, job.expires_at) == (at, at, at + timedelta(days=90))
    assert read(other).erased_at is None
    assert set(personal_values(other)) == OF_JOBS
    with reading() as session:
        (told,) = events_of(session, job_id, EventKind.ERASED)
        assert (told.at, told.by) == (at, Actor.SERVICE)
        assert len(events_of(session, job_id, EventKind.EXTRA_DRIVE_SHIPPED_BACK)) == 1
    (entry,) = receipts_of(job_id)
    assert (entry.due_at, entry.at) == (LATER, at)
    assert entry.counts["extra_drive"] == 2
    assert entry.counts["package"] == 2


def test_sending_back_and_erasing_are_done_together_or_not_at_all(any_database: str) -> None:
    """What fails afterwards takes both back."""
    job_id = full_job("Packaging", drives="Completed")
    wish(job_id)
    before, values = impersonal_rows(job_id), personal_values(job_id)

    def send_back_and_fail() -> None:
        with writing() as session:
            return_drives(session, job_id, RETURN_PACKAGE, at=LATER, by=Actor.OPERATOR)
            assert read_job(session, job_id).erased_at == LATER
            raise RuntimeError

    with pytest.raises(RuntimeError):
        send_back_and_fail()
    assert (impersonal_rows(job_id), personal_values(job_id)) == (before, values)
    assert receipts_of(job_id) == []
    send_back(job_id)
    require_erased(job_id)


def test_without_a_wish_sending_back_keeps_everything(any_database: str) -> None:
    """Also when another job is wished to be forgotten."""
    kept, wished = full_job("Packaging", drives="Completed"), full_job("Packaging", "job2", drives="Completed")
    wish(wished)
    send_back(kept, package=RETURN_PACKAGE)
    assert set(personal_values(kept)) == OF_JOBS
    assert (read(kept).erased_at, receipts_of(kept)) == (None, [])
    assert read(wished).erased_at is None


def test_a_wish_waits_for_the_last_drive(any_database: str) -> None:
    """A cancelled job whose second drive is still awaited: not all is back, until its 14 days are over."""
    with writing() as session:
        drives = [{**DRIVE, "driveId": f"SERIAL{number}"} for number in (1, 2)]
        job_id = job_in(session, JobState.SHIPPING, driveList=drives)
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
        finish_cancel(session, job_id, at=NOON)
        wish_erasure(session, job_id, at=NOON, by=Actor.CUSTOMER)
        check_in(session, job_id, ["serial1"], at=LATER, by=Actor.OPERATOR)
    assert due(NOON + FORTNIGHT) == []
    send_back(job_id)
    assert read(job_id).erased_at is None
    assert due(NOON + FORTNIGHT - MICROSECOND) == []
    assert due(NOON + FORTNIGHT) == [job_id]
    with writing() as session:
        check_in(session, job_id, ["SERIAL 2"], at=LATER, by=Actor.OPERATOR)
    assert due(NOON + FORTNIGHT) == []
    send_back(job_id)
    require_erased(job_id)


def test_what_is_due_is_found_oldest_wish_first(any_database: str) -> None:
    """As many as asked for; not what was never wished, is erased, or still waits."""
    made = [full_job(name=f"job{number}", drives="Received") for number in range(6)]
    for place, number in enumerate((2, 0, 3, 1, 4)):
        assert wish(made[number], at=LATER + timedelta(minutes=place)) is Outcome.WISHED
    back = (col(Drive.job_id) != made[4]) & (col(Drive.state) == DriveState.RECEIVED)
    with writing() as session:
        session.connection().execute(update(Drive).where(back).values(state=DriveState.SHIPPED_BACK))
    assert due(LATER) == [made[2], made[0], made[3], made[1]]
    assert due(LATER, 2) == [made[2], made[0]]
    assert due(LATER, 0) == []
    for number in (2, 4, 5):
        with writing() as session:
            done = carry_out_wish(session, read_job(session, made[number], lock=True), at=LATER)
        assert done is (number == 2)
    with writing() as session:
        assert not carry_out_wish(session, read_job(session, made[2]), at=LATER), "it was, before"
    assert due(LATER) == [made[0], made[3], made[1]]
    require_erased(made[2])
    assert all(set(personal_values(job_id)) == OF_JOBS for job_id in made[3:])


# What is gone, and what stays.


def test_every_personal_column_belongs_to_a_job_or_to_a_users_settings() -> None:
    """A table of another kind would be passed over by erasure."""
    others = {place.table for place in places(SQLModel.metadata)} - {table for table, _ in OF_JOBS}
    assert others == {"saved_address"}
    assert len(OF_JOBS) >= 16


@pytest.mark.parametrize("state", ENDS)
def test_after_an_erasure_no_query_gives_a_personal_value(any_database: str, state: str) -> None:
    """Before it every column says something; afterwards none, nor what was sealed. Another's job is untouched."""
    job_id, other = full_job(state), full_job(state, "job2")
    assert set(personal_values(job_id)) == OF_JOBS, "something is in every column, or nothing is proven"
    others = (personal_values(other), sealed_bytes(other), impersonal_rows(other), read(other).model_dump())
    sealed, before, row = sealed_bytes(job_id), impersonal_rows(job_id), read(job_id).model_dump()
    counted = {table: len(rows) for table, rows in before.items()}
    assert wish(job_id, at_once=True) is Outcome.DONE
    require_erased(job_id)
    assert not sealed & sealed_bytes(job_id)
    after = impersonal_rows(job_id)
    *kept, told = after.pop("job_event")
    assert kept == before.pop("job_event")
    assert (told["kind"], told["at"], told["by"]) == ("erased", LATER, "operator")
    for table in ("return_address", "return_shipping", "package", "extra_drive"):
        assert before.pop(table)
        assert after.pop(table) == []
    assert after == before, (
        "the skeleton: the job, its drives, how far they were copied, and what was said of blobs"
    )
    assert [drive["bytes_succeeded"] for drive in after["drive"]] == [5, 5, 5]
    assert read(job_id).model_dump() == {**row, "user_id": None, "erasure_wished_at": LATER, "erased_at": LATER}
    (entry,) = receipts_of(job_id)
    assert (entry.subject, entry.reason, entry.step) == ("personal data of a job", "wish", "begun")
    assert entry.due_at == entry.at == LATER
    tables = ("drive", "extra_drive", "package", "return_address", "return_shipping")
    assert entry.counts == {table: counted[table] for table in tables}
    assert counted["drive"] == 3
    assert counted["package"] == 2

    # Twice, and the other one in its turn.
    for at_once_too in (False, True):
        assert wish(job_id, at=LATER + timedelta(days=1), at_once=at_once_too) is Outcome.NOTHING_TO_DO
    assert len(receipts_of(job_id)) == 1
    assert impersonal_rows(job_id)["job_event"][-1] == told
    assert others == (
        personal_values(other),
        sealed_bytes(other),
        impersonal_rows(other),
        read(other).model_dump(),
    )
    assert wish(other) is Outcome.DONE
    require_erased(other)


def test_a_job_with_little_to_erase_is_erased_too(any_database: str) -> None:
    """No address was ever given; its receipt counts what there was."""
    with writing() as session:
        job_id = put(session, job_request(returnAddress=None, returnShipping=None, deliveryPackage=None))
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
        finish_cancel(session, job_id, at=NOON)
    assert wish(job_id) is Outcome.DONE
    require_erased(job_id)
    assert [entry.counts for entry in receipts_of(job_id)] == [{"drive": 1}]


def test_the_receipt_is_begun_before_the_first_destructive_step(any_database: str) -> None:
    """Of all that is written in the transaction, it comes first; PostgreSQL is given its rows by COPY."""
    job_id = full_job()
    written: list[str] = []

    def note(*told: Any) -> None:
        if told[2].startswith(("INSERT", "UPDATE", "DELETE")):
            written.append(" ".join(told[2].split()[:3]).partition("(")[0])

    event.listen(engine(), "before_cursor_execute", note)
    try:
        wish(job_id)
    finally:
        event.remove(engine(), "before_cursor_execute", note)
    is_destructive = [line.startswith(("UPDATE drive", "DELETE FROM")) for line in written]
    assert sum(is_destructive) == 5
    assert "UPDATE receipt_chain SET" in written[: is_destructive.index(True)]


def test_an_erasure_that_is_undone_leaves_everything(any_database: str) -> None:
    """And no receipt of what was not done."""
    job_id = full_job()
    before, values = impersonal_rows(job_id), personal_values(job_id)

    def erase_and_fail() -> None:
        with writing() as session:
            assert wish_erasure(session, job_id, at=LATER, by=Actor.OPERATOR) is Outcome.DONE
            raise RuntimeError

    with pytest.raises(RuntimeError):
        erase_and_fail()
    assert (impersonal_rows(job_id), personal_values(job_id)) == (before, values)
    assert (read(job_id).user_id, read(job_id).erased_at, receipts_of(job_id)) == (USER, None, [])


# An erased job.


@pytest.mark.parametrize("state", ENDS)
def test_an_erased_job_takes_nothing_personal_any_more(any_database: str, state: str) -> None:
    """Not from the bay, nor a return package, an update or a replacement; where refused, nothing is written."""
    job_id = full_job(state, drives="NeverReceived")
    other = full_job(state, "job2", drives="NeverReceived")
    wish(job_id)
    before = impersonal_rows(job_id)
    body = parse(UpdateJobBody, '{"properties": {"returnAddress": ' + json.dumps(PERSON["returnAddress"]) + "}}")

    def act(doing: Callable[[Session], object]) -> Callable[[], None]:
        def do() -> None:
            with writing() as session:
                doing(session)

        return do

    operator: dict[str, Any] = {"at": LATER, "by": Actor.OPERATOR}
    for refusal, doing in (
        (PersonalDataErasedError, lambda session: check_in(session, job_id, ["QJOB1-0"], **operator)),
        (PersonalDataErasedError, lambda session: check_in(session, job_id, ["QUNKNOWN"], **operator)),
        (PersonalDataErasedError, lambda session: check_in(session, job_id, [], **operator)),
        (PersonalDataErasedError, lambda session: return_drives(session, job_id, RETURN_PACKAGE, **operator)),
        (PropertyNotUpdatableError, lambda session: update_job(session, job_id, body, **operator)),
        (JobStateConflictError, lambda session: put(session, job_request("job1", **PERSON))),
    ):
        with pytest.raises(refusal):
            act(doing)()
    assert impersonal_rows(job_id) == before
    require_erased(job_id)
    with writing() as session:
        nothing = return_drives(session, job_id, None, at=LATER, by=Actor.OPERATOR)
        assert (nothing.drives, nothing.state) == (0, state)
        tags = parse(UpdateJobBody, '{"tags": {"kept": "for the report"}}')
        assert update_job(session, job_id, tags, at=LATER, by=Actor.CUSTOMER) is Outcome.DONE
        # What is refused of the one is taken of the other.
        assert check_in(session, other, ["QJOB2-0"], at=LATER, by=Actor.OPERATOR).received == 1
        assert return_drives(session, other, RETURN_PACKAGE, at=LATER, by=Actor.OPERATOR).drives == 1
    require_erased(job_id)


@pytest.mark.parametrize("state", ENDS)
def test_an_erased_job_is_deleted_after_its_90_days(any_database: str, state: str) -> None:
    """From its end, not from its erasure; with a receipt of its own; a microsecond before, it is kept."""
    job_id = full_job(state)
    wish(job_id, at=NOON + timedelta(days=60))
    ninety = NOON + timedelta(days=90)
    with writing() as session:
        assert delete_expired_jobs(session, ninety - MICROSECOND, 10) == []
    require_erased(job_id)
    before = impersonal_rows(job_id)
    with writing() as session:
        assert [expired.job_id for expired in delete_expired_jobs(session, ninety, 10)] == [job_id]
    erased, deleted = receipts_of(job_id)
    assert (erased.subject, deleted.subject) == ("personal data of a job", "job")
    gone = {table: len(rows) for table, rows in before.items() if rows and table != "job_run"}
    assert deleted.counts == gone
    with reading() as session:
        left = rows_of(session, job_id)
    assert left.pop("job_run") == 1
    assert not any(left.values())


def test_an_erased_job_is_deleted_by_hand_when_completed_and_kept_when_closed(any_database: str) -> None:
    """As any other."""
    completed, closed = full_job("Completed"), full_job("Closed", "job2")
    for job_id in (completed, closed):
        wish(job_id)
    with writing() as session:
        delete_job(session, completed, at=LATER, by=Actor.CUSTOMER)
    with pytest.raises(JobNotFoundError):
        read(completed)
    with pytest.raises(JobStateConflictError), writing() as session:
        delete_job(session, closed, at=LATER, by=Actor.CUSTOMER)
    require_erased(closed)
    assert [len(receipts_of(job_id)) for job_id in (completed, closed)] == [2, 1]


# A person's jobs.


def test_a_persons_jobs_are_found_until_their_erasure_is_wished(any_database: str) -> None:
    """In any state, each once, no more than asked for; somebody else's and nobody's are not."""
    states = [state.value for state in JobState]
    drives = {"Creating": "Specified", "Packaging": "Completed"}
    made = {full_job(state, f"job{state}", drives=drives.get(state, "ShippedBack")): state for state in states}
    strangers = [full_job("Completed", "job-of-another"), full_job("Completed", "job-of-nobody")]
    with writing() as session:
        set_columns(session, strangers[0], user_id=uuid4())
        set_columns(session, strangers[1], user_id=None)

    def found(rows_max: int = 100) -> list[tuple[UUID, JobState]]:
        with reading() as session:
            return list(jobs_to_erase(session, USER, rows_max))

    assert dict(found()) == made
    assert len(found()) == len(made)
    assert found(3) == found()[:3]
    assert found(0) == []
    for job_id, state in found():
        if state != "Creating":
            expected_outcome = Outcome.DONE if state in ENDS else Outcome.WISHED
            assert wish(job_id) is expected_outcome
    assert [state for _, state in found()] == ["Creating"]
    assert all(set(personal_values(stranger)) == OF_JOBS for stranger in strangers)


# At the same moment.


def test_a_wish_and_the_way_back_at_once_end_erased(any_database: str, thorough: bool) -> None:
    """Whoever is first: the wish finds the drives gone, or their return finds the wish."""
    for number in range(50 if thorough else 4):
        job_id = full_job("Packaging", f"job{number}", drives="Completed")
        ends = at_once(partial(wish, job_id), partial(send_back, job_id))
        assert ends[0] in {Outcome.DONE, Outcome.WISHED}
        assert ends[1] is None
        require_erased(job_id)
        assert len(receipts_of(job_id)) == 1


def test_of_many_that_erase_at_once_one_does(any_database: str) -> None:
    """One receipt, one event; a deletion between them has its own."""
    job_id = full_job()
    ends = at_once(*[lambda: wish(job_id)] * 4)
    assert sorted(map(str, ends)) == ["done", *["nothing to do"] * 3]
    assert len(receipts_of(job_id)) == 1
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.ERASED)) == 1

    def delete() -> None:
        with writing() as session:
            delete_job(session, other, at=LATER, by=Actor.CUSTOMER)

    other = full_job(name="job2")
    ends = at_once(lambda: wish(other), delete)
    assert ends[1] is None
    assert ends[0] is Outcome.DONE or isinstance(ends[0], JobNotFoundError)
    assert [entry.subject for entry in receipts_of(other)][-1] == "job"
    with reading() as session:
        assert session.exec(select(JobEvent).where(col(JobEvent.job_id) == other)).all() == []
