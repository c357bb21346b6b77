"""Acts of erasure: personal data out of a job that stays, and everything of one person."""

from dataclasses import dataclass
from uuid import UUID

from models.database import database_time, reading, return_free_pages, writing
from models.erasure import (
    carry_out_wish,
    due_erasures,
    erase_job_of_person,
    jobs_to_erase,
    wish_erasure,
)
from models.errors import JobError
from models.jobs import read_job
from models.lifecycle import Actor, Outcome
from tasks.acts import act


@act
def erase_job(job_id: UUID, *, at_once: bool) -> Outcome:
    """Erase the personal data of a job, or write down the wish; what comes of it, as `wish_erasure` says.

    Raises:
        JobStateConflictError: the job is Creating, and can be deleted whole.
        AddressNeededError: `at_once`, and drives still go back to the address.
    """
    with writing() as session:
        outcome = wish_erasure(session, job_id, at=database_time(session), by=Actor.OPERATOR, at_once=at_once)
    if outcome is Outcome.DONE:
        return_free_pages()
    return outcome


@act
def carry_out_erasures(rows_max: int) -> int:
    """Carry out wishes whose drives are back; tells how many. One job's failure does not stop the others."""
    with reading() as session:
        due = due_erasures(session, database_time(session), rows_max)
    erased = 0
    for job_id in due:
        try:
            with writing() as session:
                job = read_job(session, job_id, lock=True)
                erased += carry_out_wish(session, job, at=database_time(session))
        except JobError:
            continue  # deleted meanwhile
    return erased


@dataclass(slots=True)
class PersonErased:
    """What became of a person's jobs: deleted whole, erased, or to be erased once their drives are back."""

    found: int = 0
    deleted: int = 0
    erased: int = 0
    wished: int = 0

    def merge(self, other: "PersonErased") -> None:
        """Count what became of other jobs too."""
        self.found += other.found
        self.deleted += other.deleted
        self.erased += other.erased
        self.wished += other.wished


@act
def erase_jobs_of_user(user_id: UUID, rows_max: int) -> PersonErased:
    """Erase a user's jobs, at most `rows_max`: those not sent yet are deleted, the others erased, or wished so.

    Safe to repeat: a job that was erased is nobody's, and one whose wish is written down is passed over.

    Returns:
        What became of them; none found means that none are left.
    """
    with reading() as session:
        found = jobs_to_erase(session, user_id, rows_max)
    told = PersonErased(found=len(found))
    for job_id, state in found:
        try:
            with writing() as session:
                now = database_time(session)
                outcome = erase_job_of_person(session, job_id, state, at=now, by=Actor.OPERATOR)
        except JobError:
            continue  # it went on, or was deleted, meanwhile; what is left is found again
        told.deleted += outcome is None
        told.erased += outcome is Outcome.DONE
        told.wished += outcome is Outcome.WISHED
    return_free_pages()
    return told
