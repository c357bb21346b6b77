"""The command line: `drivepost`."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from models.errors import DrivepostError, SettingsError
from models.log_guard import guard_logs
from models.manifests import ImportDisposition

app = App(
    name="drivepost",
    help="Drives by post: the job lifecycle of Azure Import/Export, open.",
    version=lambda: version("drivepost"),
)
database = App(name="database", help="The tables.")
app.command(database)
receipts = App(name="receipts", help="Receipts of what was deleted.")
app.command(receipts)

# Errors and progress go to the error stream: what a command prints as its result can be piped.
_console = Console(stderr=True, highlight=False)


@app.command
def up() -> None:
    """Run everything on this machine: tables, Prefect's server and UI, all flows. Ctrl-C ends it."""
    from deployments.up import up as run  # noqa: PLC0415  Prefect is slow to import; only this needs it

    try:
        run(_console)
    except KeyboardInterrupt:
        _console.print("ended; the next start goes on where this one was")


@app.command
def deploy(*, pool: str) -> None:
    """Register all flows in a work pool of the Prefect server at PREFECT_API_URL, for workers on many machines.

    Safe to repeat, and to be repeated with each new version: what an operator paused or edited stays so.

    Parameters
    ----------
    pool
        The work pool's name; one of type process is made where there is none.
    """
    from deployments.deploy import deploy as run  # noqa: PLC0415  as above

    run(_console, pool)


@app.command
def api() -> None:
    """Serve the REST API alone, where the tables are; 'drivepost up' serves it beside all else. Ctrl-C ends it."""
    from deployments.api.server import serve  # noqa: PLC0415  as above

    serve()


@app.command
def token() -> None:
    """Print the token that the REST API takes while no issuer is set; made where there is none."""
    from deployments.api.tokens import read_local_token  # noqa: PLC0415  as above
    from models.settings import Settings  # noqa: PLC0415  as above

    settings = Settings()
    if settings.api_issuer:
        raise SettingsError("DRIVEPOST_API_ISSUER: is set, so that the API takes that issuer's tokens alone")
    sys.stdout.write(f"{read_local_token(settings.token_file)}\n")


@app.command
def tour(
    *,
    source: Path | None = None,
    keep: bool = False,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Take real jobs through their whole lives and look at every promise; exits 0 only if all were kept.

    Parameters
    ----------
    source
        The folder whose files are posted; default: Python's own standard library.
    keep
        Keep the data directory of the tour and say where it is.
    json_file
        Write what was seen as JSON into this file, too.
    """
    from deployments.tour import take_tour  # noqa: PLC0415  as above

    if not take_tour(_console, source=source, keep=keep, json_file=json_file):
        sys.exit(1)


@app.command(name="prepare-drive")
def prepare_drives(
    source: Path | None = None,
    drive: Annotated[list[Path] | None, Parameter(negative="")] = None,
    *,
    dataset: Path | None = None,
    drive_id: Annotated[list[str] | None, Parameter(negative="")] = None,
    bit_locker_key_file: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    container: str | None = None,
    disposition: ImportDisposition | None = None,
) -> None:
    """Lay files on drives, each with a manifest, and print what a job's driveList needs.

    Prints the drive's entry of driveList; with several drives or a dataset a list of entries, those of the drives
    that have files. A run that was cut goes on where it was when it is run again; Ctrl-C exits 130.

    Parameters
    ----------
    source
        The folder whose files go on the drives.
    drive
        The folders where the drives are mounted; each file goes on the first that has room for it.
    dataset
        In the place of a source: a JSON file that names folders and files, and where they go.
    drive_id
        Each drive's hardware serial number, without spaces; default: the name of the drive's folder.
    bit_locker_key_file
        For each drive a file that holds its BitLocker key, printed with its entry; - reads a line of the standard
        input.
    container
        The container of the storage account that the files go into; default: made of the source's name.
    disposition
        What becomes of a blob that is there already; default: the new one is renamed.
    """
    from deployments.prepare_command import prepare  # noqa: PLC0415  as above

    try:
        entries = prepare(
            _console,
            source,
            drive or [],
            dataset=dataset,
            drive_ids=drive_id or [],
            bit_locker_key_files=bit_locker_key_file or [],
            container=container,
            disposition=disposition,
        )
    except KeyboardInterrupt:
        _console.print("ended; the same command goes on where this one was")
        sys.exit(130)
    sys.stdout.write(f"{entries}\n")


@app.command(name="verify-drive")
def verify_drive(
    drive: Path,
    *,
    drive_id: str | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Hold a drive against its own manifest: every file, every block, every hash; nothing else is read.

    For a drive that was prepared, or that came back from an export. Exits 0 if all is as the manifest says, 3 if
    something is not, and 1 if there is no such drive.

    Parameters
    ----------
    drive
        The folder where the drive is mounted.
    drive_id
        The drive's hardware serial number; default: the name of the drive's folder.
    json_file
        Write what was found as JSON into this file, too.
    """
    from deployments.verify_drive import verify  # noqa: PLC0415  as above

    sys.exit(verify(_console, drive, drive_id=drive_id, json_file=json_file))


@app.command
def watch(
    job: str,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    once: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show how far a job's copy has come, drive by drive, until it is over. Ctrl-C ends the watching alone.

    Exits 0 if everything was copied as listed, 3 if the job is over and not everything was (errors, a cancel, a
    drive that never came), 4 if the job was deleted, 1 if there is no such job or the database did not answer for
    ten minutes, and 130 after Ctrl-C; 0 with --once.

    Parameters
    ----------
    job
        The job: its id, or subscription/resourceGroup/name.
    as_json
        Print one JSON object at each change.
    once
        Tell what is now, and wait for nothing.
    """
    from deployments.watch import watch_job  # noqa: PLC0415  as above

    try:
        sys.exit(watch_job(_console, job, as_json=as_json, once=once))
    except KeyboardInterrupt:
        _console.print("no longer watched; the job goes on")
        sys.exit(130)


@app.command(name="find-traces")
def look_for(*words: str, json_file: Annotated[Path | None, Parameter(name="--json")] = None) -> None:
    """Look for what should be gone in every byte that Drivepost and Prefect keep on this machine.

    Exits 0 if nothing was found, 3 if something was, and 4 if nothing was found but not everything could be
    searched; words go by their place, from 0. Drives in the bay and storage accounts are the customers' own and
    not searched.

    Parameters
    ----------
    words
        What to look for, each of at least 6 characters; none, or -, reads them from standard input, one a line,
        so that they stand in no shell's history.
    json_file
        Write what was found as JSON into this file, too.
    """
    from deployments.found import look_for_words  # noqa: PLC0415  as above

    given = sys.stdin.read().splitlines() if not words or words == ("-",) else words
    sys.exit(look_for_words(_console, [word for word in given if word.strip()], json_file))


@receipts.command(name="verify")
def verify_chain(*, head: str = "") -> None:
    """Look whether any deletion receipt was changed, removed or moved; exits 3 if one was.

    Parameters
    ----------
    head
        The head that an earlier run printed: shows that nothing was written anew since.
    """
    from models.database import reading  # noqa: PLC0415  as above
    from models.receipts import verify_receipts  # noqa: PLC0415  as above
    from models.tables import require_current_tables  # noqa: PLC0415  as above

    require_current_tables()
    with reading() as session:
        found = verify_receipts(session, head=head)
    for fault in found.faults:
        _console.print(fault, style="red", markup=False)
    _console.print(
        f"{found.entries:,} entries of {found.receipts:,} receipts, {found.unfinished:,} not closed yet: "
        f"{'NOT as they were written' if found.faults else 'all as they were written'}"
    )
    sys.stdout.write(f"{found.head}\n")
    if found.faults:
        sys.exit(3)


@app.command(name="create-job")
def create(file: Annotated[Path, Parameter(allow_leading_hyphen=True)], /) -> None:
    """Create a job of a request file, and print its id; the file stays.

    Parameters
    ----------
    file
        The request: the job's names around the body of Create Job; "-" reads the standard input.
    """
    from deployments.create_job import create_job  # noqa: PLC0415  as above

    sys.stdout.write(f"{create_job(file)}\n")


@database.command(name="upgrade")
def upgrade_database() -> None:
    """Bring the tables to what this version needs; safe to repeat."""
    from models.settings import Settings  # noqa: PLC0415  as above
    from models.tables import upgrade  # noqa: PLC0415  as above

    _console.print(f"tables at revision {upgrade(Settings().database)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default the one that the process was started with; a refusal is told in one line."""
    guard_logs()
    try:
        app(arguments)
    except DrivepostError as error:
        _console.print(error.line, style="red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
