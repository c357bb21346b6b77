"""What is answered about jobs and locations: the shapes of Microsoft.ImportExport, apart from the tables.

Members that are not set are left out. A BitLocker key is in no shape but `BitLockerKey`. Source:
`arm/2021-01-01/storageimportexport.json`; the specification, section 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel
from sqlmodel import SQLModel
from starlette.responses import Response

from models.drives import Drive
from models.job_facts import DriveFacts, JobFacts, percent_of
from models.jobs import Job, KekType, LogLevel
from models.lifecycle import DriveState, JobState, JobType
from models.locations import Location, LocationProperties, Locations

PROVIDER: Final = "Microsoft.ImportExport"
JOBS_TYPE: Final = f"{PROVIDER}/jobs"
LOCATIONS_TYPE: Final = f"{PROVIDER}/locations"
_COPY_UNDER_WAY: Final = "InProgress"

_WRITERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}
"""What writes each shape; made once, which takes its time."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """A JSON object that we answer with: made of what was checked when it came in, and not checked again."""

    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)

    def as_response(self, status: int = 200) -> Response:
        """Make it an answer; what is not set is left out."""
        content = _writer(type(self)).dump_json(self, by_alias=True, exclude_none=True)
        return Response(content, status, media_type="application/json")


def _writer(shape: type[Any]) -> TypeAdapter[Any]:
    if shape not in _WRITERS:
        _WRITERS[shape] = TypeAdapter(shape)
    return _WRITERS[shape]


@dataclass(slots=True, kw_only=True)
class AddressAnswer(Answer):
    """What every address has."""

    recipient_name: str
    street_address_1: Annotated[str, Field(alias="streetAddress1")]
    street_address_2: Annotated[str, Field(alias="streetAddress2")]
    city: str
    state_or_province: str
    postal_code: str
    country_or_region: str
    phone: str


@dataclass(slots=True, kw_only=True)
class ReturnAddressAnswer(AddressAnswer):
    """`returnAddress`."""

    email: str


@dataclass(slots=True, kw_only=True)
class ShippingInformationAnswer(AddressAnswer):
    """`shippingInformation`: where the drives are sent, filled in from the location."""

    additional_information: str


@dataclass(slots=True, kw_only=True)
class LocationPropertiesAnswer(AddressAnswer):
    """`properties` of a location."""

    additional_shipping_information: str
    supported_carriers: list[str]
    alternate_locations: list[str]


@dataclass(slots=True, kw_only=True)
class ReturnShippingAnswer(Answer):
    """`returnShipping`."""

    carrier_name: str
    carrier_account_number: str


@dataclass(slots=True, kw_only=True)
class PackageAnswer(Answer):
    """`deliveryPackage` and `returnPackage`."""

    carrier_name: str
    tracking_number: str
    drive_count: int | None = None
    ship_date: str | None = None


@dataclass(slots=True, kw_only=True)
class DriveAnswer(Answer):
    """One entry of `driveList`."""

    drive_id: str | None = None
    manifest_file: str | None = None
    manifest_hash: str | None = None
    drive_header_hash: str | None = None
    state: DriveState
    copy_status: str | None = None
    percent_complete: int | None = None
    verbose_log_uri: str | None = None
    error_log_uri: str | None = None
    manifest_uri: str | None = None
    bytes_succeeded: int | None = None


@dataclass(slots=True, kw_only=True)
class BlobListAnswer(Answer):
    """`blobList`."""

    blob_path: list[str] | None = None
    blob_path_prefix: list[str] | None = None


@dataclass(slots=True, kw_only=True)
class ExportAnswer(Answer):
    """`export`."""

    blob_list: BlobListAnswer | None = None
    blob_list_blob_path: str | None = None


@dataclass(slots=True, kw_only=True)
class EncryptionKeyAnswer(Answer):
    """`encryptionKey`."""

    kek_type: KekType
    kek_url: str | None = None
    kek_vault_resource_id: Annotated[str | None, Field(alias="kekVaultResourceID")] = None


@dataclass(slots=True, kw_only=True)
class JobPropertiesAnswer(Answer):
    """`properties` of a job."""

    storage_account_id: str
    job_type: JobType
    return_address: ReturnAddressAnswer | None = None
    return_shipping: ReturnShippingAnswer | None = None
    shipping_information: ShippingInformationAnswer | None = None
    delivery_package: PackageAnswer | None = None
    return_package: PackageAnswer | None = None
    diagnostics_path: str
    log_level: LogLevel
    backup_drive_manifest: bool
    state: JobState
    cancel_requested: bool
    percent_complete: int | None = None
    incomplete_blob_list_uri: str | None = None
    drive_list: list[DriveAnswer] | None = None
    export: ExportAnswer | None = None
    provisioning_state: str = "Succeeded"
    encryption_key: EncryptionKeyAnswer


@dataclass(slots=True, kw_only=True)
class IdentityAnswer(Answer):
    """`identity`; jobs have none of their own here."""

    type: str = "None"


@dataclass(slots=True, kw_only=True)
class SystemDataAnswer(Answer):
    """`systemData`, without who it was: that would be one more place with a person's data."""

    created_at: datetime
    last_modified_at: datetime


@dataclass(slots=True, kw_only=True)
class JobAnswer(Answer):
    """A job."""

    id: str
    name: str
    type: str = JOBS_TYPE
    location: str
    tags: dict[str, str] | None = None
    properties: JobPropertiesAnswer
    identity: IdentityAnswer = field(default_factory=IdentityAnswer)
    system_data: SystemDataAnswer


@dataclass(slots=True, kw_only=True)
class JobListAnswer(Answer):
    """A page of jobs, and where the next one is."""

    value: list[JobAnswer]
    next_link: str | None = None


@dataclass(slots=True, kw_only=True)
class BitLockerKey(Answer):
    """The key of one drive."""

    bit_locker_key: str
    drive_id: str


@dataclass(slots=True, kw_only=True)
class BitLockerKeysAnswer(Answer):
    """The keys of a job's drives."""

    value: list[BitLockerKey]


@dataclass(slots=True, kw_only=True)
class LocationAnswer(Answer):
    """A site that takes drives."""

    id: str
    name: str
    type: str = LOCATIONS_TYPE
    properties: LocationPropertiesAnswer


@dataclass(slots=True, kw_only=True)
class LocationsAnswer(Answer):
    """All sites."""

    value: list[LocationAnswer]


_AnswerT = TypeVar("_AnswerT", bound=Answer)


def _of_row(shape: type[_AnswerT], row: SQLModel | None) -> _AnswerT | None:
    """Make a shape of the columns of the same names; they were checked when they came in."""
    if row is None:
        return None
    return shape(**{each.name: getattr(row, each.name) for each in fields(shape)})


def _package(row: SQLModel | None) -> PackageAnswer | None:
    package = _of_row(PackageAnswer, row)
    if package is not None:
        package.ship_date = package.ship_date or None
    return package


def job_id_of(job: Job) -> str:
    """Tell a job's resource id."""
    return (
        f"/subscriptions/{job.subscription_id}/resourceGroups/{job.resource_group}"
        f"/providers/{JOBS_TYPE}/{job.name}"
    )


def job_answer(
    facts: JobFacts, locations: Locations, *, location: str | None = None, with_drives: bool = True
) -> JobAnswer:
    """Make the answer about a job.

    Args:
        facts: what is known of it.
        locations: the sites there are.
        location: how its location is called; by default as its list does. PUT says it as it was sent.
        with_drives: whether `driveList` is in it; the list of a resource group leaves it out.
    """
    job = facts.job
    drives = [_drive(drive) for drive in facts.drives] if with_drives else []
    return JobAnswer(
        id=job_id_of(job),
        name=job.name,
        location=location or _display_name(locations, job.location),
        tags=job.tags or None,
        properties=JobPropertiesAnswer(
            storage_account_id=job.storage_account_id,
            job_type=job.job_type,
            return_address=_of_row(ReturnAddressAnswer, facts.return_address),
            return_shipping=_of_row(ReturnShippingAnswer, facts.return_shipping),
            shipping_information=_shipping_information(locations, job),
            delivery_package=_package(facts.delivery_package),
            return_package=_package(facts.return_package),
            diagnostics_path=job.diagnostics_path,
            log_level=job.log_level,
            backup_drive_manifest=job.backup_drive_manifest,
            state=job.state,
            cancel_requested=job.cancel_requested,
            percent_complete=facts.percent_complete,
            incomplete_blob_list_uri=job.incomplete_blob_list_uri,
            drive_list=drives or None,
            export=_export(job),
            encryption_key=EncryptionKeyAnswer(
                kek_type=job.kek_type, kek_url=job.kek_url, kek_vault_resource_id=job.kek_vault_resource_id
            ),
        ),
        identity=IdentityAnswer(),
        system_data=SystemDataAnswer(created_at=job.created_at, last_modified_at=job.updated_at),
    )


def _drive(drive: DriveFacts) -> DriveAnswer:
    status = drive.copy_status
    if status is None and drive.state is DriveState.TRANSFERRING:
        status_told: str | None = _COPY_UNDER_WAY
    else:
        status_told = status and status.value
    return DriveAnswer(
        drive_id=drive.drive_id or None,
        manifest_file=drive.manifest_file or None,
        manifest_hash=drive.manifest_hash or None,
        drive_header_hash=drive.drive_header_hash or None,
        state=drive.state,
        copy_status=status_told,
        percent_complete=percent_of(drive),
        verbose_log_uri=drive.verbose_log_uri,
        error_log_uri=drive.error_log_uri,
        manifest_uri=drive.manifest_uri,
        bytes_succeeded=None if drive.bytes_total is None else drive.bytes_succeeded,
    )


def _export(job: Job) -> ExportAnswer | None:
    if job.job_type is not JobType.EXPORT:
        return None
    paths, prefixes = job.export_blob_paths, job.export_blob_path_prefixes
    inline = BlobListAnswer(blob_path=paths or None, blob_path_prefix=prefixes or None)
    return ExportAnswer(
        blob_list=inline if paths or prefixes else None, blob_list_blob_path=job.export_blob_list_blob_path
    )


def _display_name(locations: Locations, location: str) -> str:
    site = locations.get(location)
    return location if site is None else site.name  # the list may have changed since


def _shipping_information(locations: Locations, job: Job) -> ShippingInformationAnswer | None:
    site = locations.by_key.get(job.shipping_location)
    if site is None:
        return None
    told = site.properties
    return ShippingInformationAnswer(**_address(told), additional_information=told.additional_shipping_information)


def _address(told: LocationProperties) -> dict[str, str]:
    return {
        "recipient_name": told.recipient_name,
        "street_address_1": told.street_address1,
        "street_address_2": told.street_address2,
        "city": told.city,
        "state_or_province": told.state_or_province,
        "postal_code": told.postal_code,
        "country_or_region": told.country_or_region,
        "phone": told.phone,
    }


def keys_answer(drives: Sequence[Drive]) -> BitLockerKeysAnswer:
    """Make the answer that gives out BitLocker keys."""
    return BitLockerKeysAnswer(
        value=[
            BitLockerKey(bit_locker_key=drive.bit_locker_key, drive_id=drive.drive_id)
            for drive in drives
            if drive.bit_locker_key is not None
        ]
    )


def location_answer(location: Location) -> LocationAnswer:
    """Make the answer about a site."""
    told = location.properties
    return LocationAnswer(
        id=location.id,
        name=location.name,
        properties=LocationPropertiesAnswer(
            **_address(told),
            additional_shipping_information=told.additional_shipping_information,
            supported_carriers=list(told.supported_carriers),
            alternate_locations=list(told.alternate_locations),
        ),
    )
