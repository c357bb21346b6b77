"""Settings: an impossible value stops the start, names its variable, and is not repeated."""

import json
import os
from itertools import combinations, product
from pathlib import Path
from typing import Final

import pytest

from models.errors import SettingsError
from models.settings import Settings, _Fields
from tests.builders import ACCOUNT

SECRET: Final = "hunter2secret"  # noqa: S105  made up

CRON: Final = (
    [
        *("", "daily", "0 3 * *", "0 3 * * * *", "60 3 * * *", "0 24 * * *", "0 3 0 * *", "0 3 * 13 *"),
        *("0 3 * * 8", "*/0 3 * * *", "5-1 3 * * *", "a b c d e", "0 3 * * *;"),
    ],
    ["0 3 * * *", "*/15 0-6,22 1,15 1-12/2 0-7"],
)
# Every bound, copied by hand from what each promises: variable -> refused, allowed.
BOUNDS: Final = {
    "CLOCK_STEP_SECONDS_MAX": (["3599", "31536001", "nan"], ["3600", "31536000"]),
    "ALERT_WEBHOOK_URL": (
        ["http://alerts.example/hook", "ftp://alerts.example", "https://", "alerts"],
        ["", "https://alerts.example/hook", "http://127.0.0.1:9000/hook"],
    ),
    "ALERT_WEBHOOK_TOKEN": (["ä", "two\nlines", "€"], ["", "abc.DEF-123_~+/="]),
    "DATABASE_WAIT_SECONDS_MAX": (["0", "-1", "600.1", "nan", "inf", "x", ""], ["0.1", "600"]),
    "COPY_LEASE_SECONDS": (["0.9", "3601", "nan", "soon"], ["1", "3600"]),
    "COPY_POLL_SECONDS": (["0.009", "10.1", "nan"], ["0.01", "10"]),
    "COPY_STOP_SECONDS_MAX": (["0", "3601"], ["1", "3600"]),
    "COPY_BATCH_BLOBS": (["0", "10001", "1.5"], ["1", "10000"]),
    "COPY_REQUESTS_AT_ONCE": (["0", "65", "1.5"], ["1", "64"]),
    "COPY_MEMORY_MEBIBYTES": (["15", "65537"], ["16", "65536"]),
    "COPY_READS_BACK": (["", "maybe", "2"], ["true", "false", "0"]),
    "COPIES_AT_ONCE_MAX": (["0", "65"], ["1", "64"]),
    "COPIES_PER_MACHINE_MAX": (["0", "65"], ["1", "64"]),
    "COPIES_PER_SITE_MAX": (["0", "1001"], ["1", "1000"]),
    "MACHINE_NAME": (["a b", "a/b", "-a", "a" * 254], ["", "node-1.example", "a" * 253]),
    "RETENTION_BATCH_ROWS": (["0", "10001", "many"], ["1", "10000"]),
    "ADVANCE_INTERVAL_SECONDS": (["4.9", "3601"], ["5", "3600"]),
    "ADVANCE_ROWS": (["0", "10001"], ["1", "10000"]),
    "HISTORY_RUNS_MAX": (["0", "100001"], ["1", "100000"]),
    "PREFECT_PORT": (["-1", "65536", "http"], ["0", "65535"]),
    "RETENTION_CRON": CRON,
    "ROTATION_CRON": CRON,
    "TRACES_CRON": CRON,
    "RESEALING_BATCH_ROWS": (["0", "10001", "many"], ["1", "10000"]),
    "DATABASE_URL": (
        [
            *(f"mysql://u:{SECRET}@h/d", f"postgresql://u:{SECRET}@h:{SECRET}/d", SECRET),
            *("sqlite://", "sqlite:///:memory:", "sqlite:///a.db", f"postgresql+asyncpg://u:{SECRET}@h/d"),
        ],
        ["", "postgresql://u:p@h:5432/d", "postgres://h/d", "postgresql+psycopg://h/d", "sqlite:////tmp/a.db"],
    ),
    "STORES": (
        [f"{{{SECRET}", "[1]", '{"account1": 5}', f'{{"account1": "{SECRET}"}}'],
        [
            "{}",
            *(
                '{"account1": "s3://bucket/x"}',
                '{"account1": "https://{account}.blob.core.windows.net/{container}"}',
            ),
            *(
                '{"account1": "abfss://{container}@one.dfs.core.windows.net"}',
                '{"account1": "azure://{container}"}',
            ),
        ],
    ),
    "STORE_CREDENTIALS": (
        [
            *(f"{{{SECRET}", "[1]", f'"{SECRET}"', f'{{"s3://": "{SECRET}"}}', '{"s3://": {}}'),
            *(f'{{"s3://": {{"{SECRET}": "x"}}}}', f'{{"s3://": {{"account_key": "{SECRET}"}}}}'),
            *(f'{{"account1": {{"account_key": "{SECRET}"}}}}', f'{{"file://": {{"endpoint": "{SECRET}"}}}}'),
            f'{{"s3://": {{"region": ["{SECRET}"]}}}}',
        ],
        ["{}", '{"s3://": {"access_key_id": "x"}, "https://one.blob.core.windows.net": {"account_key": "x"}}'],
    ),
    "DATA_DIRECTORY": (["data", "./data"], ["/srv/data"]),
    "BAY_DIRECTORY": (["bay"], ["/srv/bay"]),
    "INTAKE_DIRECTORY": (["intake"], ["/srv/intake"]),
    "LOCATIONS_FILE": (["locations.json"], ["/srv/locations.json"]),
    # Beyond this machine only with what is said of it below.
    "API_HOST": (
        ["", "0.0.0.0", "::", "10.0.0.1", "drivepost.example", " 127.0.0.1", "127.0.0.1.example"],  # noqa: S104
        ["127.0.0.1", "::1", "localhost"],
    ),
    "API_PORT": (["-1", "65536", "http", "80.5", ""], ["0", "65535"]),
    "API_PROCESSES": (["0", "65", "two"], ["1", "64"]),
    "API_REQUESTS_PER_MINUTE": (["0", "-1", "1000001", "1.5"], ["1", "1000000"]),
    # Alone; with the other two, below.
    "API_ISSUER": (["https://issuer.example"], [""]),
    "API_AUDIENCE": ([], [""]),
    "API_JWKS_URL": (
        [
            *(SECRET, f"http://{SECRET}.example/keys", "http://localhost.example/keys", "ftp://127.0.0.1/keys"),
            *("https://", "https:///keys", "file:///keys", "//issuer.example/keys", "127.0.0.1/keys"),
            *(f"http://127.0.0.1@{SECRET}.example/keys", f"http://{SECRET}[::1/keys", "http://10.0.0.1/keys"),
        ],
        [""],
    ),
    "API_USER_CLAIM": ([""], ["oid"]),
    "API_ROLES_CLAIM": ([""], ["groups"]),
    "API_SUBSCRIPTIONS_CLAIM": ([""], ["https://issuer.example/subscriptions"]),
    "API_TLS_CERTIFICATE_FILE": (["certificate.pem", "./certificate.pem", "/srv/certificate.pem"], []),
    "API_TLS_KEY_FILE": (["key.pem", "./key.pem"], []),
    "API_BEHIND_PROXY": (["", "maybe", "2", "true", "1"], ["false", "0"]),
    "DEFAULT_STORE": (
        [
            *(SECRET, "/srv/blobs", "ftp://x", "bogus://x/{container}", "s3:", "gs://bucket", "memory:///x"),
            *(
                "https://bucket.s3.eu-north-1.amazonaws.com",
                "https://storage.googleapis.com/x",
                f"https://{SECRET}[/",
            ),
        ],
        ["", "file:///srv/blobs", "az://x"],
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that says nothing but where the data are."""
    for name in [name for name in os.environ if name.startswith("DRIVEPOST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRIVEPOST_DATA_DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", BOUNDS)
def test_an_impossible_value_stops_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the variable and does not repeat the value; what is at the bound passes."""
    refused, allowed = BOUNDS[name]
    for value in refused:
        monkeypatch.setenv(f"DRIVEPOST_{name}", value)
        with pytest.raises(SettingsError, match=f"^DRIVEPOST_{name}: .+") as error:
            Settings()
        assert SECRET not in f"{error.value} {error.value!r} {error.value.__cause__!r}"
    for value in allowed:
        monkeypatch.setenv(f"DRIVEPOST_{name}", value)
        assert Settings()


def test_every_impossible_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start is enough to set them right."""
    for name in ("PREFECT_PORT", "ADVANCE_ROWS", "DEFAULT_STORE"):
        monkeypatch.setenv(f"DRIVEPOST_{name}", SECRET)
    with pytest.raises(SettingsError) as error:
        Settings()
    for name in ("PREFECT_PORT", "ADVANCE_ROWS", "DEFAULT_STORE"):
        assert f"DRIVEPOST_{name}: " in str(error.value)
    assert error.value.code == "SettingsInvalid"


def test_a_lease_outlives_two_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a copy that is alive would be taken for dead."""
    monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "5")
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "9.9")
    with pytest.raises(SettingsError, match=r"^DRIVEPOST_COPY_LEASE_SECONDS: must be at least twice"):
        Settings()
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "10")
    assert Settings().copy_lease_seconds == 10


ISSUER: Final = {
    "ISSUER": "https://issuer.example",
    "AUDIENCE": "drivepost",
    "JWKS_URL": "https://issuer.example/keys",
}
TLS: Final = {"TLS_CERTIFICATE_FILE": "/srv/certificate.pem", "TLS_KEY_FILE": "/srv/key.pem"}
PROXY: Final = {"BEHIND_PROXY": "true"}


def with_api(patch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """Set what concerns the REST API, and nothing else of it."""
    for name in [name for name in os.environ if name.startswith("DRIVEPOST_API_")]:
        patch.delenv(name)
    for name, value in settings.items():
        patch.setenv(f"DRIVEPOST_API_{name}", value)


def subsets(settings: dict[str, str]) -> list[dict[str, str]]:
    """Give all parts of some settings that are neither empty nor whole."""
    sizes = range(1, len(settings))
    return [dict(chosen) for size in sizes for chosen in combinations(settings.items(), size)]


def test_an_issuer_is_known_in_full_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who issues, for whom, and where the keys are; a part of it would take tokens that nobody checked."""
    for part in subsets(ISSUER):
        for blank in ({}, dict.fromkeys(ISSUER.keys() - part.keys(), "")):
            with_api(monkeypatch, {**part, **blank})
            with pytest.raises(SettingsError, match=r"^DRIVEPOST_API_ISSUER: .* set all three$"):
                Settings()
    for whole in (ISSUER, dict.fromkeys(ISSUER, ""), {}):
        with_api(monkeypatch, whole)
        assert bool(Settings().api_issuer) is (whole == ISSUER)
    for url in ("http://127.0.0.1:9/keys", "http://localhost/keys", "http://[::1]:9/keys", "HTTPS://a.example"):
        with_api(monkeypatch, {**ISSUER, "JWKS_URL": url})
        assert Settings().api_jwks_url == url


def test_a_certificate_goes_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either alone would serve in clear what was meant to be sealed."""
    for part in subsets(TLS):
        with_api(monkeypatch, part)
        with pytest.raises(SettingsError, match=r"^DRIVEPOST_API_TLS_CERTIFICATE_FILE: .* set both$"):
            Settings()
    with_api(monkeypatch, TLS)
    assert Settings().api_tls_key_file == Path("/srv/key.pem")


HOSTS_BEYOND: Final = ("0.0.0.0", "::", "10.0.0.1", "drivepost.example")  # noqa: S104


@pytest.mark.parametrize("host", HOSTS_BEYOND)
def test_the_api_listens_beyond_this_machine_only_where_it_is_safe(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tokens of an issuer, and either TLS of its own or a proxy that speaks it; else it does not start."""
    for issuer, tls, proxy in product((False, True), repeat=3):
        chosen = {**(ISSUER if issuer else {}), **(TLS if tls else {}), **(PROXY if proxy else {})}
        with_api(monkeypatch, {"HOST": host, **chosen})
        if issuer and (tls or proxy):
            assert Settings().api_host == host
            continue
        missing = "BEHIND_PROXY" if issuer else "ISSUER"
        with pytest.raises(SettingsError, match=rf"^DRIVEPOST_API_HOST: .*set .*DRIVEPOST_API_{missing}"):
            Settings()
    with_api(monkeypatch, {"HOST": host, **ISSUER, "BEHIND_PROXY": "false"})
    with pytest.raises(SettingsError, match=r"^DRIVEPOST_API_HOST: beyond this machine TLS is needed"):
        Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_the_api_needs_nothing_beside(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default; and what is needed elsewhere is no hindrance."""
    with_api(monkeypatch, {})
    assert (Settings().api_host, Settings().api_port) == ("127.0.0.1", 8000)
    for chosen in ({}, ISSUER, TLS, {**ISSUER, **PROXY}, {**ISSUER, **TLS, **PROXY}):
        with_api(monkeypatch, {"HOST": host, **chosen})
        assert Settings().api_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_a_proxy_lets_in_needs_an_issuer(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one token of the embedded default is for this machine alone."""
    with_api(monkeypatch, {"HOST": host, **PROXY})
    with pytest.raises(SettingsError, match=r"^DRIVEPOST_API_BEHIND_PROXY: .*set DRIVEPOST_API_ISSUER"):
        Settings()


def test_the_token_lies_with_the_keys(folder: Path) -> None:
    """In the data directory."""
    assert Settings().token_file == folder / "keys" / "api.token"


def test_every_setting_is_said_in_a_line_and_has_a_test_of_its_bounds() -> None:
    """A new one is not forgotten."""
    paths = {"DATA_DIRECTORY", "BAY_DIRECTORY", "INTAKE_DIRECTORY", "LOCATIONS_FILE", "SEALING_KEY_FILE"}
    assert {name.upper() for name in _Fields.model_fields} <= set(BOUNDS) | paths | {"SEALING_KEYS"}
    for name, field in _Fields.model_fields.items():
        assert field.description, name
        assert len(field.description) < 130, name
        assert field.description.endswith("."), name


def test_the_default_keeps_everything_in_the_data_directory(folder: Path) -> None:
    """Database, bay, intake, exports and store."""
    settings = Settings()
    assert settings.database == f"sqlite:///{folder}/drivepost.db"
    assert (settings.bay, settings.intake, settings.exports) == (
        folder / "bay",
        folder / "intake",
        folder / "exports",
    )
    assert settings.store_address(ACCOUNT) == f"file://{folder}/store/account1/{{container}}"


def test_the_bay_and_the_intake_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a mount of their own."""
    monkeypatch.setenv("DRIVEPOST_BAY_DIRECTORY", "/media")
    monkeypatch.setenv("DRIVEPOST_INTAKE_DIRECTORY", str(tmp_path / "in"))
    assert (Settings().bay, Settings().intake) == (Path("/media"), tmp_path / "in")


@pytest.mark.parametrize("url", ["postgres://u:p%40x@h/d", "postgresql://u:p%40x@h/d"])
def test_a_database_address_gets_its_driver_and_keeps_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the driver needs it."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_URL", url)
    assert Settings().database == "postgresql+psycopg://u:p%40x@h/d"


@pytest.mark.parametrize(
    ("stores", "default", "address"),
    [
        ("{}", "file:///srv", "file:///srv/account1/{container}"),
        ("{}", "file:///srv/", "file:///srv/account1/{container}"),
        ("{}", "s3://b-{account}", "s3://b-account1/{container}"),
        ("{}", "az://{container}?account={account}", "az://{container}?account=account1"),
        ('{"account1": "s3://mine"}', "file:///srv", "s3://mine/{container}"),
        ('{"ACCOUNT1": "s3://mine/{container}/x"}', "", "s3://mine/{container}/x"),
        (f'{{"{ACCOUNT.upper()}": "s3://full", "account1": "s3://short"}}', "", "s3://full/{container}"),
        ('{"account2": "s3://other"}', "file:///srv", "file:///srv/account1/{container}"),
    ],
)
def test_a_storage_account_has_one_address(
    stores: str, default: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its resource id, else its name, else the default; in any case of letters."""
    monkeypatch.setenv("DRIVEPOST_STORES", stores)
    monkeypatch.setenv("DRIVEPOST_DEFAULT_STORE", default)
    for account in (ACCOUNT, ACCOUNT.upper()):
        assert Settings().store_address(account) == address


CREDENTIALS: Final = {
    "https://one.blob.core.windows.net": {"account_key": SECRET},
    "s3://": {"region": "eu-north-1"},
    "s3://bucket": {"access_key_id": "me", "secret_access_key": SECRET},
}


@pytest.mark.parametrize(
    ("address", "beginning"),
    [
        ("https://one.blob.core.windows.net/{container}", "https://one.blob.core.windows.net"),
        ("https://one.blob.core.windows.net.example/{container}", None),
        ("https://two.blob.core.windows.net/{container}", None),
        ("s3://bucket/{container}", "s3://bucket"),
        ("s3://bucket-too/{container}", "s3://"),
        ("s3://{container}", "s3://"),
        ("az://{container}", None),
        ("file:///srv/{container}", None),
    ],
)
def test_a_key_is_given_to_its_own_store_alone(
    address: str, beginning: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest beginning counts, by whole segments; nothing shows a key by chance."""
    monkeypatch.setenv("DRIVEPOST_STORE_CREDENTIALS", json.dumps(CREDENTIALS))
    settings = Settings()
    assert settings.credentials_of(address) == (CREDENTIALS[beginning] if beginning else {})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_settings_do_not_change_under_way() -> None:
    """What was read holds."""
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.prefect_port = 1  # type: ignore[misc]
