"""Exported blobs have reports too, page blobs are told apart, and blobs are copied several at once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ATTACHED = (
    "Completed",
    "FileNotFound",
    "Corrupted",
    "XmlReadFailed",
    "BlobRequestFailed",
    "IOFailed",
    "Failed",
    "Cancelled",
)


def _enum(name: str, length: int, *words: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=length)


_OPTIONAL = {
    "disposition": _enum("importdisposition", 28, "no-overwrite", "overwrite", "rename"),
    "disposition_status": _enum(
        "dispositionstatus", 27, "Created", "Renamed", "Skipped", "Overwritten", "Cancelled"
    ),
}
_OTHERS = {
    "status": _enum(
        "blobstatus",
        36,
        "Completed",
        "CompletedWithErrors",
        "FileNameInvalid",
        "FileNotFound",
        "FileAccessDenied",
        "BlobRequestFailed",
        "BlobRequestForbidden",
        "RenameFailed",
        "IOFailed",
        "Failed",
    ),
    "metadata_status": _enum("attachedstatus", 33, *_ATTACHED),
    "properties_status": _enum("propertiesstatus", 33, *_ATTACHED),
}


def _let_be_absent(*, nullable: bool) -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("blob_report", schema=None) as batch_op:
        for name, words in _OPTIONAL.items():
            written_anew = {"type_": words} if is_sqlite else {}
            batch_op.alter_column(name, existing_type=sa.String(), nullable=nullable, **written_anew)
        # SQLite writes the table anew, and would lose these checks.
        for name, words in _OTHERS.items() if is_sqlite else ():
            batch_op.alter_column(name, existing_type=sa.String(), type_=words)
        if nullable:
            batch_op.add_column(sa.Column("is_page_blob", sa.Boolean(), nullable=False, server_default=sa.false()))
            batch_op.add_column(sa.Column("last_modified", sa.DateTime(timezone=True), nullable=True))
        else:
            batch_op.drop_column("is_page_blob")
            batch_op.drop_column("last_modified")
    if nullable:
        with op.batch_alter_table("blob_report", schema=None) as batch_op:
            # It was there for the rows that are; a batch on SQLite loses no check that is named here again.
            for name, words in {**_OPTIONAL, **_OTHERS}.items() if is_sqlite else ():
                batch_op.alter_column(name, existing_type=sa.String(), type_=words)
            batch_op.alter_column("is_page_blob", existing_type=sa.Boolean(), server_default=None)


def _rewrite_plans(**added: object) -> None:
    copies = sa.table(
        "drive_copy",
        sa.column("job_id", sa.Uuid()),
        sa.column("drive_number", sa.Integer()),
        sa.column("planned", sa.JSON()),
    )
    connection = op.get_bind()
    for job_id, number, planned in connection.execute(sa.select(*copies.c)).all():
        if planned and isinstance(planned, list):
            rewritten = [{"path": plan["path"], "status": plan["status"], **added} for plan in planned]
            connection.execute(
                copies.update()
                .where(copies.c.job_id == job_id, copies.c.drive_number == number)
                .values(planned=rewritten)
            )


def upgrade() -> None:
    op.add_column("job", sa.Column("incomplete_blob_list_uri", sa.String(), nullable=True))
    op.drop_column("drive_copy", "blocks_staged")
    _rewrite_plans(upload="", over=False)
    _let_be_absent(nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM blob_report WHERE disposition IS NULL OR disposition_status IS NULL")
    _let_be_absent(nullable=False)
    _rewrite_plans()
    op.add_column("drive_copy", sa.Column("blocks_staged", sa.Integer(), nullable=False, server_default="0"))
    op.drop_column("job", "incomplete_blob_list_uri")
