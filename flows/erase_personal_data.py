"""erase-personal-data: a person is forgotten before the job's 90 days are over."""

from contextlib import suppress
from typing import Final
from uuid import UUID

from flows.delete_portal_settings import delete_settings_and_exports
from flows.promises import AnyJobReference, AnyUserReference, Ended, done, promise, run_id
from models.errors import PortalSettingsNotFoundError, RequestError
from models.lifecycle import Outcome
from models.portal import SettingsPart
from models.receipts import Reason
from models.settings import Settings
from tasks.erasure import PersonErased, erase_job, erase_jobs_of_user
from tasks.intake import finish_taken_requests
from tasks.jobs import open_job

_JOBS_PER_TASK: Final = 1_000
_TASKS_MAX: Final = 1_000
_FILES_MAX: Final = 10_000

_TOLD: Final = {
    Outcome.DONE: "the personal data of job {0} is erased; what is left of it is deleted at its end",
    Outcome.WISHED: "the personal data of job {0} is erased as soon as its drives are back",
    Outcome.NOTHING_TO_DO: "nothing to do: the personal data of job {0} was erased, or is to be, already",
}


@promise(
    "erase-personal-data",
    """Erases the personal data of one job, or everything of one user, before the 90 days are over.

- **When:** somebody asks to be forgotten.
- **Takes:** either a job or a user.
- **Ends** *Completed*. A job at its end is erased at once, and its skeleton stays; one on its way as soon as its
  drives are back, because they go back to the address. Of a user, jobs not sent yet are deleted, the others
  erased, and all portal settings deleted.
- **Never** touches data in the customer's storage account. It cannot be undone.""",
)
def erase_personal_data(
    job: AnyJobReference = "",
    user: AnyUserReference = "",
    at_once: bool = False,  # noqa: FBT001, FBT002  a checkbox in the form
) -> Ended:
    """Erase personal data.

    Cut short anywhere, it may be run again from the top.

    Args:
        job: The job: its id, or subscription/resourceGroup/name. Either a job or a user.
        user: The user: the id that their directory gave, such as the object id in Entra, never a name. It is taken
            out of the run when that ends.
        at_once: Refuse a job whose drives have still to go back, rather than wait for that.
    """
    settings = Settings()
    if bool(job) == bool(user):
        raise RequestError([("job", "give either a job or a user, not both")])
    # A request file whose job is made already holds the same data.
    finish_taken_requests(settings.intake, settings.locations_file, _FILES_MAX)
    if user:
        return _erase_user(UUID(user))
    job_id = open_job(job, run_id())
    return done(_TOLD[erase_job(job_id, at_once=at_once)].format(job_id))


def _erase_user(user_id: UUID) -> Ended:
    told = PersonErased()
    for _ in range(_TASKS_MAX):
        batch = erase_jobs_of_user(user_id, _JOBS_PER_TASK)
        told.merge(batch)
        if not batch.found:
            break
    with suppress(PortalSettingsNotFoundError):
        delete_settings_and_exports(user_id, SettingsPart.EVERYTHING, Reason.WISH)
    return done(
        f"{told.deleted} jobs deleted, {told.erased} erased, {told.wished} to be erased once their drives are "
        "back; no portal settings are left"
    )
