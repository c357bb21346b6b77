"""On SQLite, nothing takes a held job's row number away either: that, too, removes it without a word."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The word is the code of the error that a user is told. Where an INSERT names no number, `new.rowid` is -1, which no
# held job can have.
_AT_INSERT = """
CREATE TRIGGER job_held_stays_at_insert BEFORE INSERT ON job WHEN EXISTS (
    SELECT 1 FROM job WHERE +held_since IS NOT NULL AND (id = new.id OR resource_key = new.resource_key{or_number})
)
BEGIN SELECT RAISE(ABORT, 'JobHeld'); END
"""
# Not of some columns: the number is none that a trigger could name.
_AT_RENUMBERING = """
CREATE TRIGGER job_held_stays_at_renumbering BEFORE UPDATE ON job WHEN new.rowid <> old.rowid AND (
    new.rowid < 0 OR EXISTS (SELECT 1 FROM job WHERE held_since IS NOT NULL AND rowid = new.rowid)
)
BEGIN SELECT RAISE(ABORT, 'JobHeld'); END
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER job_held_stays_at_insert")
        op.execute(_AT_INSERT.format(or_number=" OR rowid = new.rowid"))
        op.execute(_AT_RENUMBERING)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER job_held_stays_at_renumbering")
        op.execute("DROP TRIGGER job_held_stays_at_insert")
        op.execute(_AT_INSERT.format(or_number=""))
