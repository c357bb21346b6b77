"""What a setting's value must be, apart from the settings themselves."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Final
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from obstore import parse_scheme
from obstore.exceptions import BaseError

_TIMES: Final = 10

_AZURE_OPTIONS: Final = frozenset({"account_name", "account_key", "sas_token", "endpoint"})
_S3_OPTIONS: Final = frozenset({"access_key_id", "secret_access_key", "session_token", "region", "endpoint"})
STORE_OPTIONS: Final = {
    **dict.fromkeys(("az", "adl", "azure", "abfs", "abfss", "https"), _AZURE_OPTIONS),
    "s3": _S3_OPTIONS,
}
"""What can be told of a store, by the scheme of its address."""


def begins_with(address: str, beginning: str) -> bool:
    """Tell whether an address begins so, with whole segments: the key of `one` is not shown to `one-too`."""
    return address.startswith(beginning if beginning.endswith("/") else f"{beginning}/") or address == beginning


def is_store_address(address: str) -> bool:
    """Tell whether this is an address of a kind of store that is built; `{account}` and `{container}` are open."""
    try:
        scheme = urlsplit(address).scheme
        kind = parse_scheme(address.replace("{account}", "account").replace("{container}", "container"))
    except (BaseError, ValueError):
        return False
    # A store of S3's behind https has its bucket in the host's name, where no container could stand.
    return scheme == "file" or (scheme in STORE_OPTIONS and (kind == "azure" or scheme == "s3"))


def is_cron(text: str) -> bool:
    """Tell whether this is a cron expression."""
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError:
        return False
    return True


def interval_of(cron: str) -> timedelta:
    """Tell how long it is from one time of a cron expression to the next, at most over its next times."""
    times = list(islice(CronSim(cron, datetime.now(UTC)), _TIMES))
    return max(later - earlier for earlier, later in pairwise(times))


def fault_of(place: list[int | str], text: str) -> str:
    """Tell a fault by the variable it is in."""
    text = text.removeprefix("Value error, ")
    return f"DRIVEPOST_{str(place[0]).upper()}: {text}" if place else text
