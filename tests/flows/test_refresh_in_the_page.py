"""A refresh as a person starts it: the form in Prefect's page, headless Chromium, to the report.

RATOON_PICTURES=docs/images takes the pictures of docs/operations.md again.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'ratoon[pages]' brings Playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
]


@pytest.fixture(scope="module")
def services(new_project):
    project = new_project("page", 400_000, sweep={"tokens": 24_576}, train={"tokens": 49_152})
    project.ratoon("up", "--prefect-port", "4410", "--mlflow-port", "5410")
    said = json.loads(project.ratoon("status", "--json").stdout)
    yield project, {item["name"]: item["address"] for item in said["services"]}
    project.ratoon("down")


@pytest.fixture
def page():
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser.new_page(viewport={"width": 1280, "height": 1100})
        browser.close()


def picture(page, name):
    if folder := os.environ.get("RATOON_PICTURES"):
        page.wait_for_timeout(1500)  # charts and cards arrive after the text
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_refresh_is_asked_for_watched_and_read_in_the_pages(services, page):
    project, address = services
    fill_the_form(page, address["prefect"])
    run = watch_it_finish(page)
    assert run == "Completed"
    folder, refresh = project.latest()
    assert refresh["version"] == 1
    assert json.loads((folder / "choice.json").read_text())["share"] == 0.4  # what the form said
    read_its_artifacts(page)
    compare_in_mlflow(page, address["mlflow"], refresh)
    read_the_report(page, folder / "report.html")


def fill_the_form(page, prefect):
    page.goto(f"{prefect}/deployments")
    page.get_by_role("link", name=re.compile("^default$")).first.wait_for(timeout=60_000)
    picture(page, "prefect-deployments")
    row = page.locator("tr", has=page.get_by_text("refresh", exact=True)).first
    row.get_by_role("link", name="default").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    field(page, "Ratio").locator("input").fill("0.4")
    picture(page, "prefect-form")
    page.get_by_role("button", name="Submit").click()


def field(page, title):
    return page.locator(".schema-form-property", has=page.get_by_text(re.compile(f"^{title}"))).last


def watch_it_finish(page):
    """Opens the run's page, looks at it under way, and waits for its end. Its state's name."""
    # The toast slides away while one aims at it: no pointer, the event itself.
    page.locator(".toast-flow-run-create__button").first.dispatch_event("click")
    page.wait_for_url(re.compile("/runs/flow-run/"), timeout=60_000)
    badge = page.locator(".state-badge").first
    deadline = time.monotonic() + 900
    looked = False
    while (state := badge.inner_text().strip()) not in ("Completed", "Failed", "Crashed", "Cancelled"):
        assert time.monotonic() < deadline, f"still {state}"
        if state == "Running" and not looked:
            page.wait_for_timeout(20_000)
            picture(page, "prefect-running")
            looked = True
        page.wait_for_timeout(2000)
    return state


def read_its_artifacts(page):
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("ratoon-nano-verdict").first.wait_for(timeout=30_000)
    picture(page, "prefect-artifacts")
    page.get_by_text("ratoon-nano-verdict").first.click()
    page.get_by_text(re.compile("python-code|code")).first.wait_for(timeout=30_000)
    picture(page, "prefect-verdict")


def compare_in_mlflow(page, mlflow, refresh):
    page.goto(f"{mlflow}/#/experiments/1/runs?viewStateShareKey=proxies&compareRunsMode=CHART")
    page.get_by_text("matching runs").first.wait_for(timeout=60_000)
    page.get_by_text("at a glance").wait_for(timeout=60_000)
    if assistant := page.get_by_role("button", name="Close").all():
        assistant[0].click()
    picture(page, "mlflow-proxies")
    page.goto(f"{mlflow}/#/experiments/1/runs?viewStateShareKey=refreshes&compareRunsMode=CHART")
    page.get_by_text(re.compile("matching run")).first.wait_for(timeout=60_000)
    picture(page, "mlflow-refreshes")


def read_the_report(page, report):
    page.goto(report.as_uri())
    assert page.get_by_text("promoted").first.is_visible()
    picture(page, "report-from-the-page")
