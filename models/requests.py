"""What a customer asks for: the bodies of Create Job and Update Job Properties, validated.

The shapes are those of Microsoft.ImportExport; property names are taken without regard to case, and what
belongs to the service (state, percentComplete, shippingInformation …) is read over. No text of an error
repeats a value: values are personal data.

Source: `arm/2021-01-01/storageimportexport.json`; the specification, sections 5, 8 and 10.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ModelWrapValidatorHandler,
    StrictBool,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from models.copy_logs import LOG_FOLDER
from models.drives import serial
from models.errors import ManifestError
from models.jobs import KekType, LogLevel
from models.lifecycle import JobType
from models.manifests import split_blob_path
from models.request_faults import refusal, with_faults

REQUEST_BYTES_MAX: Final = 2**20
DRIVES_MAX: Final = 10
BLOB_LIST_BYTES_MAX: Final = 32 * 1024
TAGS_MAX: Final = 50
NAME_PATTERN: Final = r"^[a-zA-Z][a-zA-Z0-9_-]{1,63}$"
SUBSCRIPTION_PATTERN: Final = r"^[A-Za-z0-9-]{1,64}$"
RESOURCE_GROUP_PATTERN: Final = r"^[A-Za-z0-9_.()-]{0,89}[A-Za-z0-9_()-]$"
UUID_PATTERN: Final = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

_STORAGE_ACCOUNT_PATTERN: Final = (
    r"(?i)^/subscriptions/[^/\x00]+/resourceGroups/[^/\x00]+/providers"
    r"/Microsoft\.(Classic)?Storage/storageAccounts/[a-z0-9]{3,24}$"
)

# PostgreSQL keeps no U+0000.
_KEPT: Final = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256, pattern=_KEPT)]
_Optional = Annotated[str, StringConstraints(strip_whitespace=True, max_length=256, pattern=_KEPT)]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_KEPT)]
_DriveCount = Annotated[int, Field(ge=0, le=1000)]


def _written_as_uuid(value: object) -> object:
    # In our own words: pydantic's would repeat a letter of it.
    if isinstance(value, str) and not re.fullmatch(UUID_PATTERN, value):
        raise ValueError("is no UUID, such as 3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611")
    return value


OpaqueId = Annotated[UUID, BeforeValidator(_written_as_uuid)]
SubscriptionId = Annotated[str, StringConstraints(pattern=SUBSCRIPTION_PATTERN)]
ResourceGroupName = Annotated[str, StringConstraints(pattern=RESOURCE_GROUP_PATTERN)]


class Shape(BaseModel):
    """A JSON object of the service's API."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _names_compare_without_case(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        known = {str(field.alias).lower(): str(field.alias) for field in cls.model_fields.values()}
        # What is null is absent.
        return {known.get(str(name).lower(), name): member for name, member in value.items() if member is not None}


class ReturnAddressShape(Shape):
    """`returnAddress`: who gets the drives back."""

    recipient_name: Text
    street_address_1: Text = Field(alias="streetAddress1")
    street_address_2: _Optional = Field(default="", alias="streetAddress2")
    city: Text
    state_or_province: _Optional = ""
    postal_code: Text
    country_or_region: Text
    phone: Text
    email: Text


class ReturnShippingShape(Shape):
    """`returnShipping`: by which carrier and account the drives go back."""

    carrier_name: Text
    carrier_account_number: Text


class DeliveryPackageShape(Shape):
    """`deliveryPackage`: the package to us."""

    carrier_name: Text
    tracking_number: Text
    drive_count: _DriveCount | None = None
    ship_date: _Optional = ""


class ReturnPackageShape(Shape):
    """`returnPackage`: the package back."""

    carrier_name: Text
    tracking_number: Text
    drive_count: _DriveCount
    ship_date: Text


class DriveShape(Shape):
    """One entry of `driveList`."""

    drive_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    bit_locker_key: Text | None = Field(default=None, repr=False)
    manifest_file: _Path
    # 32 digits are MD5, as the description says; its own examples show 64, taken as SHA-256.
    manifest_hash: Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})$")]
    drive_header_hash: Annotated[str, StringConstraints(max_length=4096, pattern=_KEPT)] = ""


class BlobListShape(Shape):
    """`blobList`: blobs to export, by path and by prefix."""

    # After the first path that is none the rest of its list is not looked at: there may be very many.
    blob_path: Annotated[list[_Path], FailFast()] = Field(default_factory=list)
    blob_path_prefix: Annotated[list[Annotated[_Path, StringConstraints(pattern="^/")]], FailFast()] = Field(
        default_factory=list
    )


class ExportShape(Shape):
    """`export`: which blobs go out, given here or in a blob that lists them."""

    blob_list: BlobListShape = Field(default_factory=BlobListShape)
    blob_list_blob_path: _Path | None = None

    @model_validator(mode="after")
    def _names_blobs_once(self) -> Self:
        inline = [*self.blob_list.blob_path, *self.blob_list.blob_path_prefix]
        if not inline and self.blob_list_blob_path is None:
            raise ValueError("name blobs in blobList, or the blob that lists them in blobListBlobPath")
        if inline and self.blob_list_blob_path is not None:
            raise ValueError("give either blobList or blobListBlobPath, not both")
        if sum(len(each.encode()) for each in inline) > BLOB_LIST_BYTES_MAX:
            raise ValueError("blobList is over 32 KiB; put it in a blob and name that in blobListBlobPath")
        return self


class EncryptionKeyShape(Shape):
    """`encryptionKey`: whose key wraps the BitLocker keys."""

    kek_type: KekType = KekType.MICROSOFT_MANAGED
    kek_url: _Path | None = None
    kek_vault_resource_id: _Path | None = Field(default=None, alias="kekVaultResourceID")

    @model_validator(mode="after")
    def _customer_names_their_key(self) -> Self:
        if self.kek_type is KekType.CUSTOMER_MANAGED and not (self.kek_url and self.kek_vault_resource_id):
            raise ValueError("a CustomerManaged key needs kekUrl and kekVaultResourceID")
        return self


def _drives_together(value: Any, read: ValidatorFunctionWrapHandler) -> list[DriveShape]:
    """Read a list of drives and tell what is wrong with the whole of it beside what is wrong with each."""
    told: list[str] = []
    if isinstance(value, list):
        if len(value) > DRIVES_MAX:
            told.append(f"has {len(value)} entries, and may have at most {DRIVES_MAX}")
        # One too many is as wrong as a thousand.
        value = value[: DRIVES_MAX + 1]
        serials = [serial(name) if isinstance(name := _drive_id(drive), str) else object() for drive in value]
        again = [str(place) for place, each in enumerate(serials) if each in serials[:place]]
        if again:
            told.append(f"entry {', '.join(again)} names the same driveId as an earlier one")
    drives: list[DriveShape] = with_faults(told, lambda: read(value))
    return drives


def _drive_id(drive: object) -> object:
    members = drive if isinstance(drive, Mapping) else {}
    return next((member for name, member in members.items() if str(name).lower() == "driveid"), None)


_Drives = Annotated[list[DriveShape], WrapValidator(_drives_together)]
_TagName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_KEPT)]
_TagValue = Annotated[str, StringConstraints(max_length=256, pattern=_KEPT)]


def _few(tags: object) -> object:
    # Before each is looked at.
    if isinstance(tags, Mapping) and len(tags) > TAGS_MAX:
        raise ValueError(f"has {len(tags):,} entries, and may have at most {TAGS_MAX}")
    return tags


_Tags = Annotated[dict[_TagName, _TagValue], BeforeValidator(_few)]


def _diagnostics_path(path: str) -> str:
    try:
        split_blob_path(f"{path.strip('/')}/{LOG_FOLDER}")
    except ManifestError:
        raise ValueError("is no container with folders below it, such as waimportexport or logs/imports") from None
    return path


def drive_list_fault(job_type: object, drives: object) -> str:
    """Tell what is wrong with a job of a type and this `driveList`, or this absence of one; "" if nothing is."""
    if job_type == JobType.IMPORT and not drives:
        return "an Import job needs a driveList of 1 to 10 drives"
    if job_type == JobType.EXPORT and drives:
        return "an Export job has no driveList; its drives are made known when they arrive"
    return ""


class JobDetails(Shape):
    """`properties` of Create Job."""

    storage_account_id: Annotated[str, StringConstraints(pattern=_STORAGE_ACCOUNT_PATTERN)]
    job_type: JobType
    return_address: ReturnAddressShape | None = None
    return_shipping: ReturnShippingShape | None = None
    delivery_package: DeliveryPackageShape | None = None
    diagnostics_path: Annotated[_Path, AfterValidator(_diagnostics_path)] = "waimportexport"
    log_level: LogLevel = LogLevel.ERROR
    backup_drive_manifest: bool = False
    drive_list: _Drives | None = None
    export: ExportShape | None = None
    encryption_key: EncryptionKeyShape = Field(default_factory=EncryptionKeyShape)

    @model_validator(mode="wrap")
    @classmethod
    def _fits_its_type(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            raise PydanticCustomError("whole", "must be an object")
        given = {str(name).lower(): member for name, member in value.items()}
        drives, export = given.get("drivelist"), given.get("export")
        job_type = given.get("jobtype")
        told = [fault for fault in [drive_list_fault(job_type, drives)] if fault]
        if job_type == JobType.IMPORT and export is not None:
            told.append("an Import job has no export")
        if job_type == JobType.EXPORT and export is None:
            told.append("an Export job needs export, the blobs that go out")
        return with_faults(told, lambda: read(value))


class CreateJobBody(Shape):
    """The body of Create Job."""

    location: Text
    tags: _Tags = Field(default_factory=dict)
    properties: JobDetails


class JobNames(Shape):
    """The three names of a job."""

    subscription_id: SubscriptionId
    resource_group_name: ResourceGroupName
    job_name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class JobRequest(JobNames):
    """A whole request, as a request file of the intake holds it: the job's names and the body of Create Job.

    Attributes:
        user_id: whose job it is, by the id that the user's directory gave.
        save_carrier_and_return_address_as_default: the tick without which nothing is kept in portal settings.
        use_saved_carrier_and_return_address: what is missing of the two is filled in from what was saved.
    """

    user_id: OpaqueId | None = None
    save_carrier_and_return_address_as_default: StrictBool = False
    use_saved_carrier_and_return_address: StrictBool = False
    body: CreateJobBody


class UpdateDetails(Shape):
    """`properties` of Update Job Properties; what is absent or null is left as it is."""

    state: Literal["Shipping", ""] | None = None
    cancel_requested: bool | None = None
    delivery_package: DeliveryPackageShape | None = None
    drive_list: _Drives | None = None
    return_address: ReturnAddressShape | None = None
    return_shipping: ReturnShippingShape | None = None
    log_level: LogLevel | None = None
    backup_drive_manifest: bool | None = None


class UpdateJobBody(Shape):
    """The body of Update Job Properties."""

    tags: _Tags | None = None
    properties: UpdateDetails = Field(default_factory=UpdateDetails)


class ShipRequest(UpdateJobBody):
    """The body of Update Job Properties with the tick beside it, as a request file of the intake holds it."""

    save_carrier_and_return_address_as_default: StrictBool = False


class ReturnRequest(Shape):
    """What an operator tells of drives sent back, as a request file of the intake holds it."""

    return_package: ReturnPackageShape


_ShapeT = TypeVar("_ShapeT", bound=Shape)


def parse(shape: type[_ShapeT], document: str | bytes) -> _ShapeT:
    """Read a request from JSON.

    Raises:
        RequestError: it is no JSON, or not of this shape; every fault is named by its place.
    """
    try:
        # By the API's names alone: what checks a whole looks for its members by these.
        return shape.model_validate_json(document, by_alias=True, by_name=False)
    except ValidationError as error:
        refused = refusal(error)
    # Out here, so that pydantic's error, which names a customer's tags, does not travel in this one.
    raise refused
