"""import-portal-settings: what was exported comes back."""

from flows.promises import Ended, NamedRequestFile, done, promise
from models.settings import Settings
from tasks.intake import remove_request_file
from tasks.portal import take_in_settings


@promise(
    "import-portal-settings",
    """Takes in a file that **export-portal-settings** wrote, or one like it.

- **When:** settings or dashboards are to come back, or to be made.
- **Takes:** the name of a file in the intake folder; it is removed once it is taken in.
- **Ends** *Completed* with what was saved and how many dashboards were made and changed.
- **Never** deletes anything, and changes nobody else's dashboard.""",
)
def import_portal_settings(request_file: NamedRequestFile) -> Ended:
    """Import a user's portal settings.

    Args:
        request_file: Name of a file in the intake folder, with the content of an export; it is removed once it is
            taken in.
    """
    file = Settings().intake / request_file
    imported = take_in_settings(file)
    remove_request_file(file)
    address = "carrier and return address saved" if imported.address else "no carrier and return address in it"
    return done(f"{address}; {imported.created} dashboards made, {imported.updated} changed")
