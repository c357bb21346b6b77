"""The tables: how they come to be those of this version, and that they are."""

import sqlite3
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from models.database import engine, open_engine, outside_of_transactions
from models.errors import DatabaseError
from models.key_files import open_sealed, ring, use_ring
from models.sealing_keys import claim_key_file, first_key, make_keys, require_keys
from models.settings import Settings


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("models") / "migrations"))
    config.attributes["url"] = url
    # What a migration needs of living code, by the names of this moment; with the keys as they are now.
    use_ring(None)
    config.attributes["seal"] = lambda place, text: ring().seal(place, text)
    config.attributes["open"] = open_sealed
    config.attributes["first key"] = first_key
    return config


def upgrade(url: str) -> str:
    """Bring the tables to what this version needs, and make the first sealing key where there is none.

    Safe to repeat, and by several at once.

    Returns:
        The revision that the tables are at.

    Raises:
        SealingKeyError: a key that the database is sealed with is missing or wrong; nothing is changed.
        DatabaseError: the database does not answer, or was written by a newer version.
    """
    config = _alembic(url)
    head = str(ScriptDirectory.from_config(config).get_current_head())
    opened = open_engine(url, Settings().database_wait_seconds_max)
    try:
        with opened.connect() as connection:
            require_keys(connection)
        make_keys()
        command.upgrade(config, "head")
        with opened.connect() as connection:
            require_keys(connection)
            claim_key_file(connection)
        _leave_nothing_behind(opened)
    except DBAPIError as error:
        raise DatabaseError(f"the database cannot be opened: {type(error.orig).__name__}") from None
    except sqlite3.OperationalError:
        raise DatabaseError("the database is in use and cannot be written anew; repeat this later") from None
    except CommandError:
        raise DatabaseError(
            "the database was written by a newer Drivepost; install that version, or restore a backup"
        ) from None
    finally:
        opened.dispose()
    return head


def require_current_tables() -> None:
    """Refuse to work on tables of another version, or without the keys that they are sealed with.

    Raises:
        DatabaseError: the tables are missing or older; the text says how to bring them up to date.
        SealingKeyError: a key is missing or wrong.
    """
    head = ScriptDirectory.from_config(_alembic(Settings().database)).get_current_head()
    try:
        with engine().connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            if found == head:
                require_keys(connection)
    except DBAPIError as error:
        raise DatabaseError(f"the database cannot be opened: {type(error.orig).__name__}") from None
    if found != head:
        raise DatabaseError("the tables are not those of this version; run 'drivepost database upgrade'")


def _leave_nothing_behind(opened: Engine) -> None:
    """On SQLite, write the file anew, once: no plain text of before is in it, and free pages can be given back.

    A file that gives pages back was written anew before; it is the last thing that an upgrade does.
    """
    if opened.dialect.name == "sqlite" and not outside_of_transactions(opened, "PRAGMA auto_vacuum"):
        outside_of_transactions(
            opened, "PRAGMA auto_vacuum = INCREMENTAL", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"
        )
