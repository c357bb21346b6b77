"""Portal settings: what one user saved for the next job, by their own wish, and their dashboards.

The second of the two places where personal data may be. Source: the seed document; the specification, section 6.
"""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from models.columns import UtcDateTime, personal_text
from models.personal_data import Kind, impersonal
from models.shipping import AddressColumns


class PortalSettings(SQLModel, table=True):
    """The settings of one user. The user goes by an id that their directory gave; ours is random and opaque."""

    __tablename__ = "portal_settings"

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    user_id: UUID = Field(unique=True, sa_column_kwargs=impersonal())
    created_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    updated_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


class SavedAddress(AddressColumns, table=True):
    """The carrier and return address that a user saved as default, and that are offered for the next job."""

    __tablename__ = "saved_address"

    settings_id: UUID = Field(
        primary_key=True, foreign_key="portal_settings.id", ondelete="CASCADE", sa_column_kwargs=impersonal()
    )
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    carrier_account_number: str = personal_text(Kind.CARRIER_ACCOUNT_NUMBER)


class Dashboard(SQLModel, table=True):
    """A named filter over jobs, private or shared. A shared one outlives its maker's settings, without the maker."""

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    user_id: UUID | None = Field(default=None, index=True, sa_column_kwargs=impersonal())
    name: str = Field(sa_column_kwargs=impersonal())
    is_shared: bool = Field(default=False, sa_column_kwargs=impersonal())
    filter: dict[str, Any] = Field(default_factory=dict, sa_type=JSON, sa_column_kwargs=impersonal())
    created_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    updated_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
