"""Acts on portal settings: exported, imported, deleted; and on what dashboards show."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlmodel import col, select

from models.dashboards import ShownJob, jobs_of_dashboard
from models.database import database_time, reading, return_free_pages, writing
from models.errors import ExportError
from models.portal import PortalSettings, SettingsPart, SettingsRows, delete_settings
from models.portal_documents import Imported, PortalSettingsDocument, export_settings, import_settings
from models.receipts import Reason
from models.requests import UUID_PATTERN, parse
from models.runs import record_run
from tasks.acts import act
from tasks.intake import erase, erase_spent, read_request_file

_TIME: Final = "%Y%m%dT%H%M%SZ"
_ASIDE: Final = ".new"
_EXPORT: Final = re.compile(rf"portal-settings-({UUID_PATTERN})-(\d{{8}}T\d{{6}}Z)\.json({re.escape(_ASIDE)})?")
_LISTED_MAX: Final = 10_000


@act
def write_export(user_id: UUID, folder: Path) -> str:
    """Write everything that is kept for a user into a file that its owner alone can read.

    Safe to repeat: each time there is a file of that moment. While it is written the settings cannot be deleted,
    so that a deletion finds every file there is.

    Returns:
        The file's name.

    Raises:
        PortalSettingsNotFoundError: nothing is kept.
        ExportError: the folder cannot be written.
    """
    with writing() as session:
        exported = export_settings(session, user_id, at=database_time(session), lock=True)
        name = f"portal-settings-{exported.settings_id}-{exported.at:{_TIME}}.json"
        try:
            _write(folder / name, exported.document.to_json().encode())
        except OSError as error:
            raise ExportError(f"the folder for exports cannot be written: {error.strerror}") from None
    return name


def _write(file: Path, document: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(file.name + _ASIDE)
    erase(aside)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(document)
        opened.flush()
        os.fsync(opened.fileno())
    aside.replace(file)


@act
def take_in_settings(file: Path) -> Imported:
    """Take in the settings that a request file of the intake holds, as an export wrote them; safe to repeat.

    What a run that was cut left of such a file is removed, too: asked again, it finds no file to begin with.

    Raises:
        IntakeError: the file cannot be read.
        RequestError: it is no export of portal settings, or has too many dashboards.
    """
    erase_spent(file.parent)
    document = parse(PortalSettingsDocument, read_request_file(file))
    with writing() as session:
        return import_settings(session, document, at=database_time(session))


@act
def remove_exports(folder: Path, settings_id: UUID) -> None:
    """Remove every exported file of these settings, whole or half written; harmless when there is none."""
    for file in folder.glob(f"portal-settings-{settings_id}-*"):
        erase(file)


@act
def delete_rows_of_settings(user_id: UUID, what: SettingsPart, reason: Reason) -> SettingsRows:
    """Delete all settings and private dashboards of a user, or the saved address alone, in one transaction.

    Raises:
        PortalSettingsNotFoundError: there are none, or somebody else deleted them first.
    """
    with writing() as session:
        deleted = delete_settings(session, user_id, what, at=database_time(session), reason=reason)
    return_free_pages()
    return deleted


@act
def remove_old_exports(folder: Path, older_than_seconds: float, files_max: int) -> int:
    """Remove exported files that have become old, or whose settings are gone; the oldest first.

    Args:
        folder: where exports are written.
        older_than_seconds: how long a file is kept; at exactly that age it goes.
        files_max: how many at most.

    Returns:
        How many were removed.
    """
    exports = sorted(filter(None, map(_export, folder.glob("portal-settings-*"))))[:_LISTED_MAX]
    if not exports:
        return 0
    with reading() as session:
        now = database_time(session)
        old = now - timedelta(seconds=older_than_seconds)
        named = {settings_id for _, settings_id, _ in exports}
        living = set(session.exec(select(PortalSettings.id).where(col(PortalSettings.id).in_(named))).all())
    due = [file for at, settings_id, file in exports if not old < at <= now or settings_id not in living][
        :files_max
    ]
    for file in due:
        erase(file)
    return len(due)


def _export(file: Path) -> tuple[datetime, UUID, Path] | None:
    """Read off an exported file's name when it was made, and of which settings; None of any other file."""
    found = _EXPORT.fullmatch(file.name)
    if found is None:
        return None
    with suppress(ValueError):
        return datetime.strptime(found[2], _TIME).replace(tzinfo=UTC), UUID(found[1]), file
    return None


@act
def list_jobs_of_dashboard(
    dashboard_id: UUID, rows_max: int, flow_run_id: UUID | None
) -> tuple[int, list[ShownJob]]:
    """List the jobs that a dashboard shows, and write down that this run spoke of them.

    Returns:
        How many jobs there are, and the latest of them, at most `rows_max`.

    Raises:
        DashboardNotFoundError: there is no such dashboard.
    """
    with writing() as session:
        count, shown = jobs_of_dashboard(session, dashboard_id, rows_max, lock=True)
        if flow_run_id is not None:
            for job in shown:
                record_run(session, job.job_id, flow_run_id)
        return count, list(shown)
