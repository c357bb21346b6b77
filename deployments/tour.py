"""`drivepost tour`: real jobs taken through their whole lives on real files, and every promise looked at.

The tour acts as customer and operator do, through the flows, on a real Prefect server; what it reports it
has read back from the database, the store, the disk or Prefect.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rich.console import Console

from deployments.processes import PrefectServer
from models.errors import RequestError

_JOURNEY_SECONDS_MAX: Final = 900.0


def take_tour(console: Console, *, source: Path | None, keep: bool, json_file: Path | None) -> bool:
    """Take the tour; tells whether every promise was kept.

    Args:
        console: takes progress and one line per promise.
        source: the folder whose files are posted; None takes Python's standard library.
        keep: whether the data directory stays.
        json_file: takes the same as data, if given.

    Raises:
        RequestError: the source is no folder, or the JSON file has none.
        PrefectAwayError: Prefect's server does not come up.
    """
    if source and not source.is_dir():
        raise RequestError([("source", "is no folder; name one whose files are to be posted")])
    if json_file and not json_file.absolute().parent.is_dir():
        raise RequestError([("json", "there is no folder for that file")])
    began = time.monotonic()
    with _folder(console, keep=keep) as folder:
        told = folder / "told.json"
        with PrefectServer(folder / "prefect", 0, folder / "logs" / "prefect.log") as server:
            console.print(f"Prefect's server comes up at {server.ui}; the tour takes about a minute")
            server.wait()
            # A process of its own: Prefect reads its settings once, and what it has still to send goes out at
            # its end, while the server is there.
            posted = str(source.absolute()) if source else ""
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(  # noqa: S603  our own command
                    [sys.executable, "-m", "deployments.journey", posted, str(told)],
                    env=_environment(folder, server),
                    check=False,
                    timeout=_JOURNEY_SECONDS_MAX,
                )
        if not told.exists():
            return False
        seen = json.loads(told.read_text("utf-8"))
    seconds = round(time.monotonic() - began, 1)
    kept = sum(bool(each["kept"]) for each in seen["promises"])
    console.print(f"{kept} of {len(seen['promises'])} promises kept, in {seconds:.0f} s")
    if json_file:
        json_file.write_text(json.dumps({**seen, "seconds": seconds}, indent=2) + "\n", "utf-8")
    return kept == len(seen["promises"])


def _environment(folder: Path, server: PrefectServer) -> dict[str, str]:
    """Let nothing of the user's own settings into the tour."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DRIVEPOST_", "PREFECT_"))}
    return {
        **own,
        **server.environment,
        "DRIVEPOST_DATA_DIRECTORY": str(folder),
        # The tour says itself what was refused.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


@contextmanager
def _folder(console: Console, *, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="drivepost-tour-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
