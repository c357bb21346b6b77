"""Canaries: personal data of nobody, put into a job, so that one can look for it once that job is gone."""

import json
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from uuid import UUID

from pydantic import Field

from models.database import database_time, writing
from models.lifecycle import Actor
from models.locations import load_locations
from models.requests import JobRequest, Shape, parse
from models.updates import put_job
from tasks.acts import act
from tasks.intake import erase_spent, read_request_file

_ACCOUNT: Final = (
    "/subscriptions/drivepost/resourceGroups/canaries/providers/Microsoft.Storage/storageAccounts/canaries"
)


class WordsRequest(Shape):
    """What an operator looks for, as a request file of the intake holds it."""

    words: list[str] = Field(min_length=1)


@act
def create_canary_job(locations_file: Path | None) -> tuple[UUID, list[str]]:
    """Create a job of nobody, with all eleven kinds of personal data and a key, as the command line does.

    Returns:
        The job's id, and the canaries: words that stand nowhere else in the world.
    """
    canaries: list[str] = []

    def canary() -> str:
        canaries.append(f"canary-{token_hex(8)}")
        return canaries[-1]

    location = next(iter(load_locations(locations_file).by_key.values()))
    request: dict[str, Any] = {
        "subscriptionId": "drivepost",
        "resourceGroupName": "canaries",
        "jobName": f"looked-for-{token_hex(4)}",
        "body": {
            "location": location.name,
            "properties": {
                "storageAccountId": _ACCOUNT,
                "jobType": "Import",
                "returnAddress": {
                    "recipientName": canary(),
                    "streetAddress1": canary(),
                    "streetAddress2": canary(),
                    "city": canary(),
                    "stateOrProvince": canary(),
                    "postalCode": canary(),
                    "countryOrRegion": canary(),
                    "phone": canary(),
                    "email": canary(),
                },
                "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": canary()},
                "deliveryPackage": {"carrierName": "FedEx", "trackingNumber": canary()},
                "driveList": [
                    {
                        "driveId": canary(),
                        "bitLockerKey": canary(),
                        "manifestFile": "\\DriveManifest.xml",
                        "manifestHash": "0" * 32,
                    }
                ],
            },
        },
    }
    # Past the intake: what waits there is the customers'.
    with writing() as session:
        parsed = parse(JobRequest, json.dumps(request))
        job_id = put_job(
            session, parsed, load_locations(locations_file), at=database_time(session), by=Actor.OPERATOR
        )
    return job_id, canaries


@act
def read_words(file: Path) -> list[str]:
    """Read the words that an operator looks for: a request file `{"words": ["…", …]}`.

    What a run that was cut left of such a file is removed, too: asked again, it finds no file to begin with.

    Raises:
        IntakeError: the file cannot be read.
        RequestError: it is of another shape.
    """
    erase_spent(file.parent)
    return parse(WordsRequest, read_request_file(file)).words
