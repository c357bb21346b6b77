"""What the production guide, the compose file and the manifests name is what there is."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prefect.cli._app import _app as prefect_app
from prefect.settings import Settings as PrefectSettings
from pydantic import AliasChoices, BaseModel

from deployments.cli import app as drivepost_app
from deployments.deploy import CLOCK_PLACES, QUEUES
from deployments.processes import _SERVER_ENVIRONMENT
from models.settings import Settings

FOLDER: Final = Path(__file__).parents[2] / "deployments" / "production"
MANIFESTS: Final = sorted((FOLDER / "kubernetes").glob("*.yaml"))
GUIDE: Final = (FOLDER / "guide.md").read_text("utf-8")
POOL: Final = "machines"
NOT_IN_PREFECT_ITSELF: Final = {"PREFECT_REDIS_MESSAGING_URL"}
"""Of prefect-redis, which is in the image alone."""
OTHERS: Final = {"DO_NOT_TRACK", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
UI_ASKS: Final = "PREFECT_SERVER_UI_API_URL"
SECRET: Final = re.compile(r"PASSWORD|AUTH_STRING|SEALING_KEYS|CREDENTIALS|_URL$")


def _prefect_variables(model: type[BaseModel] = PrefectSettings, prefix: str = "prefect") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _prefect_variables(field.annotation, f"{prefix}_{name}")
        yield f"{prefix}_{name}".upper()
        aliases = field.validation_alias
        if isinstance(aliases, AliasChoices):
            yield from (each.upper() for each in aliases.choices if isinstance(each, str))


PREFECT: Final = set(_prefect_variables()) | NOT_IN_PREFECT_ITSELF
DRIVEPOST: Final = {f"DRIVEPOST_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Give the compose file, as YAML reads it."""
    read: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
    return read


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """Give all manifests, one object after the other."""
    return [each for file in MANIFESTS for each in yaml.safe_load_all(file.read_text("utf-8"))]


def _of(objects: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def _pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: each["spec"]["template"]["spec"] for name, each in _of(objects, "Job", "Deployment").items()}


def _containers(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: container for name, pod in _pods(objects).items() for container in pod["containers"]}


def _variables(objects: list[dict[str, Any]], container: dict[str, Any]) -> dict[str, str]:
    """Resolve what a container's environment holds; secrets and fields are empty."""
    maps = _of(objects, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]["data"]
    return found | {each["name"]: each.get("value", "") for each in container.get("env", [])}


def _commands(compose: dict[str, Any], objects: list[dict[str, Any]]) -> Iterator[list[str]]:
    for service in compose["services"].values():
        yield service.get("command", [])
    for container in _containers(objects).values():
        yield container["command"]
    fences = GUIDE.split("```")
    spans = [span for text in fences[::2] for span in text.split("`")[1::2]]
    for line in chain(spans, *(fence.splitlines() for fence in fences[1::2])):
        yield line.removeprefix("PREFECT_API_URL=… ").split()


def test_every_variable_is_a_setting(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """Of Drivepost, of Prefect, or one of those few that others read; in the guide, too."""
    named = {name for service in compose["services"].values() for name in service.get("environment", {})}
    for container in _containers(objects).values():
        named |= _variables(objects, container).keys()
    named |= {each.rstrip("_") for each in re.findall(r"(?:DRIVEPOST|PREFECT)_[A-Z_]+(?!\*)\b", GUIDE)}
    own = {"PREFECT_AUTH"}  # of compose.yaml alone
    assert named - own - {"DRIVEPOST"} <= DRIVEPOST | PREFECT | OTHERS
    assert len(named & DRIVEPOST) > 8
    assert len(named & PREFECT) > 10


@pytest.mark.parametrize("wrong", ["PREFECT_SERVER_CONCURENCY", "PREFECT_API_AUTH", "DRIVEPOST_DATABASE"])
def test_a_variable_that_is_none_would_be_found(wrong: str) -> None:
    """The lists hold whole names."""
    assert wrong not in DRIVEPOST | PREFECT | OTHERS


def test_every_setting_is_possible_together(
    compose: dict[str, Any], objects: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each part is given, secrets filled in, makes Settings that start."""
    filled = {
        "DRIVEPOST_DATABASE_URL": "postgresql://user:word@host/name",
        "DRIVEPOST_SEALING_KEYS": f"1:{'0a' * 32}",
        "DRIVEPOST_DEFAULT_STORE": "https://account.blob.core.windows.net/{container}",
        "DRIVEPOST_STORE_CREDENTIALS": "{}",
        "DRIVEPOST_MACHINE_NAME": "node-1.example",
        "DRIVEPOST_API_ISSUER": "https://issuer.example/",
        "DRIVEPOST_API_AUDIENCE": "drivepost",
        "DRIVEPOST_API_JWKS_URL": "https://issuer.example/keys",
    }
    given = [service.get("environment", {}) for service in compose["services"].values()]
    given += [_variables(objects, container) for container in _containers(objects).values()]
    for environment in given:
        ours = {name: value for name, value in environment.items() if name.startswith("DRIVEPOST_")}
        with monkeypatch.context() as patch:
            for name, value in ours.items():
                patch.setenv(name, filled.get(name, value) if "${" in value or not value else value)
            assert Settings()


def test_every_command_is_one_that_there_is(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """Commands and options, of Drivepost's command line and of Prefect's."""
    seen = set()
    for command in _commands(compose, objects):
        if not command or command[0] not in {"drivepost", "prefect"}:
            continue
        app = drivepost_app if command[0] == "drivepost" else prefect_app
        if command[1:] == ["deploy"]:
            continue  # spoken of, not called
        app.parse_args(command[1:], print_error=False, exit_on_error=False)
        seen.add(tuple(command[1:4]))
    assert {("database", "upgrade"), ("deploy", "--pool", POOL), ("api",)} <= seen
    assert {("worker", "start", "--pool"), ("server", "services", "start")} <= seen


def test_workers_take_every_queue_and_the_clock_has_places_of_its_own(
    compose: dict[str, Any], objects: list[dict[str, Any]]
) -> None:
    """By `--work-queue`, each with a limit; nothing else is taken where the clock's runs are."""
    for commands in (
        [each.get("command", []) for each in compose["services"].values()],
        [each["command"] for each in _containers(objects).values()],
    ):
        workers = [each for each in commands if each[:3] == ["prefect", "worker", "start"]]
        queues = [[b for a, b in pairwise(each) if a == "--work-queue"] for each in workers]
        assert sorted(chain.from_iterable(queues)) == sorted(QUEUES)
        for worker, taken in zip(workers, queues, strict=True):
            assert worker[worker.index("--pool") + 1] == POOL
            limit = int(worker[worker.index("--limit") + 1])
            assert limit == CLOCK_PLACES if taken == ["clock"] else limit > 2


def test_images_are_pinned(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """To a version of at least two numbers; ours to the one of the package."""
    images = {each["image"] for each in compose["services"].values()}
    images |= {each["image"] for each in _containers(objects).values()}
    images |= set(re.findall(r"^FROM (\S+)", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    assert [each for each in images if not re.fullmatch(r"[a-z]+:\d+\.\d+[\w.-]*", each)] == []
    assert f"drivepost:{version('drivepost')}" in images


def test_no_secret_stands_in_clear(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """In compose they come from the environment, in the manifests by reference."""
    open_addresses = {"PREFECT_API_URL", "PREFECT_REDIS_MESSAGING_URL", "PREFECT_SERVER_DOCKET_URL", UI_ASKS}
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) and name not in open_addresses:
                assert "${" in value, name
                assert ":?" in value, name
    for each in _of(objects, "ConfigMap").values():
        secrets = {name for name in each["data"] if SECRET.search(name)}
        assert secrets <= {"PREFECT_API_URL", "DRIVEPOST_API_JWKS_URL", UI_ASKS}
    for container in _containers(objects).values():
        assert all("valueFrom" in each for each in container["env"])
    assert not _of(objects, "Secret")


def test_everything_that_is_referred_to_is_there(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """Services, volumes and configs of compose; maps, claims, volumes, services and secrets of the manifests."""
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= compose["services"].keys()
        assert {each["source"] for each in service.get("configs", [])} <= compose["configs"].keys()
        assert {each.split(":")[0] for each in service.get("volumes", [])} <= compose["volumes"].keys()
    keys = set(re.findall(r"--from-file=([\w-]+)", GUIDE))
    used = set()
    for pod in _pods(objects).values():
        claims = {
            each["persistentVolumeClaim"]["claimName"]
            for each in pod["volumes"]
            if len(each) == 2 and "emptyDir" not in each
        }
        assert claims <= _of(objects, "PersistentVolumeClaim").keys()
        for container in pod["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} <= {
                each["name"] for each in pod["volumes"]
            }
            for each in container["env"]:
                if secret := each["valueFrom"].get("secretKeyRef"):
                    assert secret["name"] == "drivepost-secrets"
                    used.add(secret["key"])
    assert used == keys
    assert "generic drivepost-secrets --namespace drivepost" in GUIDE
    spaces = {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"}
    assert spaces == set(_of(objects, "Namespace")) == {"drivepost"}
    pods = {each["spec"]["template"]["metadata"]["labels"]["app"] for each in _of(objects, "Deployment").values()}
    assert {each["spec"]["selector"]["app"] for each in _of(objects, "Service").values()} <= pods


def test_ports_are_those_of_the_settings(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """Of the API and of Prefect; probes ask where it is listened, and addresses name it."""
    api, prefect = (
        str(Settings.model_fields["api_port"].default),
        str(Settings.model_fields["prefect_port"].default),
    )
    published = {name: each["ports"] for name, each in compose["services"].items() if "ports" in each}
    # For the operators' browser and for the proxy of this machine; everything else is heard inside alone.
    assert published == {"prefect": [f"127.0.0.1:{prefect}:{prefect}"], "api": [f"127.0.0.1:{api}:{api}"]}
    for name, container in _containers(objects).items():
        ports = {each["containerPort"] for each in container.get("ports", [])}
        probes = {
            container[each]["httpGet"]["port"] for each in ("livenessProbe", "readinessProbe") if each in container
        }
        assert probes == ports, name
    services = {
        name: str(each["spec"]["ports"][0]["targetPort"]) for name, each in _of(objects, "Service").items()
    }
    assert services == {"prefect": prefect, "api": api}
    addresses = {
        each["environment"]["PREFECT_API_URL"]
        for each in compose["services"].values()
        if "PREFECT_API_URL" in each.get("environment", {})
    }
    assert addresses | {_of(objects, "ConfigMap")["drivepost-settings"]["data"]["PREFECT_API_URL"]} == {
        f"http://prefect:{prefect}/api"
    }
    assert {_of(objects, "ConfigMap")["drivepost-api"]["data"]["DRIVEPOST_API_PORT"]} == {api}


def test_the_ui_asks_the_server_that_it_came_from(compose: dict[str, Any], objects: list[dict[str, Any]]) -> None:
    """Else an operator's browser, behind a proxy, would ask its own machine; as `drivepost up` has it."""
    servers = [
        each["environment"] for each in compose["services"].values() if "--no-services" in each.get("command", [])
    ]
    servers += [
        _variables(objects, each) for each in _containers(objects).values() if "--no-services" in each["command"]
    ]
    assert [each[UI_ASKS] for each in servers] == [_SERVER_ENVIRONMENT[UI_ASKS]] * 2 == ["/api"] * 2


def test_nothing_runs_as_root_or_writes_to_its_image(
    compose: dict[str, Any], objects: list[dict[str, Any]]
) -> None:
    """What is ours: no privileges, a read-only root, limits of memory, and no account of the cluster."""
    for service in compose["services"].values():
        if service["image"].startswith("drivepost:"):
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
    for name, pod in _pods(objects).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]
    assert re.search(r"^USER 10001:10001$", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE)


def test_the_readme_leads_to_the_guide() -> None:
    """And the guide to what lies beside it."""
    readme = (FOLDER.parents[1] / "README.md").read_text("utf-8")
    assert "(deployments/production/guide.md)" in readme
    for name in re.findall(r"\]\(([\w./]+)\)", GUIDE):
        assert (FOLDER / name).exists(), name
