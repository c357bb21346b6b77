"""`Operations_List`: what may be done with Microsoft.ImportExport, for those who grant permissions.

Source: the example ListOperations of the descriptions.
"""

from dataclasses import dataclass
from typing import Final

from deployments.api.answers import PROVIDER, Answer


@dataclass(slots=True, kw_only=True)
class DisplayAnswer(Answer):
    """How an operation is shown."""

    provider: str = "Microsoft Import/Export"
    resource: str
    operation: str
    description: str


@dataclass(slots=True, kw_only=True)
class OperationAnswer(Answer):
    """One operation."""

    name: str
    display: DisplayAnswer


@dataclass(slots=True, kw_only=True)
class OperationsAnswer(Answer):
    """Every operation."""

    value: list[OperationAnswer]


def _operation(name: str, resource: str, operation: str, description: str) -> OperationAnswer:
    display = DisplayAnswer(resource=resource, operation=operation, description=description)
    return OperationAnswer(name=f"{PROVIDER}/{name}", display=display)


OPERATIONS: Final = OperationsAnswer(
    value=[
        _operation("locations/read", "Locations", "Get or List Locations", "Reads the sites that take drives."),
        _operation(
            "jobs/write", "Jobs", "Create or Update Job", "Creates a job, or changes its properties or its tags."
        ),
        _operation("jobs/read", "Jobs", "Get or List Jobs", "Reads one job, or many."),
        _operation(
            "jobs/listBitLockerKeys/action",
            "Jobs",
            "List BitLocker Keys",
            "Reads the BitLocker keys of a job's drives; the job's history tells that it was done.",
        ),
        _operation("jobs/delete", "Jobs", "Delete Job", "Deletes a job in Creating or Completed."),
    ]
)
