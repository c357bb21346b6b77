"""The act that closes deletion receipts: the last step of a deletion."""

from models.database import database_time, reading, write_anew, writing
from models.receipts import close_receipts, finished_receipts
from tasks.acts import act


@act
def close_finished_receipts(batch_rows: int, rows_max: int) -> int:
    """Close receipts of what is gone with every trace: rows, runs in Prefect, and bytes of the database's file.

    Safe to repeat: a receipt is closed once. One whose traces are not gone yet stays open for a later run.

    Returns:
        How many were closed, 0 to `rows_max`.
    """
    with reading() as session:
        finished = finished_receipts(session, rows_max)
    if not finished or not write_anew():
        return 0
    closed = 0
    for start in range(0, len(finished), batch_rows):
        with writing() as session:
            batch = finished[start : start + batch_rows]
            closed += close_receipts(session, batch, at=database_time(session))
    return closed
