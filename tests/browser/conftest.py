"""Debian's chromium, and the Prefect UI of a whole Drivepost in it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright  # noqa: A004  its own, of a wait

from tests.journeys.one_machine import awaited, machine_in

_BRING_SECONDS_MAX: Final = 300
_LOOK_SECONDS_MAX: Final = 60
_AGAIN_SECONDS: Final = 8.0
_POLL_MILLISECONDS: Final = 200
_ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
_SIZE: Final = {"width": 1200, "height": 860}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Find Debian's chromium, and bring it where it is missing."""
    if not shutil.which("chromium"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(
                [*sudo, "apt-get", *command], check=False, capture_output=True, timeout=_BRING_SECONDS_MAX
            )
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("there is no chromium, and 'apt-get install -y chromium' did not bring it; install it by hand")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Start the browser."""
    with sync_playwright() as playwright:
        started_browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield started_browser
        started_browser.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, prefect_tables: Path) -> Iterator[Mapping[str, str]]:
    """Start all of Drivepost on one machine, and let tests see its database; gives its settings."""
    # Each run is a process of its own, and the clock's would be most of them.
    rare = {"DRIVEPOST_ADVANCE_INTERVAL_SECONDS": "3600"}
    with machine_in(tmp_path_factory.mktemp("portal"), prefect_tables, **rare) as (_, environment):
        yield environment


class Portal:
    """The Prefect UI as an operator sees it.

    Args:
        page: of the browser.
        port: of Prefect's server.
        screenshots: the folder that takes them.
    """

    def __init__(self, page: Page, port: str, screenshots: Path) -> None:
        self.page = page
        self.url = f"http://127.0.0.1:{port}"
        self._screenshots = screenshots

    def open(self, path: str) -> None:
        """Go to a page."""
        self.page.goto(f"{self.url}{path}")

    def open_deployment(self, name: str, then: str = "") -> None:
        """Go to a deployment, or to what lies below it."""
        found = httpx.get(f"{self.url}/api/deployments/name/{name}/{name}").raise_for_status().json()
        self.open(f"/deployments/deployment/{found['id']}{then}")

    def run(self, deployment: str, *typed: str, ticks: int = 0) -> None:
        """Fill in a deployment's form and send it; then go to the run.

        Args:
            deployment: its name.
            typed: what is typed into its fields, in their order.
            ticks: how many of its switches are set, from the first on.
        """
        self.open_deployment(deployment, "/run")
        self.page.get_by_role("button", name="Submit").wait_for()
        for number, text in enumerate(typed):
            self.page.locator("textarea").nth(number).fill(text)
        for number in range(ticks):
            self.page.locator("input[type=checkbox]").nth(number).dispatch_event("click")
        before = set(self._runs_of(deployment))
        self.page.get_by_role("button", name="Submit").click()
        # The page tells of the run for a few seconds, which a busy machine may take to draw it.
        give_up = time.monotonic() + _LOOK_SECONDS_MAX
        while not (made := set(self._runs_of(deployment)) - before):
            assert time.monotonic() < give_up, f"no run was made: {self.page.inner_text('body')}"
            self.page.wait_for_timeout(_POLL_MILLISECONDS)
        (run_id,) = made
        # Drawn before, the page would not look again for the run's last line.
        awaited(lambda: self._has_ended(run_id))
        self.open(f"/runs/flow-run/{run_id}")

    def _has_ended(self, run_id: str) -> bool:
        """Tell whether the last line of a run's log has come."""
        lines = self.ask("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}})
        return any("Finished in state" in line["message"] and not line["task_run_id"] for line in lines)

    def _runs_of(self, flow: str) -> list[str]:
        """Find the runs of a flow that were asked for."""
        return [run["id"] for run in self.ask("/flow_runs/filter", flows={"name": {"any_": [flow]}})]

    def see(self, text: str) -> None:
        """Wait until a text is to be seen."""
        give_up = time.monotonic() + _LOOK_SECONDS_MAX
        while not self.shows(text):
            assert time.monotonic() < give_up, f"{text!r} never came: {self.page.inner_text('body')}"
            self.page.reload()

    def shows(self, text: str) -> bool:
        """Tell whether a text comes to be seen within a few seconds."""
        try:
            self.page.get_by_text(text).first.wait_for(timeout=_AGAIN_SECONDS * 1000)
        except TimeoutError:
            return False
        return True

    def search(self, path: str, placeholder: str, text: str) -> None:
        """Search a list of the UI for a text."""
        self.open(path)
        # Of two that a page may have, for narrow and wide windows.
        self.page.get_by_placeholder(placeholder).last.fill(text)

    def open_artifact(self, key: str) -> None:
        """Go to the newest artifact of a key, by the list of all."""
        self.search("/artifacts", "Search artifacts", key)
        self.page.get_by_text(key, exact=True).first.click()
        self.page.wait_for_url(f"**/key/{key}")
        self.page.locator("a[href*='/artifacts/artifact/']").first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def picture(self, name: str) -> None:
        """Take a screenshot."""
        self.page.screenshot(path=self._screenshots / f"{name}.png")

    def ask(self, path: str, **body: Any) -> Any:
        """Ask Prefect's API, which knows what no page shows."""
        return httpx.post(f"{self.url}/api{path}", json=body).raise_for_status().json()


@pytest.fixture
def portal(browser: Browser, machine: Mapping[str, str], tmp_path: Path) -> Iterator[Portal]:
    """Open a page; PORTAL_SCREENSHOTS names a folder for screenshots, else they go with the test's files."""
    folder = Path(os.environ.get("PORTAL_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport=_SIZE, color_scheme="light")  # type: ignore[arg-type]
    yield Portal(page, machine["DRIVEPOST_PREFECT_PORT"], folder)
    page.close()
