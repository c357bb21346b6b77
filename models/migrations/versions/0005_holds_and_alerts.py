"""What is looked for among very many jobs has an index of its own; legal holds, kept by the database itself; alerts; the clock as last seen."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

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
    "erasure wished",
    "erased",
    "keys given out",
)
_NEW_KINDS = ("hold placed", "hold released")
_HOLD_REASONS = ("litigation", "investigation", "regulator", "audit")
_ALERTS = (
    "retention-failed",
    "retention-overdue",
    "clock-jumped",
    "copy-without-heartbeat",
    "package-overdue",
    "package-due-back",
)
_DUE = sa.text("expires_at IS NOT NULL AND held_since IS NULL")
_RARE = {
    "held_since": "held_since IS NOT NULL",
    "cancel_requested_at": "cancel_requested_at IS NOT NULL AND expires_at IS NULL",
    "erasure_wished_at": "erasure_wished_at IS NOT NULL",
    "copy_lease_until": "copy_lease_until IS NOT NULL",
}
"""Columns that few jobs have a value in, and that are looked for by it; SQLite takes a whole index for `IS NULL`."""
_HERE = {
    "drive": ("state_since", "state IN ('Completed', 'CompletedMoreInfo', 'Received', 'Transferring')"),
    "extra_drive": ("found_at", "shipped_back_at IS NULL"),
}
"""Of drives that lie with us: since when, and that they do."""

# The word is the code of the error that a user is told.
_GUARDS_OF_SQLITE = (
    """
CREATE TRIGGER job_held_stays BEFORE DELETE ON job WHEN old.held_since IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'JobHeld'); END
""",
    # What INSERT OR REPLACE and UPDATE OR REPLACE take away tells no trigger of a deletion.
    """
CREATE TRIGGER job_held_stays_at_insert BEFORE INSERT ON job WHEN EXISTS (
    SELECT 1 FROM job WHERE +held_since IS NOT NULL AND (id = new.id OR resource_key = new.resource_key)
)
BEGIN SELECT RAISE(ABORT, 'JobHeld'); END
""",
    """
CREATE TRIGGER job_held_stays_at_update BEFORE UPDATE OF id, resource_key ON job WHEN EXISTS (
    SELECT 1 FROM job
    WHERE +held_since IS NOT NULL AND id <> old.id AND (id = new.id OR resource_key = new.resource_key)
)
BEGIN SELECT RAISE(ABORT, 'JobHeld'); END
""",
)
_GUARDS_OF_POSTGRESQL = (
    """
CREATE OR REPLACE FUNCTION refuse_to_delete_held_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' AND NOT EXISTS (SELECT FROM job WHERE held_since IS NOT NULL) THEN RETURN NULL; END IF;
    RAISE EXCEPTION 'JobHeld' USING ERRCODE = 'restrict_violation';
END $$
""",
    """
CREATE TRIGGER job_held_stays BEFORE DELETE ON job
FOR EACH ROW WHEN (old.held_since IS NOT NULL) EXECUTE FUNCTION refuse_to_delete_held_job()
""",
    """
CREATE TRIGGER job_held_stays_at_truncate BEFORE TRUNCATE ON job
FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_delete_held_job()
""",
)


def _enum(name: str, length: int, *words: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=length)


def _set_kinds(*kinds: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("job_event", schema=None) as batch_op:
            batch_op.alter_column("kind", existing_type=sa.String(), type_=_enum("eventkind", 40, *kinds))
            # SQLite writes the table anew, and would lose this check.
            batch_op.alter_column(
                "by", existing_type=sa.String(), type_=_enum("actor", 24, "customer", "operator", "service")
            )
    else:
        op.drop_constraint("eventkind", "job_event", type_="check")
        op.create_check_constraint("eventkind", "job_event", sa.column("kind", sa.String()).in_(kinds))


def upgrade() -> None:
    _set_kinds(*_KINDS, *_NEW_KINDS)
    op.add_column("job", sa.Column("held_since", sa.DateTime(timezone=True), nullable=True))
    # As one statement, so that SQLite need not write the table anew, which would lose its other checks.
    words = ", ".join(f"'{word}'" for word in _HOLD_REASONS)
    op.execute(
        f"ALTER TABLE job ADD COLUMN hold_reason VARCHAR(29) CONSTRAINT holdreason CHECK (hold_reason IN ({words}))"
    )
    op.drop_index("ix_job_expires_at", "job")
    op.create_index("ix_job_due", "job", ["expires_at"], sqlite_where=_DUE, postgresql_where=_DUE)
    op.drop_index("ix_job_state", "job")
    op.create_index("ix_job_state_since", "job", ["state", "state_since"])
    for column in ("cancel_requested_at", "erasure_wished_at"):
        op.drop_index(f"ix_job_{column}", "job")
    for column, condition in _RARE.items():
        there = sa.text(condition)
        op.create_index(f"ix_job_{column}", "job", [column], sqlite_where=there, postgresql_where=there)
    for table, (column, condition) in _HERE.items():
        here = sa.text(condition)
        op.create_index(f"ix_{table}_here", table, [column], sqlite_where=here, postgresql_where=here)
    op.drop_index("ix_receipt_entry_receipt_id", "receipt_entry")  # nothing looks for it, and every deletion paid
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for guard in _GUARDS_OF_SQLITE if is_sqlite else _GUARDS_OF_POSTGRESQL:
        op.execute(guard)
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    # The first look at the clock, too, has something to be compared with, where there is anything to be deleted.
    op.execute("INSERT INTO clock (id, seen_at) SELECT 1, max(at) FROM job_event HAVING max(at) IS NOT NULL")
    op.create_table(
        "alert",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", _enum("alertkind", 38, *_ALERTS), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("event_sent", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key"),
    )
    for column in ("job_id", "at", "next_try_at"):
        op.create_index(f"ix_alert_{column}", "alert", [column])


def downgrade() -> None:
    op.drop_table("alert")
    op.drop_table("clock")
    if op.get_bind().dialect.name == "sqlite":
        for name in ("job_held_stays", "job_held_stays_at_insert", "job_held_stays_at_update"):
            op.execute(f"DROP TRIGGER {name}")
    else:
        op.execute("DROP TRIGGER job_held_stays_at_truncate ON job")
        op.execute("DROP TRIGGER job_held_stays ON job")
        op.execute("DROP FUNCTION refuse_to_delete_held_job")
    op.create_index("ix_receipt_entry_receipt_id", "receipt_entry", ["receipt_id"])
    for table in _HERE:
        op.drop_index(f"ix_{table}_here", table)
    for column in _RARE:
        op.drop_index(f"ix_job_{column}", "job")
    for column in ("cancel_requested_at", "erasure_wished_at"):
        op.create_index(f"ix_job_{column}", "job", [column])
    op.drop_index("ix_job_due", "job")
    op.create_index("ix_job_expires_at", "job", ["expires_at"])
    op.drop_index("ix_job_state_since", "job")
    op.create_index("ix_job_state", "job", ["state"])
    op.drop_column("job", "hold_reason")
    op.drop_column("job", "held_since")
    for kind in _NEW_KINDS:
        op.execute(sa.text("DELETE FROM job_event WHERE kind = :kind").bindparams(kind=kind))
    _set_kinds(*_KINDS)
