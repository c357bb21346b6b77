"""The sites that take drives.

Source: `locations.json`, 35 real locations as the service listed them in 2023; another file of the same
shape can be named in the settings.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from models.errors import RequestError, SettingsError


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class LocationProperties(_Wire):
    """Where a site is and who carries to it; the address is the data centre's, nobody's personal data."""

    recipient_name: str
    street_address1: str
    street_address2: str = ""
    city: str
    state_or_province: str = ""
    postal_code: str
    country_or_region: str
    phone: str = ""
    additional_shipping_information: str = ""
    supported_carriers: tuple[str, ...] = ()
    alternate_locations: tuple[str, ...] = ()


class Location(_Wire):
    """One site, by its resource id (`/providers/Microsoft.ImportExport/locations/eastus`) and display name."""

    id: str
    name: str
    properties: LocationProperties

    @property
    def key(self) -> str:
        """The name as resource ids have it, such as `eastus`."""
        return _key(self.id.rsplit("/", 1)[-1])


class _File(_Wire):
    value: tuple[Location, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Locations:
    """All sites, found by display name or key without regard to case and spaces."""

    by_key: dict[str, Location]

    def get(self, name: str) -> Location | None:
        """Find a location; None if there is none by that name."""
        return self.by_key.get(_key(name))

    def find(self, name: str) -> Location:
        """Find a location.

        Raises:
            RequestError: there is none by that name; the text names those there are.
        """
        location = self.get(name)
        if location is None:
            known = ", ".join(sorted(each.name for each in self.by_key.values()))
            raise RequestError([("location", f"is no location that takes drives; there are {known}")])
        return location

    def shipping_to(self, location: Location) -> Location:
        """Find where drives for a location are sent.

        A location whose `alternateLocations` does not name itself is closed: the first alternate that exists
        takes its drives.

        Source: the specification, section 7.
        """
        alternates = [_key(each.rsplit("/", 1)[-1]) for each in location.properties.alternate_locations]
        if not alternates or location.key in alternates:
            return location
        return next((self.by_key[key] for key in alternates if key in self.by_key), location)


def _key(name: str) -> str:
    return "".join(name.split()).lower()


@cache
def load_locations(file: Path | None = None) -> Locations:
    """Read the locations, once per process.

    Raises:
        SettingsError: the file is missing or no list of locations.
    """
    try:
        text = file.read_text("utf-8") if file else (files("models") / "locations.json").read_text("utf-8")
        listed = _File.model_validate_json(text).value
    except OSError as error:
        raise SettingsError(f"DRIVEPOST_LOCATIONS_FILE: cannot be read: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError):
        raise SettingsError('DRIVEPOST_LOCATIONS_FILE: is no list {"value": [location, …]}') from None
    return Locations({location.key: location for location in listed})
