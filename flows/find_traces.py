"""find-traces: what should be gone is looked for, by code that knows nothing of the deleter."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy.engine import make_url

from flows.promises import Ended, RequestFile, done, failed, promise, run_id
from models.errors import TracesFoundError
from models.settings import Settings
from tasks.artifacts import show_table
from tasks.canaries import create_canary_job, read_words
from tasks.intake import remove_request_file
from tasks.jobs import accept_cancel, complete_cancelled_job, delete_rows_of_job
from tasks.trace_places import Places, search_places
from tasks.traces import Report

_TOLD_MAX: Final = 100
_PLACES_MAX: Final = 5
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PREFECT_DATABASES: Final = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)


@promise(
    "find-traces",
    """Looks for what should be gone, in every byte of every store: database, Prefect's database and files, logs,
intake.

- **When:** every week by itself; by hand after a deletion that somebody doubts.
- **Takes:** the name of a file in the intake folder with the words to look for, {"words": ["…"]}; it is removed
  first. Without one, a job of canaries is created, cancelled and deleted, and looked for.
- **Ends** *Completed* if nothing was found, *Failed* if something was: the artifact *traces-found* tells where.
- **Never** changes what it finds, nor writes the words down.""",
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
    places = places_of(settings)
    return _tell(search_places(words, places), len(words), settings)


def _let_canaries_live_and_die(settings: Settings) -> list[str]:
    # No act is told of this run: the report is to stay, and nothing in it tells of the job.
    job_id, words = create_canary_job(settings.locations_file)
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
    left_out: list[tuple[str, str]] = []
    # Where Prefect keeps its files, if `drivepost up` has not put them into the data directory.
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    folders += [home] if home.is_dir() else []
    for address in (settings.database, *(os.environ.get(name, "") for name in _PREFECT_DATABASES)):
        url = make_url(address) if address else None
        if url is None:
            continue
        if url.get_backend_name() == "postgresql":
            postgresql.append(url.set(drivername="postgresql").render_as_string(hide_password=False))
        elif url.database and not Path(url.database).is_absolute():
            left_out.append(("Prefect's database", "its address names no absolute path"))
        elif url.database:
            # With its log ahead and its journal.
            folders += sorted(Path(url.database).parent.glob(f"{glob.escape(Path(url.database).name)}*"))
    server = urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname
    if server and server not in _THIS_MACHINE:
        left_out.append(("Prefect's server", "it is on another machine; search there"))
    # A folder of ours behind a link would not be followed to.
    folders += [path.resolve() for path in settings.data_directory.glob("*") if path.is_symlink()]
    searched = {folder.resolve() for folder in folders}
    theirs = {path.resolve() for path in _of_customers(settings)}
    # What is theirs and holds something of ours is searched all the same.
    passed_over = {path for path in theirs if not any(each == path or path in each.parents for each in searched)}
    return Places(tuple(folders), frozenset(passed_over), tuple(postgresql), tuple(left_out))


def _of_customers(settings: Settings) -> list[Path]:
    """Tell where the customers' own drives and storage accounts are: what stands there is theirs."""
    theirs = [settings.bay, settings.data_directory / "store"]
    for address in (settings.default_store, *settings.stores.values()):
        parts = urlsplit(address)
        if parts.scheme == "file":
            # Up to the first name that stands for an account or a container.
            theirs.append(Path(url2pathname(parts.path.partition("{")[0])))
    return theirs


def _tell(report: Report, words: int, settings: Settings) -> Ended:
    # That something lies on another machine is no fault of this run.
    elsewhere = [why for _, why in report.not_searched if "machine" in why]
    searched = f"{report.files:,} files with {report.bytes_searched:,} bytes were searched for {words:,} words"
    left_out = f"; {report.not_searched_total} places were not searched: " if report.not_searched else ""
    left_out += "; ".join(f"{place}: {why}" for place, why in report.not_searched[:_PLACES_MAX])
    if not report.hits_total and report.not_searched_total > len(elsewhere):
        return failed(f"{searched}; nothing was found, but not everything could be searched{left_out}")
    if not report.hits_total:
        return done(f"{searched}, and nothing was found{left_out}")
    rows = [
        {
            "word": str(hit.word),
            "written as": hit.encoding,
            "place": _shown(hit.place, settings),
            "offset": hit.offset,
        }
        for hit in report.hits[:_TOLD_MAX]
    ]
    show_table(
        run_id(),
        "traces-found",
        rows,
        "What should be gone and is still there; words go by their place in the list, from 0",
    )
    found = TracesFoundError(report.hits_total, report.words_found, _shown(report.hits[0].place, settings))
    return failed(f"{found.line}; {searched}{left_out}")


def _shown(place: str, settings: Settings) -> str:
    """Tell a place without the names that customers and operators gave their files: Prefect keeps what is told."""
    for folder in (settings.intake, settings.exports):
        if place.startswith(f"{folder}/"):
            return f"{folder}/…"
    return place
