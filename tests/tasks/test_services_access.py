"""Promises about who may reach the servers: nobody else, or with a name and a password that are written nowhere."""

import base64
import configparser
import os
import shutil
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from hello_deployment import DEPLOYMENTS

from ratoon.cli import main
from ratoon.config import ConfigError
from tasks import access, environment, launch, logbook, processes, services, status
from tasks.access import Bind

PREFECTS, MLFLOWS = "prefect-canary-4711", "mlflow-canary-0815"
SECRETS = {
    "PREFECT_SERVER_API_AUTH_STRING": f"ann:{PREFECTS}",
    "MLFLOW_TRACKING_USERNAME": "bob",
    "MLFLOW_TRACKING_PASSWORD": MLFLOWS,
}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_machine_alone_needs_no_secret(host):
    assert access.bind(host, False, {}) == Bind(host, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_what_others_can_reach_is_refused_without_secrets(host):
    with pytest.raises(ConfigError, match=rf"--host {host}: .*_AUTH_STRING, .*_USERNAME, .*_PASSWORD not set"):
        access.bind(host, False, {})
    assert access.bind(host, False, SECRETS).login


@pytest.mark.parametrize(
    ("changed", "letter"),
    [
        ({"PREFECT_SERVER_API_AUTH_STRING": "just-a-password"}, "not of the form NAME:PASSWORD"),
        ({"PREFECT_SERVER_API_AUTH_STRING": ":long-enough-but-nameless"}, "not of the form NAME:PASSWORD"),
        ({"PREFECT_SERVER_API_AUTH_STRING": "ann:short"}, "the password has 5 characters"),
        ({"MLFLOW_TRACKING_PASSWORD": "short"}, "MLFLOW_TRACKING_PASSWORD: the password has 5 characters"),
        ({"MLFLOW_TRACKING_PASSWORD": ""}, "MLFLOW_TRACKING_PASSWORD not set"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(changed, letter):
    with pytest.raises(ConfigError, match=letter) as raised:
        access.bind("0.0.0.0", False, SECRETS | changed)
    assert not any(value and value in str(raised.value) for value in changed.values())


def test_a_host_nobody_knows_is_told():
    with pytest.raises(ConfigError, match="no address of that name here"):
        access.bind("nowhere.invalid", False, SECRETS)


def test_the_command_line_refuses_before_anything_is_started(tmp_path, monkeypatch, capsys):
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["up", "--host", "0.0.0.0", "--no-gpu"]) == 2
    assert "pages that others can reach need a login" in capsys.readouterr().err
    assert processes.recorded(tmp_path) == {}


def test_clients_get_the_servers_login_and_our_record_of_defaults_does_not(tmp_path):
    found = environment.prepare(tmp_path, {"PATH": "/bin", **SECRETS})
    assert found["PREFECT_API_AUTH_STRING"] == f"ann:{PREFECTS}"
    assert PREFECTS not in found[environment.OURS]
    own = environment.prepare(tmp_path, {"PATH": "/bin", **SECRETS, "PREFECT_API_AUTH_STRING": "eve:hers"})
    assert "PREFECT_API_AUTH_STRING" not in own
    assert access.headers({}) == {}
    credentials = access.headers(SECRETS)["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(credentials).decode() == f"ann:{PREFECTS}"


def test_a_strangers_page_in_the_browser_is_let_in_by_neither_server(tmp_path):
    prefect = access.for_prefect(Bind(), 4200, {})
    assert prefect["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://localhost:4200,http://127.0.0.1:4200"
    assert prefect["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert access.for_mlflow(tmp_path, Bind(), {}) == {}, "MLflow's own default lets in this machine's names alone"
    mine = access.for_prefect(Bind(), 4200, {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "https://pages.example"})
    assert "PREFECT_SERVER_CORS_ALLOWED_ORIGINS" not in mine
    hosts = access.for_mlflow(tmp_path, Bind("192.0.2.7", True), SECRETS)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"localhost", "127.0.0.1:*", "192.0.2.7", "192.0.2.7:*"} <= set(hosts)
    assert "*" not in hosts


def test_secrets_reach_the_server_by_its_environment_and_its_settings_hold_none(tmp_path):
    found = access.for_mlflow(tmp_path, Bind(login=True), SECRETS)
    assert found["MLFLOW_AUTH_ADMIN_USERNAME"] == "bob"
    assert found["MLFLOW_AUTH_ADMIN_PASSWORD"] == MLFLOWS
    settings = Path(found["MLFLOW_AUTH_CONFIG_PATH"]).read_text(encoding="utf-8")
    assert MLFLOWS not in settings
    assert "default_permission = NO_PERMISSIONS" in settings
    assert len(found["MLFLOW_FLASK_SERVER_SECRET_KEY"]) == 64
    assert (
        found["MLFLOW_FLASK_SERVER_SECRET_KEY"]
        != access.for_mlflow(tmp_path, Bind(login=True), SECRETS)["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    )


def test_a_folder_with_a_percent_sign_is_read_back_from_the_settings(tmp_path):
    found = access.for_mlflow(tmp_path / "100%", Bind(login=True), SECRETS)
    settings = configparser.ConfigParser()
    settings.read(found["MLFLOW_AUTH_CONFIG_PATH"])
    assert settings["mlflow"]["database_uri"] == f"sqlite:///{tmp_path}/100%/.ratoon/mlflow-auth.db"


def test_all_addresses_are_called_by_one_of_this_machine():
    assert Bind("0.0.0.0").client_host == "127.0.0.1"
    assert Bind("::").client_host == "[::1]"
    assert Bind("192.0.2.7").client_host == "192.0.2.7"


# ---------------------------------------------------------------- the real thing

FLOW = """
from pathlib import Path
from prefect import flow

@flow(name="hello", log_prints=True)
def hello() -> str:
    from tasks import environment, tracking
    environment.apply(Path.cwd())
    with tracking.run("line", "served", kind="refresh") as run:
        run.metrics({"loss_nats": 2.0}, step=1)
    print("written", run.id)
    return run.id
"""


def code(url: str, login: str = "", body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def places_of(text: str, folder: Path) -> list[str]:
    """Files of any kind that hold `text`, as it is or as a login is sent."""
    forms = [text.encode(), base64.b64encode(text.encode()).rstrip(b"=")[:-2]]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms)]


@pytest.mark.slow
def test_with_a_login_strangers_stay_out_a_run_gets_in_and_no_secret_is_left_anywhere(tmp_path, monkeypatch):
    pytest.importorskip("flask_wtf", reason="MLflow's login needs Flask-WTF: pip install 'ratoon[login]'")
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**SECRETS, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "hello.py").write_text(textwrap.dedent(FLOW), encoding="utf-8")
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    try:
        found = services.up(tmp_path, prefect_port=4332, mlflow_port=5332, bind=access.bind("127.0.0.1", True, SECRETS))
        assert [item["state"] for item in status.status(tmp_path)] == ["healthy"] * 4
        api = f"{found['prefect'].address}/api"
        searched = f"{found['mlflow'].address}/api/2.0/mlflow/experiments/search?max_results=1"
        assert [code(f"{api}/flow_runs/filter", login, b"{}") for login in ("", "ann:guess")] == [401, 401]
        assert code(f"{api}/flow_runs/filter", f"ann:{PREFECTS}", b"{}") == 200
        assert [code(searched, login) for login in ("", "bob:guess")] == [401, 401]
        assert code(searched, f"bob:{MLFLOWS}") == 200
        line = [sys.executable, "-m", "prefect", "deployment", "run", "hello/default", "--watch"]
        given = {**os.environ, **environment.prepare(tmp_path)}
        done = subprocess.run(line, env=given, capture_output=True, text=True, timeout=180, cwd=tmp_path, check=False)
        assert "Flow run finished successfully" in done.stdout, done.stdout + logbook.end(tmp_path, "worker")
        for service in found.values():
            family = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
            shown = " ".join(part for process in family for part in process.cmdline())
            assert PREFECTS not in shown
            assert MLFLOWS not in shown
    finally:
        services.down(tmp_path)
    assert {name for name in launch.NAMES if (tmp_path / ".ratoon" / "logs" / f"{name}.log").exists()} >= {"worker"}
    for secret in (PREFECTS, MLFLOWS, f"ann:{PREFECTS}", f"bob:{MLFLOWS}"):
        assert places_of(secret, tmp_path) == []
