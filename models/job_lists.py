"""Lists of jobs in pages, by name: a page begins after the last job of the one before.

Jobs that live throughout are in the pages exactly once, whatever is created and deleted meanwhile, because the
key that lists go by never changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from models.jobs import Job

PAGE_MAX: Final = 100

_AFTER_SLASH: Final = chr(ord("/") + 1)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs in the order of the list; `is_last` tells that none come after them."""

    jobs: Sequence[Job]
    is_last: bool

    @property
    def last_key(self) -> str:
        """The key after which the next page begins."""
        return self.jobs[-1].resource_key if self.jobs else ""


def list_jobs(
    session: Session,
    scopes: Sequence[str] | None,
    *,
    found_by: ColumnElement[bool] | None = None,
    after: str = "",
    rows_max: int = PAGE_MAX,
) -> Page:
    """Read a page of a list.

    Args:
        session: an open session.
        scopes: `subscription` or `subscription/resourceGroup`, each with all jobs below it; None is all there
            are. There is a statement for each that has to be looked at.
        found_by: a condition beside, as `models.job_filters` makes it.
        after: the last key of the page before; empty begins.
        rows_max: jobs on the page, 1 to 100.

    Source: the specification, sections 8 and 10.
    """
    found: list[Job] = []
    for first, end in _ranges(scopes, after):
        key = col(Job.resource_key)
        chosen = select(Job).where(key >= first if first != after else key > after).order_by(key)
        if end is not None:
            chosen = chosen.where(key < end)
        if found_by is not None:
            chosen = chosen.where(found_by)
        found += session.exec(chosen.limit(rows_max + 1 - len(found))).all()
        if len(found) > rows_max:
            break
    return Page(found[:rows_max], is_last=len(found) <= rows_max)


def _ranges(scopes: Sequence[str] | None, after: str) -> Sequence[tuple[str, str | None]]:
    """Tell which keys are to be looked at: ranges in their order, none of them before `after`, without their ends.

    Each is read by the index, so that nobody else's jobs are.
    """
    if scopes is None:
        return [(after, None)]
    # PostgreSQL keeps no U+0000, and would refuse to look for it.
    lowered = sorted({scope.lower() for scope in scopes if "\x00" not in scope}, key=lambda scope: f"{scope}/")
    ranges: list[tuple[str, str | None]] = []
    reached = after
    for scope in lowered:
        first, end = f"{scope}/", f"{scope}{_AFTER_SLASH}"
        if reached < end:  # else it lies before, or within the one before
            ranges.append((max(first, reached), end))
            reached = end
    return ranges
