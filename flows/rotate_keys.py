"""rotate-keys: what was deleted can be read by nobody any more, in no backup."""

from time import sleep
from typing import Final

from flows.promises import Ended, done, failed, promise
from models.rotation import Turned
from models.settings import Settings
from tasks.sealing import (
    destroy_retired_keys,
    reseal_part,
    retire_older_keys,
    tables_to_reseal,
    turn_to_new_key,
)

_ROWS_PER_TASK: Final = 20_000
_TASKS_MAX: Final = 10_000
_PASSES_MAX: Final = 10
_PAUSE_SECONDS: Final = 1.0


@promise(
    "rotate-keys",
    """Makes a new sealing key, seals everything living anew, and destroys the old key.

- **When:** every week by itself; by hand after a deletion that may not wait.
- **Ends** *Completed* with the rows that were sealed anew: what was deleted before can be read by nobody any
  more, in no backup of the database. Take a new backup of database and key afterwards.
- **Never** stops the service: jobs go on meanwhile. Cut short, it goes on where it was.""",
)
def rotate_keys() -> Ended:
    """Rotate the sealing keys."""
    turned = turn_to_new_key()
    if not turned.older:
        destroy_retired_keys()
        return done(
            f"nothing to do: DRIVEPOST_SEALING_KEYS has no key newer than {turned.newest}; put one there on every "
            "machine, with a higher number, and run this again"
        )
    return finish_rotation(turned, Settings().resealing_batch_rows)


def finish_rotation(turned: Turned, batch_rows: int) -> Ended:
    """Seal anew until nothing is sealed with an older key, then destroy the older keys.

    Args:
        turned: the keys of a rotation that is under way.
        batch_rows: rows sealed anew in one transaction.
    """
    rows = 0
    for number in range(_PASSES_MAX):
        # Who holds rows, or reads a state of before, is mostly done soon.
        sleep(_PAUSE_SECONDS if number else 0)
        rows += sum(_reseal_table(table, batch_rows) for table in tables_to_reseal())
        if retire_older_keys():
            break
    else:
        return failed(
            f"{rows:,} rows were sealed anew with key {turned.newest}, and some are always held by somebody; "
            "advance-jobs goes on"
        )
    told = f"{rows:,} rows are sealed anew with key {turned.newest}"
    older = ", ".join(map(str, turned.older))
    if destroy_retired_keys():
        return done(f"{told}; key {older} is destroyed; back up both anew")
    return done(f"{told}; nothing needs key {older} any more: take it out of DRIVEPOST_SEALING_KEYS everywhere")


def _reseal_table(table: str, batch_rows: int) -> int:
    rows, after = 0, None
    for _ in range(_TASKS_MAX):
        part = reseal_part(table, after, batch_rows, _ROWS_PER_TASK)
        rows += part.rows
        after = part.last
        if after is None:
            break
    return rows
