"""A job lies in fewer places, all of which its deletion writes: no random id of each event, no second index of runs.

Of events the id is gone, but for that of the request file that made the job; of runs those alone that are to be
forgotten have a place in an index, and SQLite keeps them in the order of their key, without an index of it.
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
_KINDS = (
    *("created", "replaced", "updated", "cancel accepted", "moved", "drive moved", "extra drive found"),
    *("extra drive shipped back", "package overdue", "erasure wished", "erased", "keys given out"),
    *("hold placed", "hold released"),
)


def _enum(name: str, length: int, *words: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=length)


def _keep_checks(events: BatchOperations) -> None:
    # SQLite writes the table anew, and would lose them.
    events.alter_column("kind", existing_type=sa.String(), type_=_enum("eventkind", 40, *_KINDS))
    events.alter_column(
        "by", existing_type=sa.String(), type_=_enum("actor", 24, "customer", "operator", "service")
    )


def _keep_runs(*, by_key: bool) -> None:
    options = {"sqlite_with_rowid": not by_key}
    with op.batch_alter_table("job_run", schema=None, recreate="always", table_kwargs=options):
        pass


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
            _keep_checks(batch_op)
    else:
        op.drop_column("job_event", "id")
    _index("ix_job_event_intake_id", "job_event", "intake_id", _FROM_INTAKE, unique=True)
    _index("ix_job_event_from_intake", "job_event", "job_id", _FROM_INTAKE)
    op.drop_index("ix_job_run_is_job_deleted", "job_run")
    if on_sqlite:
        _keep_runs(by_key=True)
    to_forget = sa.text("is_job_deleted = 1" if on_sqlite else "is_job_deleted")
    _index("ix_job_run_to_forget", "job_run", "flow_run_id", to_forget)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.drop_index("ix_job_run_to_forget", "job_run")
    if dialect == "sqlite":
        _keep_runs(by_key=False)
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
            _keep_checks(batch_op)
    else:
        op.drop_column("job_event", "intake_id")
        op.alter_column("job_event", "id", nullable=False)
        op.create_unique_constraint("job_event_id_key", "job_event", ["id"])
    _index("ix_job_event_made_by_operator", "job_event", "job_id", _MADE_BY_OPERATOR)
