"""What Prefect shows of a copy while it runs: one progress artifact for a job and a flow run."""

from contextlib import suppress
from contextvars import copy_context
from threading import Event, Thread
from time import monotonic, sleep
from typing import Final, Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from models.database import reading
from models.job_facts import DriveFacts, percent_of_all
from models.lifecycle import DriveState
from models.progress import read_progress
from tasks.artifacts import fill, make_empty

_EVERY_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 0.2
_LAST_SECONDS_MAX: Final = 2.0


class Progress:
    """Shows how far the copy of a job has come, as a progress artifact of the flow run that copies it.

    It costs the copy nothing: a thread of its own does all that Prefect has to answer, at most every two seconds,
    with the newest figures alone, and a Prefect that is away or refuses goes unnoticed. A second one for the same
    job and run goes on with the first one's artifact. Outside of a flow run it does nothing. The artifact names
    the job's opaque id, drive numbers and bytes, and goes with the run when its job is deleted.

    Args:
        job_id: the job.

    Raises:
        JobNotFoundError: there is no such job.
    """

    def __init__(self, job_id: UUID) -> None:
        self._job_id = job_id
        self._key = f"copy-{job_id.hex}"
        self._flow_run_id = UUID(flow_run.id) if flow_run.id else None
        self._drives: dict[int, DriveFacts] = {}
        if self._flow_run_id is not None:
            with reading() as session:
                self._drives.update(read_progress(session, job_id).drives)
        self._thread: Thread | None = None
        self._over = Event()

    def __enter__(self) -> Self:
        """Show it while a block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Show the last figures with the block's end, however it ends."""
        self.close()

    def tell(self, bytes_done: int, bytes_total: int, drive_number: int) -> None:
        """Say how far one drive has come; returns at once, and may be called as often as is convenient.

        Args:
            bytes_done: bytes of this drive that are copied.
            bytes_total: bytes that are to be copied from or to this drive.
            drive_number: the drive's number in its job.
        """
        if self._flow_run_id is None:
            return
        told = DriveFacts(self._job_id, DriveState.TRANSFERRING, bytes_total, bytes_done)
        # A new dictionary, because the thread may be reading this one.
        self._drives = {**self._drives, drive_number: told}
        if self._thread is None:
            # The settings that name the server are kept in the context.
            self._thread = Thread(
                target=copy_context().run, args=(self._show, self._flow_run_id), name="progress", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Show the last figures; waits two seconds for it at most."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS_MAX)

    # -- the thread --------------------------------------------------------------------------------------

    def _show(self, flow_run_id: UUID) -> None:
        # Whatever befalls Prefect, its client or its settings is no reason for a copy to fail.
        with (
            suppress(Exception),
            # Figures that cannot be shown at once are old when they can: there are newer ones.
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": _LAST_SECONDS_MAX}, sync_client=True) as client,
        ):
            self._show_by(client, flow_run_id)

    def _show_by(self, client: SyncPrefectClient, flow_run_id: UUID) -> None:
        artifact_id: UUID | None = None
        shown: dict[int, DriveFacts] | None = None
        give_up: float | None = None
        while give_up is None or monotonic() < give_up:
            if give_up is None and self._over.is_set():
                give_up = monotonic() + _LAST_SECONDS_MAX
            newest = self._drives
            with suppress(Exception):
                if newest is not shown:
                    artifact_id = self._write(client, flow_run_id, artifact_id, newest)
                    shown = newest
            if give_up is None:
                self._over.wait(_EVERY_SECONDS)
            elif shown is newest:
                return
            else:
                sleep(_AGAIN_SECONDS)

    def _write(
        self, client: SyncPrefectClient, flow_run_id: UUID, artifact_id: UUID | None, drives: dict[int, DriveFacts]
    ) -> UUID:
        """Write the artifact, and tell its id."""
        artifact_id = (
            artifact_id
            or self._find(client, flow_run_id)
            or make_empty(client, flow_run_id, self._key, "progress")
        )
        fill(client, artifact_id, float(percent_of_all(drives.values()) or 0), _described(self._job_id, drives))
        return artifact_id

    def _find(self, client: SyncPrefectClient, flow_run_id: UUID) -> UUID | None:
        """Find what an earlier drive of this run, or an earlier try, has made."""
        of_run = ArtifactFilter(
            key=ArtifactFilterKey(any_=[self._key]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
        )
        made = client.read_artifacts(artifact_filter=of_run, limit=1)
        return made[0].id if made else None


def _described(job_id: UUID, drives: dict[int, DriveFacts]) -> str:
    begun = {number: drive for number, drive in drives.items() if drive.bytes_total is not None}
    told = ", ".join(
        f"drive {number}: {drive.bytes_succeeded:,} of {drive.bytes_total:,} bytes"
        for number, drive in sorted(begun.items())
    )
    return f"Job {job_id}: {told}"
