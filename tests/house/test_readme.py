"""What the README says is what is."""

import inspect
import re
from pathlib import Path

from sqlmodel import SQLModel

from deployments.serving import deployments
from models import errors
from models.lifecycle import states_diagram
from models.personal_data import places_table
from models.settings import Settings

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text("utf-8")


def _first_column(heading: str) -> list[str]:
    """Read the first column of a section's table, without its head and rule."""
    section = _README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `?([\w-]+)`? \|", section, re.MULTILINE)[2:]


def test_the_picture_of_states_is_drawn_from_the_moves() -> None:
    """To the letter."""
    assert f"```mermaid\n{states_diagram()}\n```" in _README


def test_where_personal_data_is_is_drawn_from_the_columns() -> None:
    """To the letter."""
    assert f"\n{places_table(SQLModel.metadata)}\n\n" in _README


def test_the_first_screen_has_two_commands_and_the_picture() -> None:
    """Nobody should have to look for them."""
    first = _README.split("\n## ", 1)[0]
    assert len(re.findall(r"```bash\n#.*\n(.*)\n```", first)) == 2
    assert "```mermaid" in first


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """Installed as the README says, tested as the README says."""
    install, test = re.findall(
        r"^python3 -m venv .*pip (install .*) && (\.venv/bin/python -m pytest)$", _README, re.M
    )[0]
    ci = (_ROOT / ".ci" / "run").read_text("utf-8")
    assert install in ci
    assert f"\n{test}" in ci


def test_every_deployment_is_described(sqlite: str) -> None:
    """By its name, and no other is."""
    assert sorted(_first_column("Deployments")) == sorted(each.name for each in deployments(Settings()))


def test_every_setting_is_described_as_it_describes_itself() -> None:
    """Variable by variable."""
    fields = {f"DRIVEPOST_{name.upper()}": field.description for name, field in Settings.model_fields.items()}
    for name, description in fields.items():
        assert f"| `{name}` | {description} |" in _README
    assert set(re.findall(r"^\| `(DRIVEPOST_\w+)`", _README, re.M)) == set(fields)


def test_every_error_code_is_listed() -> None:
    """Codes are stable; a reader finds each."""
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.DrivepostError)
    ]
    assert {kind.code for kind in kinds} == set(_first_column("Error codes"))
