"""Settings, each an environment variable with the prefix `DRIVEPOST_`."""

import platform
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as NoJsonError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from models.errors import SettingsError
from models.setting_checks import STORE_OPTIONS, begins_with, fault_of, is_cron, is_store_address
from models.setting_sources import EnvironmentSettings

_Seconds = Annotated[float, Field(allow_inf_nan=False)]

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Addresses that this machine alone can reach."""

_DRIVERS: Final = frozenset({"sqlite", "postgres", "postgresql", "postgresql+psycopg"})


class _Fields(EnvironmentSettings):
    """What can be set. Units stand in the names."""

    model_config = SettingsConfigDict(
        env_prefix="DRIVEPOST_", extra="ignore", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    data_directory: Path = Field(
        default_factory=lambda: user_data_path("drivepost"),
        description="Everything the embedded default keeps: database, store, intake, bay, Prefect's own files.",
    )
    database_url: str = Field(
        default="",
        description="Where the tables are; empty is SQLite in the data directory, else postgresql://… .",
    )
    database_wait_seconds_max: _Seconds = Field(
        default=30, gt=0, le=600, description="How long a write waits for another's lock."
    )
    sealing_key_file: Path | None = Field(
        default=None,
        description="The file with the sealing keys, made at the first start; default: keys/sealing.keys in the "
        "data directory.",
    )
    sealing_keys: SecretStr = Field(
        default=SecretStr(""),
        description="The keys themselves, for many machines: number:64 hexadecimal digits, with commas between; "
        "the highest seals.",
    )
    bay_directory: Path | None = Field(
        default=None,
        description="Where drives are mounted, one folder each, named by serial number; default: bay/ in the "
        "data directory.",
    )
    intake_directory: Path | None = Field(
        default=None,
        description="Where request files are put; default: intake/ in the data directory.",
    )
    locations_file: Path | None = Field(
        default=None, description="The locations as JSON, as the service lists them; default: 35 real ones."
    )
    stores: dict[str, str] = Field(
        default_factory=dict,
        description="Store address per storage account, by its resource id or its name, as JSON; an address "
        "may hold {account} and {container}.",
    )
    default_store: str = Field(
        default="",
        description="Store address of every other storage account; empty is store/{account} in the data "
        "directory.",
    )
    store_credentials: dict[str, dict[str, SecretStr]] = Field(
        default_factory=dict,
        description="Credentials per beginning of a store address, as JSON; else the environment's.",
    )
    copy_lease_seconds: _Seconds = Field(
        default=60, ge=1, le=3600, description="How long a copy that does not report is believed to be alive."
    )
    copy_poll_seconds: _Seconds = Field(
        default=0.2, ge=0.01, le=10, description="How often a copy looks whether it was cancelled."
    )
    copy_stop_seconds_max: _Seconds = Field(
        default=90, ge=1, le=3600, description="How long cancel-job waits for a copy to stop."
    )
    copy_batch_blobs: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Blobs whose names are settled in one write before their copy.",
    )
    copy_requests_at_once: int = Field(
        default=16, ge=1, le=64, description="Requests to a store that one copy has under way at once."
    )
    copy_memory_mebibytes: int = Field(
        default=96,
        ge=16,
        le=65_536,
        description="Memory of one copy for what it has read and not written yet, MiB.",
    )
    copy_reads_back: bool = Field(
        default=True,
        description="Whether each blob is read back from the store, or an export's drive, and compared before "
        "it counts.",
    )
    copies_at_once_max: int = Field(
        default=2, ge=1, le=64, description="Copies that advance-jobs has under way at once."
    )
    copies_per_machine_max: int = Field(
        default=4, ge=1, le=64, description="Copies at once on one machine; one more ends at once, for later."
    )
    copies_per_site_max: int = Field(
        default=16, ge=1, le=1000, description="Copies at once of jobs that ship to one location."
    )
    machine_name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9.-]{0,252})?$",
        description="What this machine is called in Prefect's limits; empty takes a hash of its host name.",
    )
    clock_step_seconds_max: _Seconds = Field(
        default=90_000,
        ge=3_600,
        le=31_536_000,
        description="How far on the clock may be since it was last looked at, before retention stops and asks.",
    )
    alert_webhook_url: str = Field(
        default="", description="Where alerts are posted as JSON, https://…; empty tells Prefect's events alone."
    )
    alert_webhook_token: SecretStr = Field(
        default=SecretStr(""), description="The bearer token that goes with each alert."
    )
    retention_batch_rows: int = Field(default=500, ge=1, le=10_000, description="Jobs deleted in one transaction.")
    retention_cron: str = Field(
        default="0 3 * * *",
        description="When enforce-retention runs, cron in UTC.",
    )
    rotation_cron: str = Field(default="0 4 * * 0", description="When rotate-keys runs, cron in UTC.")
    traces_cron: str = Field(default="0 5 * * 0", description="When find-traces runs, cron in UTC.")
    resealing_batch_rows: int = Field(
        default=500, ge=1, le=10_000, description="Rows that rotate-keys seals anew in one transaction."
    )
    advance_interval_seconds: _Seconds = Field(
        default=60, ge=5, le=3600, description="How often advance-jobs runs."
    )
    advance_rows: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Jobs that one run of advance-jobs takes up per kind of step.",
    )
    history_runs_max: int = Field(
        default=500, ge=1, le=100_000, description="Flow runs of deleted jobs that one run forgets at most."
    )
    prefect_port: int = Field(
        default=4200, ge=0, le=65_535, description="Port of the Prefect server that `drivepost up` starts."
    )

    api_host: str = Field(
        default="127.0.0.1", min_length=1, description="The address that the REST API listens on."
    )
    api_port: int = Field(default=8000, ge=0, le=65_535, description="Port of the REST API; 0 takes a free one.")
    api_processes: int = Field(default=1, ge=1, le=64, description="Processes that serve the REST API.")
    api_requests_per_minute: int = Field(
        default=1200, ge=1, le=1_000_000, description="Requests that one caller may make, per process of the API."
    )
    api_issuer: str = Field(
        default="",
        description="The OIDC issuer of the tokens; empty takes the one token that 'drivepost token' shows.",
    )
    api_audience: str = Field(default="", description="The audience that a token of the issuer must be made for.")
    api_jwks_url: str = Field(default="", description="Where the issuer's keys are, as JSON Web Key Set.")
    api_user_claim: str = Field(
        default="sub", min_length=1, description="The claim that names the user, such as oid in Entra."
    )
    api_roles_claim: str = Field(
        default="roles", min_length=1, description="The claim that lists the roles: customer, operator."
    )
    api_subscriptions_claim: str = Field(
        default="subscriptions", min_length=1, description="The claim that lists a customer's subscriptions."
    )
    api_tls_certificate_file: Path | None = Field(
        default=None, description="The certificate of the REST API, PEM, with those above it."
    )
    api_tls_key_file: Path | None = Field(default=None, description="The private key of that certificate, PEM.")
    api_behind_proxy: bool = Field(
        default=False,
        description="A proxy in front of the REST API speaks TLS with its callers; its X-Forwarded headers count.",
    )

    @field_validator("database_url")
    @classmethod
    def _is_a_database_we_know(cls, url: str) -> str:
        if not url:
            return url
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # the text of the second repeats what stands for a port
            raise ValueError("is no database address; write postgresql://user@host/name") from None
        if parsed.drivername not in _DRIVERS:
            raise ValueError("must begin with sqlite:/// or postgresql://")
        if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
            raise ValueError("a database in memory would be gone with the first run; name a file")
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_absolute():
            raise ValueError("must name its file by an absolute path, as sqlite:////srv/drivepost.db")
        return url

    @field_validator(
        "data_directory",
        "bay_directory",
        "intake_directory",
        "locations_file",
        "sealing_key_file",
        "api_tls_certificate_file",
        "api_tls_key_file",
    )
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be an absolute path: the processes of Drivepost have other working directories")
        return path

    @field_validator("retention_cron", "rotation_cron", "traces_cron")
    @classmethod
    def _is_cron_expression(cls, text: str) -> str:
        # A sixth field would be seconds, which Prefect does not know.
        if len(text.split()) != 5 or not is_cron(text):
            raise ValueError("is no cron expression; write minute, hour, day, month and weekday, as 0 3 * * *")
        return text

    @field_validator("stores", "default_store")
    @classmethod
    def _are_addresses(cls, value: dict[str, str] | str) -> dict[str, str] | str:
        for address in value.values() if isinstance(value, dict) else [value]:
            if address and not is_store_address(address):
                raise ValueError(
                    "must be a store's address: file:///srv/blobs, az://{container} or another form of Azure's, "
                    "or s3://bucket; no other kind of store is built"
                )
        return value

    @field_validator("store_credentials")
    @classmethod
    def _are_known_options(cls, value: dict[str, dict[str, SecretStr]]) -> dict[str, dict[str, SecretStr]]:
        for beginning, options in value.items():
            known = STORE_OPTIONS.get(urlsplit(beginning).scheme)
            if known is None:
                raise ValueError("must name each store by the beginning of its address, as s3://bucket or az://")
            if not options or not known >= options.keys():
                raise ValueError(f"must give each store some of its options: {', '.join(sorted(known))}")
        return value

    @field_validator("api_jwks_url", "alert_webhook_url")
    @classmethod
    def _is_safe_to_ask(cls, url: str) -> str:
        parts = urlsplit(url)
        is_here = parts.scheme == "http" and parts.hostname in LOOPBACK
        if url and not (parts.hostname and (parts.scheme == "https" or is_here)):
            raise ValueError("must be an address that begins with https://; http:// is for this machine alone")
        return url

    @field_validator("alert_webhook_token")
    @classmethod
    def _goes_into_a_header(cls, token: SecretStr) -> SecretStr:
        if not (token.get_secret_value().isascii() and token.get_secret_value().isprintable()):
            raise ValueError("must be printable ASCII characters alone: it goes into a header")
        return token

    @model_validator(mode="after")
    def _issuer_is_known_in_full(self) -> Self:
        if len({bool(each) for each in (self.api_issuer, self.api_audience, self.api_jwks_url)}) > 1:
            raise ValueError(
                "DRIVEPOST_API_ISSUER: goes with DRIVEPOST_API_AUDIENCE and DRIVEPOST_API_JWKS_URL; set all three"
            )
        if (self.api_tls_certificate_file is None) != (self.api_tls_key_file is None):
            raise ValueError("DRIVEPOST_API_TLS_CERTIFICATE_FILE: goes with DRIVEPOST_API_TLS_KEY_FILE; set both")
        return self

    @model_validator(mode="after")
    def _listens_where_it_is_safe(self) -> Self:
        if self.api_host in LOOPBACK:
            if self.api_behind_proxy and not self.api_issuer:
                raise ValueError(
                    "DRIVEPOST_API_BEHIND_PROXY: needs the tokens of an issuer; set DRIVEPOST_API_ISSUER"
                )
            return self
        if not self.api_issuer:
            raise ValueError(
                "DRIVEPOST_API_HOST: beyond this machine tokens of an issuer are needed; set DRIVEPOST_API_ISSUER"
            )
        if self.api_tls_certificate_file is None and not self.api_behind_proxy:
            raise ValueError(
                "DRIVEPOST_API_HOST: beyond this machine TLS is needed; set DRIVEPOST_API_TLS_CERTIFICATE_FILE "
                "and DRIVEPOST_API_TLS_KEY_FILE, or DRIVEPOST_API_BEHIND_PROXY=true where a proxy speaks it"
            )
        return self

    @model_validator(mode="after")
    def _lease_outlives_its_polls(self) -> Self:
        if self.copy_lease_seconds < 2 * self.copy_poll_seconds:
            raise ValueError("DRIVEPOST_COPY_LEASE_SECONDS: must be at least twice DRIVEPOST_COPY_POLL_SECONDS")
        return self


class Settings(_Fields):
    """The settings in force, read from the environment when made.

    Raises:
        SettingsError: values are impossible; the text names each variable.
    """

    def __init__(self) -> None:
        try:
            super().__init__()
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False, include_context=False)
            raise SettingsError("; ".join(fault_of(list(f["loc"]), f["msg"]) for f in faults)) from None
        except NoJsonError as error:
            if '"store_credentials"' in str(error):
                raise SettingsError(
                    'DRIVEPOST_STORE_CREDENTIALS: is no JSON object {"address": {"option": "value", …}, …}'
                ) from None
            raise SettingsError('DRIVEPOST_STORES: is no JSON object {"account": "address", …}') from None

    @property
    def database(self) -> str:
        """The database's address with its driver."""
        if not self.database_url:
            return f"sqlite:///{self.data_directory / 'drivepost.db'}"
        url = make_url(self.database_url)
        if url.drivername in {"postgres", "postgresql"}:
            url = url.set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)

    @property
    def machine(self) -> str:
        """What this machine is called in Prefect; a host's name may be made of a person's."""
        return self.machine_name or sha256(platform.node().encode()).hexdigest()[:8]

    @property
    def key_file(self) -> Path:
        """The file with the sealing keys."""
        return self.sealing_key_file or self.data_directory / "keys" / "sealing.keys"

    @property
    def token_file(self) -> Path:
        """The file with the one token of the embedded default."""
        return self.data_directory / "keys" / "api.token"

    @property
    def bay(self) -> Path:
        """The folder where drives are mounted."""
        return self.bay_directory or self.data_directory / "bay"

    @property
    def intake(self) -> Path:
        """The folder where request files are put."""
        return self.intake_directory or self.data_directory / "intake"

    @property
    def exports(self) -> Path:
        """The folder where exported portal settings are put."""
        return self.data_directory / "exports"

    def store_address(self, storage_account_id: str) -> str:
        """Find the address of a storage account's blobs; `{container}` in it is still open.

        Args:
            storage_account_id: the account's resource id; resource ids compare without regard to case.
        """
        account = storage_account_id.rstrip("/").rsplit("/", 1)[-1].lower()
        named = {name.lower(): address for name, address in self.stores.items()}
        address = named.get(storage_account_id.lower()) or named.get(account) or self.default_store
        if not address:
            address = (self.data_directory / "store").as_uri() + "/{account}"
        if "{account}" not in address and address == self.default_store:
            address = address.rstrip("/") + "/{account}"
        if "{container}" not in address:
            address = address.rstrip("/") + "/{container}"
        return address.replace("{account}", account)

    def credentials_of(self, address: str) -> dict[str, str]:
        """Find the credentials of a store, in clear; empty where the environment is to be asked.

        Args:
            address: as `store_address` gives it; the longest beginning that is known counts.
        """
        known = [beginning for beginning in self.store_credentials if begins_with(address, beginning)]
        options = self.store_credentials[max(known, key=len)] if known else {}
        return {name: value.get_secret_value() for name, value in options.items()}
