"""A job lies in fewer places, all of which its deletion writes: no random id of each event, no second index of keys.

Of events the id is gone, but for that of the request file that made the job; of runs those alone that are to be
forgotten have a place in an index. SQLite keeps the rows of a job's tables in the order of their key, and so beside
each other, and no index of it.
"""

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MADE_BY_OPERATOR = sa.text("kind IN ('created', 'replaced') AND \"by\" = 'operator'")
_FROM_INTAKE = sa.text("intake_id IS NOT NULL")
_EVENTS = sa.table("job_event", sa.column("id"), sa.column("intake_id"))
_RANDOM = {"sqlite": sa.text("lower(hex(randomblob(16)))"), "postgresql": sa.text("gen_random_uuid()")}
_WORDS: dict[str, dict[str, tuple[str, int, tuple[str, ...]]]] = {
    "job_event": {
        "kind": (
            "eventkind",
            40,
            (
                *("created", "replaced", "updated", "cancel accepted", "moved", "drive moved"),
                *("extra drive found", "extra drive shipped back", "package overdue"),
                *("erasure wished", "erased", "keys given out", "hold placed", "hold released"),
            ),
        ),
        "by": ("actor", 24, ("customer", "operator", "service")),
    },
    "drive": {
        "state": (
            "drivestate",
            33,
            (
                *("Specified", "Received", "NeverReceived", "Transferring"),
                *("Completed", "CompletedMoreInfo", "ShippedBack"),
            ),
        ),
        "copy_status": (
            "drivestatus",
            39,
            (
                *(
                    "Completed",
                    "CompletedWithWarnings",
                    "CompletedWithErrors",
                    "DiskNotFound",
                    "BitLockerKeyInvalid",
                ),
                *("ManifestNotFound", "ManifestAccessDenied", "ManifestCorrupted", "ManifestFormatInvalid"),
                *("ManifestDriveIdMismatch", "BlobListFormatInvalid", "BlobRequestForbidden", "InternalError"),
            ),
        ),
    },
    "package": {"direction": ("direction", 24, ("delivery", "return"))},
}
"""What a column admits: the name of the check, the column's length, the words. SQLite writes a table anew without."""
_BY_KEY = ("drive", "package", "return_address", "return_shipping", "job_run")


def _keep_checks(table: str, batch_op: BatchOperations) -> None:
    for column, (name, length, words) in _WORDS.get(table, {}).items():
        kept = sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=length)
        batch_op.alter_column(column, existing_type=sa.String(), type_=kept)


def _keep_rows(*, by_key: bool) -> None:
    for table in _BY_KEY:
        options = {"sqlite_with_rowid": not by_key}
        with op.batch_alter_table(table, schema=None, recreate="always", table_kwargs=options) as batch_op:
            _keep_checks(table, batch_op)


def _index(name: str, table: str, column: str, where: sa.TextClause, *, unique: bool = False) -> None:
    op.create_index(name, table, [column], unique=unique, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.drop_index("ix_job_event_made_by_operator", "job_event")
    op.add_column("job_event", sa.Column("intake_id", sa.Uuid(), nullable=True))
    op.execute(sa.update(_EVENTS).values(intake_id=_EVENTS.c.id).where(_MADE_BY_OPERATOR))
    # That it is unique goes with the column.
    if on_sqlite:
        with op.batch_alter_table("job_event", schema=None) as batch_op:
            batch_op.drop_column("id")
            _keep_checks("job_event", batch_op)
    else:
        op.drop_column("job_event", "id")
    _index("ix_job_event_intake_id", "job_event", "intake_id", _FROM_INTAKE, unique=True)
    _index("ix_job_event_from_intake", "job_event", "job_id", _FROM_INTAKE)
    op.drop_index("ix_job_run_is_job_deleted", "job_run")
    if on_sqlite:
        _keep_rows(by_key=True)
    to_forget = sa.text("is_job_deleted = 1" if on_sqlite else "is_job_deleted")
    _index("ix_job_run_to_forget", "job_run", "flow_run_id", to_forget)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.drop_index("ix_job_run_to_forget", "job_run")
    if dialect == "sqlite":
        _keep_rows(by_key=False)
    op.create_index("ix_job_run_is_job_deleted", "job_run", ["is_job_deleted"])
    op.drop_index("ix_job_event_from_intake", "job_event")
    op.drop_index("ix_job_event_intake_id", "job_event")
    op.add_column("job_event", sa.Column("id", sa.Uuid(), nullable=True))
    op.execute(sa.update(_EVENTS).values(id=sa.func.coalesce(_EVENTS.c.intake_id, _RANDOM[dialect])))
    if dialect == "sqlite":
        with op.batch_alter_table("job_event", schema=None) as batch_op:
            batch_op.drop_column("intake_id")
            batch_op.alter_column("id", existing_type=sa.Uuid(), nullable=False)
            batch_op.create_unique_constraint("job_event_id_key", ["id"])
            _keep_checks("job_event", batch_op)
    else:
        op.drop_column("job_event", "intake_id")
        op.alter_column("job_event", "id", nullable=False)
        op.create_unique_constraint("job_event_id_key", "job_event", ["id"])
    _index("ix_job_event_made_by_operator", "job_event", "job_id", _MADE_BY_OPERATOR)
