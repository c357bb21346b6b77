"""What is told on the customer's own terminal, where the names of their files may stand."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from models.errors import RequestError

Fault = tuple[str, str]
"""Where something is wrong, and what."""


def shown(name: str) -> str:
    """Make a name fit for a terminal: what is not printable, or no text at all, in escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in name
    )


def refuse(faults: Sequence[Fault]) -> None:
    """Refuse if there are faults.

    Raises:
        RequestError: there are.
    """
    if faults:
        raise RequestError(faults)


@contextmanager
def refusing(target: str, fact: str) -> Iterator[None]:
    """Tell what the file system refuses as a fault of `target`.

    Raises:
        RequestError: it refused.
    """
    try:
        yield
    except OSError as error:
        raise RequestError([(target, f"{fact}: {error.strerror or error}")]) from error


@contextmanager
def byte_bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere; gives what takes bytes as they are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # What is printed as a result goes where it is sent, and not above the bar.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False
    ) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)
