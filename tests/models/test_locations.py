"""The sites that take drives."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import RequestError, SettingsError
from models.locations import Locations, load_locations


@pytest.fixture(scope="module")
def locations() -> Locations:
    """Those that come with the package."""
    return load_locations()


def site(key: str, *alternates: str) -> dict[str, Any]:
    """A location of a file of one's own."""
    address = dict.fromkeys(["recipientName", "streetAddress1", "city", "postalCode", "countryOrRegion"], key)
    return {
        "id": f"/providers/Microsoft.ImportExport/locations/{key}",
        "name": key.title(),
        "properties": {**address, "alternateLocations": [f"/x/locations/{each}" for each in alternates]},
    }


def loaded(folder: Path, *sites: dict[str, Any]) -> Locations:
    """Load a file of these."""
    file = folder / "locations.json"
    file.write_text(json.dumps({"value": sites}), "utf-8")
    return load_locations(file)


def test_the_35_real_ones_are_there(locations: Locations) -> None:
    """Each under its key, with an address to send to."""
    assert len(locations.by_key) == 35
    for key, location in locations.by_key.items():
        assert location.key == key
        assert locations.find(location.name) is location
        assert locations.shipping_to(location).properties.recipient_name.strip()


@pytest.mark.parametrize("name", ["West US", "westus", "WESTUS", " west  us "])
def test_a_location_is_found_by_name_or_key(locations: Locations, name: str) -> None:
    """Without regard to case and spaces."""
    assert locations.find(name).name == "West US"


@pytest.mark.parametrize("name", ["", "Atlantis", "West", "westus3x"])
def test_a_location_that_is_none_is_refused(locations: Locations, name: str) -> None:
    """Those there are, are named; what was written is not repeated."""
    with pytest.raises(RequestError) as refused:
        locations.find(name)
    ((target, text),) = refused.value.faults
    assert target == "location"
    assert "West US" in text
    assert "Atlantis" not in text


def test_a_closed_location_sends_to_its_first_alternate_that_exists(tmp_path: Path) -> None:
    """One that names itself, or nobody, is open."""
    found = loaded(
        tmp_path,
        site("closed", "gone", "open"),
        site("open", "open"),
        site("alone"),
        site("one-of-two", "open", "one-of-two"),
        site("lost", "gone"),
    )
    sends = {key: found.shipping_to(location).key for key, location in found.by_key.items()}
    assert sends == {
        "closed": "open",
        "open": "open",
        "alone": "alone",
        "one-of-two": "one-of-two",
        "lost": "lost",
    }


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"value": []}', '{"value": [{"id": "x"}]}', "\udcff"])
def test_a_file_that_lists_no_locations_stops_the_start(tmp_path: Path, content: str) -> None:
    """The text names the setting."""
    file = tmp_path / "broken.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=r"^DRIVEPOST_LOCATIONS_FILE: is no list"):
        load_locations(file)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """As does a folder in its place."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match=r"^DRIVEPOST_LOCATIONS_FILE: cannot be read: "):
            load_locations(path)
