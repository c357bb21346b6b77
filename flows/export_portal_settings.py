"""export-portal-settings: everything that is kept, in one file."""

from uuid import UUID

from flows.promises import Ended, UserReference, done, promise
from models.settings import Settings
from tasks.portal import write_export


@promise(
    "export-portal-settings",
    """Writes everything that is kept in one user's portal settings, with their dashboards, into one file.

- **When:** the user asks what is kept of them.
- **Takes:** the user's id.
- **Ends** *Completed* with the name of a JSON file in the exports folder, which its owner alone can read.
- **Never** shows what it wrote here. The file is removed after a day; **import-portal-settings** takes it in
  again.""",
)
def export_portal_settings(user: UserReference) -> Ended:
    """Export a user's portal settings.

    Args:
        user: The user: the id that their directory gave.
    """
    name = write_export(UUID(user), Settings().exports)
    return done(f"exported into {name} in the exports folder; it is removed after a day")
