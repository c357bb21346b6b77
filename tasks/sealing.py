"""Acts of rotation: a new key, everything living sealed anew, the old key destroyed."""

from datetime import timedelta

from models.database import database_time, reading, return_free_pages, writing
from models.rotation import (
    Key,
    Resealed,
    Turned,
    destroy_older_keys,
    forget_older_keys,
    reseal_rows,
    rotation_under_way,
    sealed_tables,
    turn_key,
)
from tasks.acts import act


@act
def turn_to_new_key() -> Turned:
    """Let a new key seal from now on, unless a rotation is under way: then that one goes on.

    Raises:
        SealingKeyError: the key file cannot be read or written.
    """
    with writing(alone=True) as session:
        return turn_key(session, database_time(session))


@act
def find_dropped_rotation(idle: timedelta) -> Turned | None:
    """Find a rotation whose run was lost: one that began longer ago than `idle` and is not over."""
    with reading() as session:
        turned, since = rotation_under_way(session)
        return turned if turned.older and since <= database_time(session) - idle else None


@act
def tables_to_reseal() -> list[str]:
    """Name the tables that hold sealed values."""
    return list(sealed_tables())


@act
def reseal_part(table: str, after: Key | None, batch_rows: int, rows_max: int) -> Resealed:
    """Seal rows of one table anew, at most `rows_max`, `batch_rows` in one transaction; goes on after a row.

    Safe to repeat, and while jobs go on: what the newest key sealed is passed over.

    Returns:
        How many rows, and the last one's key; no key where the table is at its end.
    """
    rows = 0
    while rows < rows_max:
        with writing() as session:
            batch = reseal_rows(session, table, after, min(batch_rows, rows_max - rows))
        rows += batch.rows
        after = batch.last
        if after is None:
            break
    return Resealed(rows, after)


@act
def retire_older_keys() -> bool:
    """Let the database know the newest key alone; False while something is sealed with an older one.

    False as well while somebody on SQLite reads a state of before the resealing.
    """
    if not return_free_pages():
        return False
    with writing(alone=True) as session:
        return forget_older_keys(session)


@act
def destroy_retired_keys() -> bool:
    """Overwrite and remove keys that the database does not know any more; False where a setting gives them.

    Raises:
        SealingKeyError: the key file cannot be written.
    """
    with reading() as session:
        turned, _ = rotation_under_way(session)
    return destroy_older_keys(min((*turned.older, turned.newest)))
