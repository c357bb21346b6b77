"""Lists go by name, in one order on every database; giving out BitLocker keys is an event; spent requests."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
)
_NEW_KIND = "keys given out"


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
    op.create_table(
        "spent_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_spent_request_at", "spent_request", ["at"])
    _set_kinds(*_KINDS, _NEW_KIND)
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("job", "resource_key", type_=sa.String(collation="C"), existing_nullable=False)


def downgrade() -> None:
    op.drop_index("ix_spent_request_at", "spent_request")
    op.drop_table("spent_request")
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("job", "resource_key", type_=sa.String(collation="default"), existing_nullable=False)
    op.execute(sa.text("DELETE FROM job_event WHERE kind = :kind").bindparams(kind=_NEW_KIND))
    _set_kinds(*_KINDS)
