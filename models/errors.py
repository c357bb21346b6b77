"""Every error of ours, with its stable code.

    DrivepostError
    ├── JobError                       about one job
    │   ├── JobNotFoundError           ResourceNotFound
    │   ├── JobStateConflictError      JobStateConflict       the job's state forbids the operation
    │   │   └── MoveNotAllowedError    JobStateConflict       … forbids the move
    │   │       └── DriveMoveNotAllowedError  JobStateConflict   … of a drive
    │   ├── CancelAcceptedError        CancelAccepted         a cancel was accepted before, and stands
    │   ├── JobChangedError            JobChanged             someone else was first
    │   ├── PropertyNotUpdatableError  PropertyNotUpdatable   the state forbids changing these properties
    │   ├── NotReadyToShipError        NotReadyToShip         return address or delivery package is missing
    │   ├── NotYetClosableError        NotYetClosable         the customer still has days to answer
    │   ├── JobHeldError               JobHeld                a legal hold keeps it
    │   ├── WrongJobTypeError          WrongJobType           an Import job is exported, or the other way round
    │   ├── AddressNeededError         AddressNeeded          drives still go back to the address
    │   ├── PersonalDataErasedError    PersonalDataErased     the job knows nobody any more
    │   ├── CopyHeldElsewhereError     CopyHeldElsewhere      another run holds the copy's lease
    │   ├── CopyStillRunningError      CopyStillRunning       the copy did not stop in time
    │   └── LeaseLostError             CopyLeaseLost          this run no longer holds the copy's lease
    ├── LocationNotFoundError          ResourceNotFound       no location goes by that name
    ├── PortalSettingsNotFoundError    PortalSettingsNotFound  nothing is kept for this user
    ├── DashboardNotFoundError         DashboardNotFound      no dashboard goes by that id
    ├── ExportError                    ExportFolderUnusable   an export cannot be written
    ├── ActorNotAllowedError           ActorNotAllowed        this operation is not theirs
    ├── RequestError                   InvalidRequestContent  every fault of a request at once
    ├── IntakeError                    IntakeFileInvalid      a file of the intake folder cannot be taken
    ├── BayError                       BayUnusable            the bay cannot be read, or holds nothing
    ├── DriveError                     DriveUnreadable        one drive cannot be copied; has its log status
    │   └── ManifestError              ManifestInvalid
    ├── CopyLogError                   CopyLogInvalid         a copy log cannot be read
    ├── StoreError                     StoreFailed            the store of a storage account refused
    ├── DatabaseError                  DatabaseUnusable       the database cannot be used as it is
    ├── JobsNotDeletedError            JobsNotDeleted         the database refuses to delete jobs that are due
    ├── ClockJumpedError               ClockJumped            the clock is not where it should be
    ├── SealingKeyError                SealingKeyInvalid      a sealing key is missing or wrong
    ├── TraceWordsError                TraceWordsInvalid      the words cannot be looked for
    ├── TracesFoundError               TracesFound            what should be gone is still there
    ├── SealedValueError               SealedValueInvalid     a sealed value was altered or moved
    ├── UnexpectedError                InternalError          a fault of ours; told without its data
    ├── SettingsError                  SettingsInvalid        a setting has an impossible value
    ├── PrefectAwayError               PrefectAway            Prefect's server does not answer
    └── AccessError                    AuthorizationFailed    the caller may not do that there
        ├── TokenError                 InvalidAuthenticationToken  no token, or none that counts
        ├── IssuerAwayError            TokenIssuerAway        whose keys are needed to look at a token
        ├── TooManyRequestsError       TooManyRequests        more than one caller may make in a minute
        ├── ApiVersionMissingError     MissingApiVersionParameter  a request names no api-version
        ├── ApiVersionUnknownError     NoRegisteredProviderFound   … or one that is not known
        └── NoSuchPathError            PathNotFound           the API has no such path or method

An error knows ids, states and codes, never a person's data, and nothing of HTTP: doors map `code`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar, Final
from uuid import UUID

FAULTS_MAX: Final = 100
"""Faults of one request that are told."""


class DrivepostError(Exception):
    """Whatever Drivepost refuses or fails at; `code` is stable, the text is for people."""

    code: ClassVar[str] = "InternalError"

    @property
    def line(self) -> str:
        """Code and text in one line, as a run's state message gives them."""
        return f"{self.code}: {self}"


class JobError(DrivepostError):
    """An error about one job."""


class JobNotFoundError(JobError):
    """No job goes by that id or name, or none does any more."""

    code = "ResourceNotFound"

    def __init__(self) -> None:
        super().__init__("there is no such job; it may have been deleted, or its id or name is misspelt")


class JobStateConflictError(JobError):
    """The job's state forbids the operation; the text says what would have worked."""

    code = "JobStateConflict"

    def __init__(self, operation: str, state: str, way_out: str) -> None:
        super().__init__(f"a {state} job cannot take '{operation}'; {way_out}")


class MoveNotAllowedError(JobStateConflictError):
    """The job's state forbids the move."""

    def __init__(self, source: str, target: str, allowed: Iterable[str]) -> None:
        can = ", ".join(sorted(allowed)) or "nothing: it is at its end"
        JobError.__init__(self, f"a {source} job cannot become {target}; it can become {can}")


class CancelAcceptedError(JobError):
    """A cancel was accepted for the job; it cannot be withdrawn, and only leads to Completed."""

    code = "CancelAccepted"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"a cancel was accepted for this job, so '{operation}' is over; it will become Completed, "
            "and its name is free once it is deleted"
        )


class DriveMoveNotAllowedError(MoveNotAllowedError):
    """The drive's state forbids the move."""

    def __init__(self, source: str, target: str, allowed: Iterable[str]) -> None:
        can = ", ".join(sorted(allowed)) or "nothing: it is at its end"
        JobError.__init__(self, f"a {source} drive cannot become {target}; it can become {can}")


class JobChangedError(JobError):
    """Somebody else changed the job between our read and our write."""

    code = "JobChanged"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} was changed by someone else meanwhile; read it again and repeat")


class PropertyNotUpdatableError(JobError):
    """The job's state forbids changing these properties."""

    code = "PropertyNotUpdatable"

    def __init__(self, state: str, properties: Sequence[str], updatable: Iterable[str]) -> None:
        self.properties = tuple(properties)
        can = ", ".join(sorted(updatable))
        super().__init__(f"{', '.join(properties)} cannot be changed in a {state} job; what can be is {can}")


class NotReadyToShipError(JobError):
    """A job ships only when we know where the drives go back and by which package they come."""

    code = "NotReadyToShip"

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"the job cannot be marked as shipped without {' and '.join(missing)}; "
            "give them in the same request or before"
        )


class NotYetClosableError(JobError):
    """An operator closes a job only after the customer had time to answer."""

    code = "NotYetClosable"

    def __init__(self, closable_at: datetime) -> None:
        super().__init__(
            f"a Shipping job can be closed without an answer from {closable_at:%Y-%m-%d %H:%M} UTC on; "
            "until then it can be checked in or cancelled"
        )


class JobHeldError(JobError):
    """A legal hold keeps the job from being deleted, replaced or overwritten."""

    code = "JobHeld"

    def __init__(self) -> None:
        super().__init__("the job is under legal hold; an operator can release it with release-hold")


class WrongJobTypeError(JobError):
    """An Import job's drives are read, an Export job's are written to, each by a flow of its own."""

    code = "WrongJobType"

    def __init__(self, job_type: str) -> None:
        """Take the type that the job has, "Import" or "Export"."""
        flow = "import-drives" if job_type == "Import" else "export-blobs"
        super().__init__(f"this is an {job_type} job, whose drives {flow} copies")


class AddressNeededError(JobError):
    """The personal data of the job cannot be erased at once: drives still go back to the address."""

    code = "AddressNeeded"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the personal data cannot be erased at once: {reason}; ask without 'at once', and it is "
            "erased as soon as the drives are back"
        )


class PersonalDataErasedError(JobError):
    """The job's personal data was erased, and nothing personal is written to it any more."""

    code = "PersonalDataErased"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"the job's personal data was erased, so that '{operation}' is over: it would write down new; a drive "
            "that came after all has to be asked for anew by a new job"
        )


class CopyHeldElsewhereError(JobError):
    """Another run holds the lease on the job's copy."""

    code = "CopyHeldElsewhere"

    def __init__(self, job_id: UUID, until: datetime) -> None:
        super().__init__(f"another run is copying job {job_id}; its lease runs until {until:%H:%M:%S} UTC")


class CopyStillRunningError(JobError):
    """The copy was asked to stop and did not in the time it is given."""

    code = "CopyStillRunning"

    def __init__(self, job_id: UUID, seconds: float) -> None:
        super().__init__(
            f"the copy of job {job_id} did not stop within {seconds:g} s; advance-jobs carries the cancel "
            "out as soon as its lease has run out"
        )


class LeaseLostError(JobError):
    """This run no longer holds the copy's lease, so it may not write any more."""

    code = "CopyLeaseLost"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"the lease on the copy of job {job_id} was lost to another run; this one stops")


class LocationNotFoundError(DrivepostError):
    """No location goes by that name."""

    code = "ResourceNotFound"

    def __init__(self) -> None:
        super().__init__("there is no such location; list the locations to see those there are")


class PortalSettingsNotFoundError(DrivepostError):
    """Nothing is kept in portal settings for this user, or nothing any more."""

    code = "PortalSettingsNotFound"

    def __init__(self) -> None:
        super().__init__(
            "there are no portal settings of this user; they may have been deleted, or the user's id is misspelt"
        )


class DashboardNotFoundError(DrivepostError):
    """No dashboard goes by that id, or none does any more."""

    code = "DashboardNotFound"

    def __init__(self) -> None:
        super().__init__("there is no such dashboard; it may have been deleted, or its id is misspelt")


class ExportError(DrivepostError):
    """The folder for exports cannot be written."""

    code = "ExportFolderUnusable"


class ActorNotAllowedError(DrivepostError):
    """The operation is not theirs to ask for."""

    code = "ActorNotAllowed"

    def __init__(self, operation: str, actor: str, allowed: Iterable[str]) -> None:
        super().__init__(f"'{operation}' is not for the {actor}; it is for the {' or '.join(sorted(allowed))}")


class RequestError(DrivepostError):
    """A request is wrong; its faults, at most 100, are named by their places, never by their values."""

    code = "InvalidRequestContent"

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        """Take the faults, each a target (`properties.driveList[3].driveId`) and a text."""
        self.faults = tuple(faults[:FAULTS_MAX])
        told = [f"{target}: {text}" if target else text for target, text in self.faults]
        more = [f"and {len(faults) - FAULTS_MAX:,} more"] if len(faults) > FAULTS_MAX else []
        super().__init__("; ".join([*told, *more]))


class IntakeError(DrivepostError):
    """A file of the intake folder cannot be taken; it stays where it is."""

    code = "IntakeFileInvalid"


class BayError(DrivepostError):
    """The bay cannot be read, or holds nothing that could be checked in."""

    code = "BayUnusable"


class DriveError(DrivepostError):
    """One drive cannot be copied; the other drives of its job can."""

    code = "DriveUnreadable"

    def __init__(self, status: str, text: str) -> None:
        """Take the drive's status as the copy log names it, such as `ManifestNotFound`."""
        self.status = status
        super().__init__(text)


class ManifestError(DriveError):
    """The drive's manifest is missing, changed or broken."""

    code = "ManifestInvalid"


class CopyLogError(DrivepostError):
    """A copy log is broken, or no copy log at all."""

    code = "CopyLogInvalid"


class StoreError(DrivepostError):
    """The store of a storage account refused or failed."""

    code = "StoreFailed"


class DatabaseError(DrivepostError):
    """The database cannot be used as it is."""

    code = "DatabaseUnusable"


class JobsNotDeletedError(DrivepostError):
    """The database refuses to delete jobs whose time is over.

    Attributes:
        job_ids: the jobs of the transaction that was refused; which of them it was is not known.
        reason: what the database's driver calls it, such as `RestrictViolation`.
    """

    code = "JobsNotDeleted"

    def __init__(self, job_ids: Sequence[UUID], reason: str) -> None:
        self.job_ids = job_ids
        self.reason = reason
        super().__init__(f"the database refuses to delete one of {len(job_ids):,} jobs: {reason}")


class ClockJumpedError(DrivepostError):
    """The database's clock is far ahead of when it was last looked at, or behind; nothing is deleted by it."""

    code = "ClockJumped"

    def __init__(self, seen_at: datetime, now: datetime) -> None:
        self.seen_at = seen_at
        told = f"the database's clock shows {now:%Y-%m-%d %H:%M:%S} UTC"
        last = f"it showed {seen_at:%Y-%m-%d %H:%M:%S} UTC when it was last looked at"
        why = "was wrong before" if now < seen_at else "the service was only away"
        super().__init__(
            f"{told}, but {last}; nothing is deleted: set it right, or, if it is right and {why}, run "
            "enforce-retention once with clock_is_right"
        )


class SealingKeyError(DrivepostError):
    """A key that personal data is sealed with is missing, wrong, or not kept as it must be."""

    code = "SealingKeyInvalid"


class TraceWordsError(DrivepostError):
    """Words cannot be looked for: too short, too many, or no text; the text names them by their place."""

    code = "TraceWordsInvalid"


class TracesFoundError(DrivepostError):
    """What should be gone is still there."""

    code = "TracesFound"

    def __init__(self, traces: int, words: int, first: str) -> None:
        super().__init__(
            f"{traces:,} traces of {words:,} words, the first in {first}; remove what holds them, and report it "
            "as a fault of Drivepost's if that was ours"
        )


class SealedValueError(DrivepostError):
    """A sealed value does not open: it was altered, or moved from another place."""

    code = "SealedValueInvalid"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"a value in {place} does not open with its key: it was altered or moved there; "
            "restore the row from a backup"
        )


class UnexpectedError(DrivepostError):
    """A fault of ours, told by its type and place alone: the text of a foreign error may hold a person's data."""

    def __init__(self, kind: str, place: str) -> None:
        super().__init__(f"{kind} at {place}; this is a fault of Drivepost's, please report it")


class SettingsError(DrivepostError):
    """A setting has an impossible value; the text names each by its environment variable."""

    code = "SettingsInvalid"


class PrefectAwayError(DrivepostError):
    """Prefect's server does not answer."""

    code = "PrefectAway"


class AccessError(DrivepostError):
    """The caller may not do that there; nothing tells what is there, if anything."""

    code = "AuthorizationFailed"

    def __init__(self, needed: str) -> None:
        super().__init__(f"the token does not allow this; it needs {needed}")


class TokenError(AccessError):
    """There is no token, or none that counts."""

    code = "InvalidAuthenticationToken"

    def __init__(self, fault: str) -> None:
        DrivepostError.__init__(self, f"{fault}; send 'Authorization: Bearer TOKEN'")


class IssuerAwayError(AccessError):
    """The issuer's keys cannot be had, and without them no token can be looked at."""

    code = "TokenIssuerAway"

    def __init__(self) -> None:
        DrivepostError.__init__(self, "the keys of the tokens' issuer cannot be read at present; try again later")


class TooManyRequestsError(AccessError):
    """One caller made more requests than are allowed."""

    code = "TooManyRequests"

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        DrivepostError.__init__(self, f"too many requests of this caller; try again in {seconds} s")


class ApiVersionMissingError(AccessError):
    """A request names no api-version."""

    code = "MissingApiVersionParameter"

    def __init__(self, known: Iterable[str]) -> None:
        DrivepostError.__init__(self, f"the query needs api-version; there are {', '.join(known)}")


class ApiVersionUnknownError(AccessError):
    """A request names an api-version that is not known."""

    code = "NoRegisteredProviderFound"

    def __init__(self, known: Iterable[str]) -> None:
        DrivepostError.__init__(self, f"that api-version is not known; there are {', '.join(known)}")


class NoSuchPathError(AccessError):
    """The API has no such path, or not with this method."""

    code = "PathNotFound"

    def __init__(self, methods: str = "") -> None:
        way_out = f"it takes {methods}" if methods else "/docs tells what there is"
        DrivepostError.__init__(self, f"there is nothing here for this path and method; {way_out}")
