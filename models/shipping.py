"""Who gets the drives back, by which carrier, and the packages they travel in."""

from enum import StrEnum
from uuid import UUID

from sqlmodel import Field, SQLModel

from models.columns import of_job, personal_text, words
from models.personal_data import Kind, impersonal


class Direction(StrEnum):
    """Which way a package goes."""

    DELIVERY = "delivery"
    RETURN = "return"


class AddressColumns(SQLModel):
    """Who gets drives back, and where: the columns that every address has."""

    recipient_name: str = personal_text(Kind.CONTACT_NAME)
    street_address_1: str = personal_text(Kind.STREET_ADDRESS)
    street_address_2: str = personal_text(Kind.STREET_ADDRESS, default="")
    city: str = personal_text(Kind.CITY)
    state_or_province: str = personal_text(Kind.STATE, default="")
    postal_code: str = personal_text(Kind.POSTAL_CODE)
    country_or_region: str = personal_text(Kind.COUNTRY)
    phone: str = personal_text(Kind.PHONE_NUMBER)
    email: str = personal_text(Kind.EMAIL)


class ReturnAddress(AddressColumns, table=True):
    """Where the drives of one job go back to."""

    __tablename__ = "return_address"

    job_id: UUID = of_job()


class ReturnShipping(SQLModel, table=True):
    """By which carrier, and on which account, the drives of one job go back."""

    __tablename__ = "return_shipping"

    job_id: UUID = of_job()
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    carrier_account_number: str = personal_text(Kind.CARRIER_ACCOUNT_NUMBER)


class Package(SQLModel, table=True):
    """A package of drives: one to us (delivery), one back (return) at most per job."""

    job_id: UUID = of_job()
    direction: Direction = Field(primary_key=True, sa_type=words(Direction), sa_column_kwargs=impersonal())
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    tracking_number: str = personal_text(Kind.TRACKING_NUMBER)
    drive_count: int | None = Field(default=None, sa_column_kwargs=impersonal())
    ship_date: str = Field(default="", sa_column_kwargs=impersonal())
