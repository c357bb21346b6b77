"""delete-portal-settings: nothing of what a user saved is kept any more."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from flows.promises import Ended, UserReference, done, promise
from models.portal import SettingsPart, SettingsRows
from models.receipts import Reason
from models.settings import Settings
from tasks.portal import delete_rows_of_settings, remove_exports


@promise(
    "delete-portal-settings",
    """Deletes what one user saved, exported files included.

- **When:** the user asks for it.
- **Takes:** the user's id, and whether everything goes or the saved carrier and return address alone.
- **Ends** *Completed* with the rows that are gone.
- **Never** deletes jobs or shared dashboards; those do not tell any more who made them. It cannot be undone.""",
)
def delete_portal_settings(
    user: UserReference, what: Annotated[SettingsPart, Field(title="What")] = SettingsPart.EVERYTHING
) -> Ended:
    """Delete a user's portal settings.

    Args:
        user: The user: the id that their directory gave.
        what: Everything, or the saved carrier and return address alone.
    """
    deleted = delete_settings_and_exports(UUID(user), what, Reason.BY_HAND)
    counts = ", ".join(f"{count} {table}" for table, count in sorted(deleted.counts.items()))
    return done(f"deleted rows: {counts}" if counts else "nothing to do: no carrier and return address was saved")


def delete_settings_and_exports(user_id: UUID, what: SettingsPart, reason: Reason) -> SettingsRows:
    """Delete a user's settings, or a part of them, and the files that they were exported to.

    Raises:
        PortalSettingsNotFoundError: there are none.
    """
    exports = Settings().exports
    deleted = delete_rows_of_settings(user_id, what, reason)
    # Should this be cut, advance-jobs removes the files of settings that are gone.
    remove_exports(exports, deleted.settings_id)
    return deleted
