"""Who gets the drives back, by which carrier, and the packages they travel in."""

from enum import StrEnum
from uuid import UUID

from sqlmodel import Field, SQLModel

from models.columns import of_job, words
from models.personal_data import Kind, impersonal, personal


class Direction(StrEnum):
    """Which way a package goes."""

    DELIVERY = "delivery"
    RETURN = "return"


class ReturnAddress(SQLModel, table=True):
    """Where the drives of one job go back to."""

    __tablename__ = "return_address"

    job_id: UUID = of_job()
    recipient_name: str = Field(sa_column_kwargs=personal(Kind.CONTACT_NAME))
    street_address_1: str = Field(sa_column_kwargs=personal(Kind.STREET_ADDRESS))
    street_address_2: str = Field(default="", sa_column_kwargs=personal(Kind.STREET_ADDRESS))
    city: str = Field(sa_column_kwargs=personal(Kind.CITY))
    state_or_province: str = Field(default="", sa_column_kwargs=personal(Kind.STATE))
    postal_code: str = Field(sa_column_kwargs=personal(Kind.POSTAL_CODE))
    country_or_region: str = Field(sa_column_kwargs=personal(Kind.COUNTRY))
    phone: str = Field(sa_column_kwargs=personal(Kind.PHONE_NUMBER))
    email: str = Field(sa_column_kwargs=personal(Kind.EMAIL))


class ReturnShipping(SQLModel, table=True):
    """By which carrier, and on which account, the drives of one job go back."""

    __tablename__ = "return_shipping"

    job_id: UUID = of_job()
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    carrier_account_number: str = Field(sa_column_kwargs=personal(Kind.CARRIER_ACCOUNT_NUMBER))


class Package(SQLModel, table=True):
    """A package of drives: one to us (delivery), one back (return) at most per job."""

    job_id: UUID = of_job()
    direction: Direction = Field(primary_key=True, sa_type=words(Direction), sa_column_kwargs=impersonal())
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    tracking_number: str = Field(sa_column_kwargs=personal(Kind.TRACKING_NUMBER))
    drive_count: int | None = Field(default=None, sa_column_kwargs=impersonal())
    ship_date: str = Field(default="", sa_column_kwargs=impersonal())
