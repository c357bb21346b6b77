"""Alembic's entry: which database, and against which tables."""

import sqlite3
from typing import Literal

from alembic import context
from sqlalchemy import Connection, event, text
from sqlmodel import AutoString, SQLModel

import models.alerts  # importing a module of tables makes its tables known
import models.clocks
import models.copies
import models.portal
import models.receipts
import models.runs
import models.sealing_keys
import models.updates  # noqa: F401  as above
from models.columns import Sealed, UtcDateTime
from models.database import open_engine
from models.settings import Settings

_UPGRADE_LOCK = 7_467_637  # any number that no other user of the database takes


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write column types of ours as what they are in the database, so that a migration needs no living code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Sealed):
        return "sa.LargeBinary()"
    if kind == "type" and isinstance(item, AutoString):
        return "sa.String()"
    return False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        # We say BEGIN to SQLite ourselves, so its DDL is undone with the rest.
        transactional_ddl=True,
        render_item=_render,
        # SQLite alters a table by writing it anew.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Several that start at once upgrade one after the other.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
        context.run_migrations()


_settings = Settings()
_engine = open_engine(
    context.config.attributes.get("url", _settings.database), _settings.database_wait_seconds_max
)
if _engine.dialect.name == "sqlite":

    @event.listens_for(_engine, "connect")
    def _let_tables_go(connection: sqlite3.Connection, _record: object) -> None:
        # A table that is written anew is dropped on the way, and would take the rows that point to it along.
        connection.execute("PRAGMA foreign_keys = OFF")


with _engine.execution_options(writes=True).connect() as _connection:
    _run(_connection)
_engine.dispose()
