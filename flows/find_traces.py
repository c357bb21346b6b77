"""find-traces: what should be gone is looked for, by code that knows nothing of the deleter."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from prefect.artifacts import create_table_artifact
from sqlalchemy.engine import make_url

from flows.promises import Ended, RequestFile, done, failed, promise, run_id
from models.errors import TracesFoundError
from models.settings import Settings
from tasks.canaries import CANARY_FILE, read_words, write_canary_request
from tasks.intake import create_jobs, remove_request_file
from tasks.jobs import accept_cancel, complete_cancelled_job, delete_rows_of_job
from tasks.trace_places import Places, search_places
from tasks.traces import Report

_TOLD_MAX: Final = 100
_PREFECT_DATABASES: Final = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)


@promise(
    "find-traces",
    "Looks for what should be gone in every byte of every store: database, Prefect's database and files, logs, "
    "intake. Without a file it lets a job of canaries be created, cancelled and deleted, and looks for those.",
)
def find_traces(request_file: RequestFile = "") -> Ended:
    """Look for traces of what was deleted.

    Args:
        request_file: Name of a file in the intake folder with the words to look for, {"words": ["…"]}; it is
            removed before the search. Empty: canaries.
    """
    settings = Settings()
    if request_file:
        words = read_words(settings.intake / request_file)
        remove_request_file(settings.intake / request_file)
    else:
        words = _let_canaries_live_and_die(settings)
    return _tell(search_places(words, places_of(settings)), len(words))


def _let_canaries_live_and_die(settings: Settings) -> list[str]:
    request_file = f"{CANARY_FILE}{token_hex(8)}.json"
    words = write_canary_request(settings.intake, request_file, settings.locations_file)
    # Of no run: the report is to stay, and nothing in it tells of the job.
    created = create_jobs(settings.intake, request_file, settings.locations_file, None, 1)
    for job_id in created.job_ids:
        accept_cancel(job_id)
        complete_cancelled_job(job_id)
        delete_rows_of_job(job_id)
    return words


def search_for(words: Sequence[str]) -> Report:
    """Look for words everywhere, outside of any run: for the command line, whose words Prefect may not keep.

    Raises:
        TraceWordsError: the words cannot be looked for.
    """
    report: Report = search_places.fn(words, places_of(Settings()))
    return report


def places_of(settings: Settings) -> Places:
    """Tell where everything is that Drivepost and its Prefect server write on this machine."""
    folders = [settings.data_directory, settings.intake]
    postgresql: list[str] = []
    prefect_home = os.environ.get("PREFECT_HOME")
    folders += [Path(prefect_home)] if prefect_home else []
    for address in (settings.database, *(os.environ.get(name, "") for name in _PREFECT_DATABASES)):
        url = make_url(address) if address else None
        if url is None:
            continue
        if url.get_backend_name() == "postgresql":
            postgresql.append(url.set(drivername="postgresql").render_as_string(hide_password=False))
        elif url.database and Path(url.database).is_absolute():
            # With its log ahead and its journal.
            folders += sorted(Path(url.database).parent.glob(f"{glob.escape(Path(url.database).name)}*"))
    return Places(tuple(folders), frozenset(_of_customers(settings)), tuple(postgresql))


def _of_customers(settings: Settings) -> list[Path]:
    """Tell where the customers' own drives and storage accounts are: what stands there is theirs."""
    theirs = [settings.bay, settings.data_directory / "store"]
    for address in (settings.default_store, *settings.stores.values()):
        parts = urlsplit(address)
        if parts.scheme == "file":
            # Up to the first name that stands for an account or a container.
            theirs.append(Path(url2pathname(parts.path.partition("{")[0])))
    return theirs


def _tell(report: Report, words: int) -> Ended:
    searched = f"{report.files:,} files with {report.bytes_searched:,} bytes were searched for {words:,} words"
    left_out = f"; not searched: {'; '.join(map(': '.join, report.not_searched))}" if report.not_searched else ""
    if not report.hits_total:
        return done(f"{searched}, and nothing was found{left_out}")
    if run_id():
        create_table_artifact(
            key="traces-found",
            table=[
                {"word": str(hit.word + 1), "written as": hit.encoding, "place": hit.place, "offset": hit.offset}
                for hit in report.hits[:_TOLD_MAX]
            ],
            description="What should be gone and is still there; words go by their place in the list",
        )
    found = TracesFoundError(report.hits_total, report.words_found, report.hits[0].place)
    return failed(f"{found.line}; {searched}{left_out}")
