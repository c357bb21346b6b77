"""Canaries: personal data of nobody, put into a job, so that one can look for it once that job is gone."""

import json
import os
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from models.errors import IntakeError, RequestError
from models.locations import load_locations
from models.requests import refusal
from tasks.acts import act
from tasks.intake import read_request_file

_ACCOUNT: Final = (
    "/subscriptions/drivepost/resourceGroups/canaries/providers/Microsoft.Storage/storageAccounts/canaries"
)
CANARY_FILE: Final = "canaries-"
"""How the name of a request file of canaries begins."""

_WORDS: Final = TypeAdapter(dict[str, list[str]])


@act
def write_canary_request(intake: Path, request_file: str, locations_file: Path | None) -> list[str]:
    """Put a request for a job of nobody into the intake folder, with all eleven kinds of personal data and a key.

    Returns:
        The canaries: words that stand nowhere else in the world.

    Raises:
        IntakeError: the file cannot be written.
    """
    for left in intake.glob(f"{CANARY_FILE}*.json"):  # by a run that was cut
        left.unlink(missing_ok=True)
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
    try:
        handle = os.open(intake / request_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(request, file)
    except OSError as error:
        raise IntakeError(f"the intake folder cannot be written: {error.strerror}") from None
    return canaries


@act
def read_words(file: Path) -> list[str]:
    """Read the words that an operator looks for: a request file `{"words": ["…", …]}`.

    Raises:
        IntakeError: the file cannot be read.
        RequestError: it is of another shape.
    """
    try:
        return _WORDS.validate_json(read_request_file(file), strict=True)["words"]
    except ValidationError as error:
        raise refusal(error) from None
    except KeyError:
        raise RequestError([("words", 'is missing; write {"words": ["…", "…"]}')]) from None
