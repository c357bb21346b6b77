"""Lists of jobs in pages, by name: a page begins after the last job of the one before.

Jobs that live throughout are in the pages exactly once, whatever is created and deleted meanwhile, because the
key that lists go by never changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, false, or_
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
        scopes: `subscription` or `subscription/resourceGroup`, each with all jobs below it; None is all there are.
        found_by: a condition beside, as `models.job_filters` makes it.
        after: the last key of the page before; empty begins.
        rows_max: jobs on the page, 1 to 100.

    Source: the specification, sections 8 and 10.
    """
    key = col(Job.resource_key)
    chosen = select(Job).where(key > after).order_by(key).limit(rows_max + 1)
    if scopes is not None:
        chosen = chosen.where(or_(false(), *map(_below, scopes)))
    if found_by is not None:
        chosen = chosen.where(found_by)
    found = session.exec(chosen).all()
    return Page(found[:rows_max], is_last=len(found) <= rows_max)


def _below(scope: str) -> ColumnElement[bool]:
    """Tell which keys begin with a scope and a slash; as a range, which the index of keys can answer."""
    if "\x00" in scope:  # PostgreSQL keeps none, and would refuse to look for it
        return false()
    key = col(Job.resource_key)
    return (key >= f"{scope.lower()}/") & (key < f"{scope.lower()}{_AFTER_SLASH}")
