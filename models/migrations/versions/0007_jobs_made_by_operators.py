"""Which jobs an operator made is found without a look at every event of theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_MADE_BY_OPERATOR = sa.text("kind IN ('created', 'replaced') AND \"by\" = 'operator'")


def upgrade() -> None:
    op.create_index(
        "ix_job_event_made_by_operator",
        "job_event",
        ["job_id"],
        sqlite_where=_MADE_BY_OPERATOR,
        postgresql_where=_MADE_BY_OPERATOR,
    )


def downgrade() -> None:
    op.drop_index("ix_job_event_made_by_operator", "job_event")
