"""Personal data is sealed; keys, receipts and portal settings come."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SEALED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "drive": (
        ("job_id", "number"),
        ("drive_id", "bit_locker_key", "error_log_uri", "verbose_log_uri", "manifest_uri"),
    ),
    "extra_drive": (("id",), ("drive_id",)),
    "package": (("job_id", "direction"), ("tracking_number",)),
    "return_address": (
        ("job_id",),
        (
            "recipient_name",
            "street_address_1",
            "street_address_2",
            "city",
            "state_or_province",
            "postal_code",
            "country_or_region",
            "phone",
            "email",
        ),
    ),
    "return_shipping": (("job_id",), ("carrier_account_number",)),
}
_NULLABLE = {"bit_locker_key", "error_log_uri", "verbose_log_uri", "manifest_uri"}

_KINDS = (
    "created",
    "replaced",
    "updated",
    "cancel accepted",
    "moved",
    "drive moved",
    "extra drive found",
    "extra drive shipped back",
    "package overdue",
)
_NEW_KINDS = ("erasure wished", "erased")


def _enum(name: str, length: int, *words: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=length)


_WORDS = {
    "drive": {
        "state": _enum(
            "drivestate",
            33,
            "Specified",
            "Received",
            "NeverReceived",
            "Transferring",
            "Completed",
            "CompletedMoreInfo",
            "ShippedBack",
        ),
        "copy_status": _enum(
            "drivestatus",
            39,
            "Completed",
            "CompletedWithWarnings",
            "CompletedWithErrors",
            "DiskNotFound",
            "BitLockerKeyInvalid",
            "ManifestNotFound",
            "ManifestAccessDenied",
            "ManifestCorrupted",
            "ManifestFormatInvalid",
            "ManifestDriveIdMismatch",
            "BlobListFormatInvalid",
            "BlobRequestForbidden",
            "InternalError",
        ),
    },
    "package": {"direction": _enum("direction", 24, "delivery", "return")},
}
"""Columns whose words the database checks: a table that SQLite writes anew would lose the check."""


def upgrade() -> None:
    _create_tables()
    op.bulk_insert(
        sa.table("receipt_chain", sa.column("id"), sa.column("entries"), sa.column("hash")),
        [{"id": 1, "entries": 0, "hash": "0" * 64}],
    )
    # Here, so that nothing is ever sealed with a key that the database does not know.
    number, proof = context.config.attributes["first key"]()
    key = sa.table(
        "sealing_key",
        sa.column("number"),
        sa.column("proof", sa.LargeBinary()),
        sa.column("database_id", sa.Uuid()),
        sa.column("in_use_since", sa.DateTime(timezone=True)),
    )
    now = datetime.now(UTC).replace(tzinfo=None if op.get_bind().dialect.name == "sqlite" else UTC)
    op.bulk_insert(key, [{"number": number, "proof": proof, "database_id": uuid4(), "in_use_since": now}])
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("user_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("erasure_wished_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_job_erasure_wished_at"), ["erasure_wished_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_user_id"), ["user_id"], unique=False)
    _set_kinds(*_KINDS, *_NEW_KINDS)
    for table in _SEALED:
        _convert(table, context.config.attributes["seal"], stores_bytes=True)
        _alter(table, sa.String(), sa.LargeBinary(), "decode({0}, 'hex')")


def _create_tables() -> None:
    op.create_table(
        "dashboard",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("filter", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("dashboard", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dashboard_user_id"), ["user_id"], unique=False)

    op.create_table(
        "open_receipt",
        sa.Column("receipt_id", sa.Uuid(), nullable=False),
        sa.Column("opaque_id", sa.Uuid(), nullable=False),
        sa.Column("begun", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("receipt_id"),
    )
    with op.batch_alter_table("open_receipt", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_open_receipt_opaque_id"), ["opaque_id"], unique=False)

    op.create_table(
        "portal_settings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id"),
    )
    op.create_table(
        "receipt_chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "receipt_entry",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("receipt_id", sa.Uuid(), nullable=False),
        sa.Column("opaque_id", sa.Uuid(), nullable=False),
        sa.Column(
            "subject",
            sa.Enum(
                "job",
                "personal data of a job",
                "portal settings",
                name="subject",
                native_enum=False,
                create_constraint=True,
                length=38,
            ),
            nullable=False,
        ),
        sa.Column(
            "reason",
            sa.Enum(
                "by hand",
                "retention",
                "expiry",
                "wish",
                name="reason",
                native_enum=False,
                create_constraint=True,
                length=25,
            ),
            nullable=False,
        ),
        sa.Column(
            "step",
            sa.Enum("begun", "done", name="receiptstep", native_enum=False, create_constraint=True, length=21),
            nullable=False,
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("receipt_entry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_receipt_entry_opaque_id"), ["opaque_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_receipt_entry_receipt_id"), ["receipt_id"], unique=False)

    op.create_table(
        "sealing_key",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("database_id", sa.Uuid(), nullable=False),
        sa.Column("in_use_since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "saved_address",
        sa.Column("recipient_name", sa.LargeBinary(), nullable=False),
        sa.Column("street_address_1", sa.LargeBinary(), nullable=False),
        sa.Column("street_address_2", sa.LargeBinary(), nullable=False),
        sa.Column("city", sa.LargeBinary(), nullable=False),
        sa.Column("state_or_province", sa.LargeBinary(), nullable=False),
        sa.Column("postal_code", sa.LargeBinary(), nullable=False),
        sa.Column("country_or_region", sa.LargeBinary(), nullable=False),
        sa.Column("phone", sa.LargeBinary(), nullable=False),
        sa.Column("email", sa.LargeBinary(), nullable=False),
        sa.Column("settings_id", sa.Uuid(), nullable=False),
        sa.Column("carrier_name", sa.String(), nullable=False),
        sa.Column("carrier_account_number", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["settings_id"], ["portal_settings.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("settings_id"),
    )


def _convert(table: str, convert: Callable[[str, Any], Any], *, stores_bytes: bool) -> None:
    """Write every value anew. PostgreSQL's column takes text before and after, so bytes go through it as digits."""
    connection = op.get_bind()
    on_postgresql = connection.dialect.name == "postgresql"
    key, columns = _SEALED[table]
    rows = connection.execute(sa.text(f"SELECT {', '.join((*key, *columns))} FROM {table}")).all()  # noqa: S608
    setting = ", ".join(f"{column} = :{column}" for column in columns)
    where = " AND ".join(f"{column} = :{column}" for column in key)
    for row in rows:
        values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001
        for column in columns:
            value = values[column]
            if value is None:
                continue
            if on_postgresql and not stores_bytes:
                value = bytes.fromhex(value)
            value = convert(f"{table}.{column}", value)
            values[column] = value.hex() if on_postgresql and stores_bytes else value
        connection.execute(sa.text(f"UPDATE {table} SET {setting} WHERE {where}"), values)  # noqa: S608


def _alter(table: str, before: Any, after: Any, using: str) -> None:
    """Change the columns' type. Both databases write the whole table anew, so that no plain text stays in it."""
    with op.batch_alter_table(table, schema=None) as batch_op:
        for column in _SEALED[table][1]:
            batch_op.alter_column(
                column,
                existing_type=before,
                type_=after,
                existing_nullable=column in _NULLABLE,
                postgresql_using=using.format(column),
            )
        if op.get_bind().dialect.name == "sqlite":
            for column, words in _WORDS.get(table, {}).items():
                batch_op.alter_column(column, existing_type=sa.String(), type_=words)


def _set_kinds(*kinds: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("job_event", schema=None) as batch_op:
            batch_op.alter_column("kind", existing_type=sa.String(), type_=_enum("eventkind", 40, *kinds))
            batch_op.alter_column(
                "by", existing_type=sa.String(), type_=_enum("actor", 24, "customer", "operator", "service")
            )
    else:
        op.drop_constraint("eventkind", "job_event", type_="check")
        op.create_check_constraint("eventkind", "job_event", sa.column("kind", sa.String()).in_(kinds))


def downgrade() -> None:
    for table in _SEALED:
        # SQLite takes text into any column, and would take sealed bytes for text that is damaged.
        if op.get_bind().dialect.name == "sqlite":
            _convert(table, context.config.attributes["open"], stores_bytes=False)
            _alter(table, sa.LargeBinary(), sa.String(), "")
        else:
            _alter(table, sa.LargeBinary(), sa.String(), "encode({0}, 'hex')")
            _convert(table, context.config.attributes["open"], stores_bytes=False)
    op.execute(sa.text("DELETE FROM job_event WHERE kind IN ('erasure wished', 'erased')"))
    _set_kinds(*_KINDS)
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_user_id"))
        batch_op.drop_index(batch_op.f("ix_job_erasure_wished_at"))
    # One by one: SQLite would else write the table anew, and lose its checks.
    for column in ("erased_at", "erasure_wished_at", "user_id"):
        op.drop_column("job", column)
    op.drop_table("saved_address")
    op.drop_table("sealing_key")
    with op.batch_alter_table("receipt_entry", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_receipt_entry_receipt_id"))
        batch_op.drop_index(batch_op.f("ix_receipt_entry_opaque_id"))

    op.drop_table("receipt_entry")
    op.drop_table("receipt_chain")
    op.drop_table("portal_settings")
    with op.batch_alter_table("open_receipt", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_open_receipt_opaque_id"))

    op.drop_table("open_receipt")
    with op.batch_alter_table("dashboard", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dashboard_user_id"))

    op.drop_table("dashboard")
