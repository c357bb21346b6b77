"""The database: how a session is opened, and what time it is there."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from models.errors import DatabaseError
from models.sealing_keys import exclude_writers, follow
from models.settings import Settings

_PAGES_RETURNED_MAX: Final = 100_000
_CACHE_KIB: Final = 8_192
_WRITTEN_ANEW_BYTES_MAX: Final = 64 * 2**20
_CUT_SECONDS_MAX: Final = 1.0
_CUT_PAUSE_SECONDS: Final = 0.005
_CONNECT_SECONDS_MAX: Final = 10
_LOOK_SECONDS: Final = 0.001
_NAME_MAX: Final = 40
"""Of a connection's name; PostgreSQL cuts it after 63 bytes."""
_LAST_ACT_OF_OTHERS: Final = text("""
    SELECT CAST(extract(epoch FROM max(state_change)) * 1000000 AS bigint) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name <> current_setting('application_name')
    AND backend_type = 'client backend'
""")


@cache
def engine() -> Engine:
    """Open the database that the settings name; once per process."""
    settings = Settings()
    return open_engine(settings.database, settings.database_wait_seconds_max)


def open_engine(url: str, wait_seconds_max: float) -> Engine:
    """Open a database: SQLite with WAL, foreign keys and a busy timeout, or PostgreSQL.

    Args:
        url: SQLAlchemy's address of it.
        wait_seconds_max: how long a write waits for another's lock.
    """
    # hide_parameters: an error that printed them would carry personal data into a log.
    if make_url(url).get_backend_name() == "sqlite":
        database = make_url(url).database
        if database:
            try:
                Path(database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise DatabaseError(f"the database's folder cannot be made: {error.strerror}") from None
        # The same connection again and again: `acts_of_others` would take another one of ours for somebody else.
        opened = create_engine(
            url, hide_parameters=True, pool_use_lifo=True, connect_args={"timeout": wait_seconds_max}
        )
        event.listen(opened, "connect", _prepare_sqlite)
        event.listen(opened, "begin", partial(_begin_sqlite, wait_seconds_max))
        return opened
    given = str(make_url(url).query.get("application_name", "drivepost"))
    # `follow` reads after it waited; a snapshot from before would show it a key that was destroyed meanwhile.
    opened = create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        # By its name a connection of this process is known as such, by `acts_of_others` as well.
        connect_args={
            "connect_timeout": _CONNECT_SECONDS_MAX,
            "application_name": f"{given[:_NAME_MAX]}-{secrets.token_hex(4)}",
        },
    )
    milliseconds = int(wait_seconds_max * 1000)

    def _prepare_postgresql(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {milliseconds}")
        connection.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    event.listen(opened, "connect", _prepare_postgresql)
    event.listen(opened, "handle_error", _leave_rows_out)
    return opened


def _leave_rows_out(context: ExceptionContext) -> None:
    """Cut an error of PostgreSQL down to its first line: what follows ("DETAIL: Failing row …") holds values."""
    told = context.sqlalchemy_exception
    for error in (context.original_exception, told):
        if error is not None and error.args:
            error.args = (str(error.args[0]).partition("\n")[0], *error.args[1:])


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # We say BEGIN ourselves: the driver would say it too late, after the first read.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    # A sweep reads each page of a batch twice, then writes it; the 2 MiB that SQLite takes by itself are too few.
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _begin_sqlite(wait_seconds_max: float, connection: Connection) -> None:
    # A transaction that will write takes the lock at once: one that read first could not wait for it.
    if not connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    driver: Any = connection.connection.driver_connection
    until = time.monotonic() + wait_seconds_max
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    try:
        while (fault := _begin_to_write(driver)) == sqlite3.SQLITE_BUSY and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        if fault != sqlite3.SQLITE_OK:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # so that SQLAlchemy tells it
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(wait_seconds_max * 1000)}")


def _begin_to_write(driver: sqlite3.Connection) -> int:
    """Try once; gives SQLite's code of what is wrong. It would itself try ever more seldom."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return sqlite3.SQLITE_OK


@contextmanager
def reading(*, of_one_moment: bool = False) -> Iterator[Session]:
    """Open a session that reads and keeps no lock.

    On SQLite all its reads see one state; on PostgreSQL each statement sees what was committed before it, unless
    all are to be `of_one_moment`.
    """
    opened = engine()
    if of_one_moment and opened.dialect.name == "postgresql":
        opened = opened.execution_options(isolation_level="REPEATABLE READ")
    with Session(opened) as session:
        yield session


@contextmanager
def writing(*, alone: bool = False) -> Iterator[Session]:
    """Open one transaction: committed at the end, undone by any error. It seals with the key now in use.

    Args:
        alone: wait for every other transaction that writes, and let none begin; SQLite's are always alone.
    """
    with Session(engine().execution_options(writes=True), expire_on_commit=False) as session, session.begin():
        if alone:
            exclude_writers(session)
        follow(session)
        yield session


def database_time(session: Session) -> datetime:
    """Tell what time it is in the database, aware UTC."""
    dialect = session.get_bind().dialect.name
    if dialect == "sqlite":
        now = session.connection().scalar(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(now)).replace(tzinfo=UTC)
    moment = session.connection().scalar(text("SELECT clock_timestamp()"))
    if not isinstance(moment, datetime):
        raise DatabaseError("the database did not tell the time")
    return moment.astimezone(UTC)


def acts_of_others() -> int:
    """Tell a number that is another one when others were at work since this process last asked.

    On SQLite: when they committed. On PostgreSQL: when they began or ended a statement, on this database and with
    a login of ours; always the same where we may not see that.
    """
    with suppress(DBAPIError), reading() as session:
        if does_one_write_at_a_time():
            return int(session.connection().exec_driver_sql("PRAGMA data_version").scalar_one())
        return int(session.connection().scalar(_LAST_ACT_OF_OTHERS) or 0)
    return 0


def does_one_write_at_a_time() -> bool:
    """Tell whether who writes waits until nobody else does, as on SQLite."""
    return engine().dialect.name == "sqlite"


def outside_of_transactions(opened: Engine, *statements: str) -> int:
    """Say to SQLite what it takes outside of transactions alone; gives the number that the last one answers."""
    connection = opened.raw_connection()
    cursor = connection.cursor()
    try:
        wait = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        # As a script each is stepped to its end: the driver would free one page and leave the others.
        cursor.executescript("; ".join(statements[:-1]))
        return int(cursor.execute(statements[-1]).fetchone()[0])
    finally:
        cursor.executescript(f"PRAGMA busy_timeout = {wait}")
        connection.close()


def return_free_pages() -> bool:
    """After a deletion on SQLite: let the log ahead run into the database and be cut, and give back free pages.

    Pages that become free are overwritten with zeros (`secure_delete`). PostgreSQL does its own.

    Returns:
        Whether it is done; False when somebody was at work, so that it is to be tried again.
    """
    if engine().dialect.name != "sqlite":
        return True
    try:
        return _cut_log(f"PRAGMA incremental_vacuum({_PAGES_RETURNED_MAX})")
    except sqlite3.OperationalError:
        return False


def write_anew() -> bool:
    """As the last step of a deletion on SQLite: do as `return_free_pages` does, then write the file anew, whole.

    A row that SQLite moved before, within a page or to another one, left its old bytes there, in what is unused:
    `secure_delete` does not reach them. Who writes waits for half a second at most, so a file of over 64 MiB stays
    as it is. PostgreSQL does its own.

    Returns:
        Whether it is done; False when somebody was at work or there was no room, so that it is to be tried again.
    """
    if not return_free_pages():
        return False
    if engine().dialect.name != "sqlite":
        return True
    try:
        pages = outside_of_transactions(engine(), "PRAGMA page_count")
        if pages * outside_of_transactions(engine(), "PRAGMA page_size") > _WRITTEN_ANEW_BYTES_MAX:
            return True
        # In memory: of a temporary file nothing would be overwritten.
        is_cut = _cut_log("PRAGMA temp_store = MEMORY", "VACUUM", "PRAGMA temp_store = DEFAULT")
        until = time.monotonic() + _CUT_SECONDS_MAX
        # Who waited meanwhile is at work by now.
        while not is_cut and time.monotonic() < until:
            time.sleep(_CUT_PAUSE_SECONDS)
            is_cut = _cut_log()
    except sqlite3.OperationalError:
        return False
    return is_cut


def _cut_log(*after: str) -> bool:
    """Let SQLite's log ahead run into the database, after some statements; False while somebody is in it."""
    # While it waited for a reader, every writer would wait for it.
    return not outside_of_transactions(
        engine(), "PRAGMA busy_timeout = 0", *after, "PRAGMA wal_checkpoint(TRUNCATE)"
    )
