"""What an operator reads of a deployment who has never seen the code: its description, its form, its version."""

import re
from importlib.metadata import version
from typing import Any

import pytest

from deployments.serving import deployments
from flows.promises import Ended, done, promise
from models.runs import TAG
from models.settings import Settings

pytestmark = pytest.mark.usefixtures("sqlite")


def test_every_deployment_says_what_it_does_and_by_whom() -> None:
    """In a few sentences, with the version of the package, and tags to find it by."""
    for each in deployments(Settings()):
        assert len(str(each.description)) > 100, each.name
        assert each.version == version("drivepost"), each.name
        assert TAG in each.tags, each.name
        assert {"operator", "clock"} & set(each.tags), each.name


def test_every_field_of_every_form_has_its_line_of_help() -> None:
    """A sentence, and no type's name."""
    for each in deployments(Settings()):
        schema: dict[str, Any] = each._parameter_openapi_schema.model_dump()
        for name, field in schema["properties"].items():
            assert re.fullmatch(r"[A-Z].*\.", field.get("description", ""), re.DOTALL), (each.name, name, field)
            assert len(field["description"]) > 15, (each.name, name)


def test_a_description_has_no_line_breaks_inside_of_a_paragraph() -> None:
    """Prefect's UI would begin a new paragraph at each."""

    @promise(
        "wraps",
        """One sentence
        over two lines.

        - **When:** an entry
          over two lines.
        - Another.
        """,
    )
    def wraps() -> Ended:
        return done("")

    assert wraps.description == "One sentence over two lines.\n\n- **When:** an entry over two lines.\n- Another."
    for each in deployments(Settings()):
        for line in str(each.description).splitlines():
            assert not line or not line.startswith(" "), (each.name, line)
