"""Promises of docker/compose.yaml, kept without an engine: PostgreSQL, S3, Prefect, MLflow and a worker on loopback.

Every process gets the command and exactly the environment that the compose file gives it; only names of machines,
ports and folders become this machine's. So a variable that is missing or misspelt there fails here.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from hello_deployment import DEPLOYMENTS

from tasks import processes

ROOT = Path(__file__).parents[2]
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
PORTS = {"database:5432": 5450, "storage:8333": 9330, "prefect:4200": 4333, "mlflow:5000": 5333, "worker:8080": 4334}
SECRETS = {
    # Of the kind that breaks addresses and shells that are put together by hand.
    "POSTGRES_PASSWORD": "data/base@canary:4711%",
    "S3_ACCESS_KEY": "s3-access-canary",
    "S3_SECRET_KEY": "s3-secret-canary",
    "PREFECT_LOGIN": "ann:prefect-canary-4711",
    "MLFLOW_USER": "bob",
    "MLFLOW_PASSWORD": "mlflow-canary-0815",
    "MLFLOW_SECRET_KEY": "forms-canary-0815",
}
NEEDED = ("psycopg2", "boto3", "flask_wtf", "moto")
FLOW = """
from pathlib import Path
import mlflow
from prefect import flow

@flow(name="hello")
def hello() -> str:
    from tasks import environment, tracking
    environment.apply(Path.cwd())
    with tracking.run("line", "served", kind="refresh") as run:
        run.metrics({"loss_nats": 2.0}, step=1)
        mlflow.MlflowClient().log_text(run.id, "kept in the bucket", "note.txt")
    return run.id
"""
pytestmark = pytest.mark.slow


class Machine:
    """What the compose file says, said of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
        self.started: list[processes.Service] = []
        (folder / "bin").mkdir()
        for name in ("prefect", "mlflow", "ratoon"):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        (folder / "bin" / "python").symlink_to(sys.executable)
        (folder / "project").mkdir()
        self.auth = folder / "auth.ini"
        self.auth.write_text(self.here((ROOT / "mlflow" / "auth.ini").read_text(encoding="utf-8")), encoding="utf-8")

    def here(self, text: str, own: str = "") -> str:
        """Names become ports of this machine; `own` is the service whose 127.0.0.1 or 0.0.0.0 it is."""
        secrets = {**SECRETS, "RATOON_PROJECT": str(self.folder / "project")}
        text = re.sub(r"(?<!\$)\$\{(\w+):\?[^}]*\}", lambda found: secrets.get(found[1], "0"), text).replace("$$", "$")
        for name, port in PORTS.items():
            host, number = name.split(":")
            text = text.replace(name, f"127.0.0.1:{port}")
            if host == own:
                text = re.sub(rf"\b(127\.0\.0\.1|localhost):{number}\b", rf"\1:{port}", text)
                text = text.replace("0.0.0.0", "127.0.0.1")
                text = str(port) if text == number else text
        text = re.sub(r"^/(tmp|project|var/lib/prefect)(?=/|$)", lambda found: str(self.folder / found[1]), text)
        return text.replace("/etc/ratoon/auth.ini", str(self.folder / "auth.ini"))

    def environment(self, service: str) -> dict[str, str]:
        """The image's, the env_file's, the service's; and what any process has."""
        own = "worker" if service.startswith("worker") else service
        said = self.compose[service]
        text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
        block = re.search(r"^ENV (.+?[^\\])$", text, re.MULTILINE | re.DOTALL)
        assert block
        given = dict(pair.split("=", 1) for pair in block[1].replace("\\\n", " ").split())
        if name := said.get("env_file"):
            lines = (ROOT / "docker" / name).resolve().read_text(encoding="utf-8").splitlines()
            given |= dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        given |= said.get("environment", {})
        found = {name: self.here(str(value), own) for name, value in given.items()}
        if own == "worker":
            found["PREFECT_WORKER_WEBSERVER_PORT"] = str(PORTS["worker:8080"])
        code = os.pathsep.join([str(ROOT), *(part for part in sys.path if part)])
        return {
            "HOME": str(self.folder / "tmp"),
            **found,
            "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            "PYTHONPATH": code,
        }

    def command(self, service: str) -> list[str]:
        own = "worker" if service.startswith("worker") else service
        said = self.compose[service]
        return [self.here(part, own) for part in [*said.get("entrypoint", []), *said["command"]]]

    def start(self, service: str) -> None:
        where, log = self.folder / "project", self.folder / f"{service}.log"
        self.keep(processes.start(service, self.command(service), self.environment(service), root=where, log=log))
        self.until_well(service, log)

    def keep(self, service: processes.Service) -> None:
        self.started.append(service)

    def until_well(self, service: str, log: Path, seconds: float = 180.0) -> None:
        """By the very check of the compose file."""
        kind, *check = self.compose[service]["healthcheck"]["test"]
        own = "worker" if service.startswith("worker") else service
        line = [self.here(part, own) for part in (check if kind == "CMD" else ["/bin/sh", "-c", *check])]
        end = time.monotonic() + seconds
        while subprocess.run(line, env=self.environment(service), capture_output=True, check=False).returncode:
            assert processes.alive(self.started[-1]), processes.tail(log)
            assert time.monotonic() < end, processes.tail(log)
            time.sleep(0.5)

    def run(self, service: str, line: list[str], **more: str) -> subprocess.CompletedProcess:
        given = {**self.environment(service), **more}
        where = self.folder / "project"
        return subprocess.run(line, env=given, cwd=where, capture_output=True, text=True, timeout=300, check=False)


def database(machine: Machine) -> None:
    """Debian's PostgreSQL; it refuses to run as root."""
    assert POSTGRES
    who = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    data, password = machine.folder / "data", machine.folder / "password"
    password.write_text(SECRETS["POSTGRES_PASSWORD"])
    data.mkdir()
    for path in (data, password):
        if who:
            shutil.chown(path, **who)
    line = [POSTGRES / "initdb", "-D", data, "-U", "ratoon", "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
    subprocess.run(list(map(str, line)), check=True, capture_output=True, cwd="/", **who)
    port = str(PORTS["database:5432"])
    server = [str(POSTGRES / "postgres"), "-D", str(data), "-p", port, "-h", "127.0.0.1", "-k", str(data), "-F"]
    log = machine.folder / "database.log"
    with log.open("wb") as output:
        process = subprocess.Popen(server, stdout=output, stderr=output, cwd="/", start_new_session=True, **who)
    started = psutil.Process(process.pid).create_time()
    machine.keep(
        processes.Service(name="database", pid=process.pid, started=started, address=None, health=None, log=str(log))
    )
    line = [str(POSTGRES / "psql"), "-h", "127.0.0.1", "-p", port, "-U", "ratoon", "-d", "postgres"]
    line += ["-v", "ON_ERROR_STOP=1", "-f", str(ROOT / "docker" / "databases.sql")]
    given = {"PGPASSWORD": SECRETS["POSTGRES_PASSWORD"], "PATH": "/usr/bin:/bin"}
    for _ in range(60):
        done = subprocess.run(line, env=given, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        assert "already exists" not in done.stderr
        time.sleep(0.5)
    raise AssertionError(done.stderr + processes.tail(log))


def bucket(machine: Machine):
    """An S3 server in the storage's place, and the buckets that the compose file makes."""
    import boto3

    port, log = PORTS["storage:8333"], machine.folder / "storage.log"
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    code = os.pathsep.join(part for part in sys.path if part)
    machine.keep(processes.start("storage", line, {"PATH": "/bin", "PYTHONPATH": code}, root=machine.folder, log=log))
    end = time.monotonic() + 60
    while not processes.answers(f"http://127.0.0.1:{port}/moto-api/data.json"):
        assert time.monotonic() < end, processes.tail(log)
        time.sleep(0.3)
    given = machine.environment("worker-cpu")
    names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    keys = {name: given[variable] for name, variable in names.items()}
    client = boto3.client("s3", endpoint_url=given["AWS_ENDPOINT_URL"], region_name=given["AWS_DEFAULT_REGION"], **keys)
    for name in re.findall(r"-name (\w+)", str(machine.compose["buckets"]["command"])):
        client.create_bucket(Bucket=name)
    return client


def status_code(url: str, login: str = "", body: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def machine():
    if POSTGRES is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    for name in NEEDED:
        pytest.importorskip(name, reason=f"{name}: `make test-ops` installs what this needs")
    # Not under pytest's own folder: PostgreSQL runs as another user, who could not get there.
    folder = Path(tempfile.mkdtemp(prefix="ratoon-topology-"))
    folder.chmod(0o755)
    made = Machine(folder)
    try:
        yield made
    finally:
        for service in reversed(made.started):
            processes.stop(service)
        shutil.rmtree(folder)


def test_the_production_form_runs_a_flow_to_its_end_with_the_settings_of_the_compose_file(machine):
    project = machine.folder / "project"
    (project / "hello.py").write_text(FLOW, encoding="utf-8")
    (project / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    for declared in ("params.yaml", "data/sources", "models/bases"):
        (project / declared).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / declared).is_dir() else shutil.copy
        copy(ROOT / declared, project / declared)
    database(machine)
    s3 = bucket(machine)
    machine.start("prefect")
    machine.start("mlflow")
    done = machine.run("deploy", machine.command("deploy"))
    assert done.returncode == 0, done.stdout + done.stderr
    machine.start("worker-cpu")
    done = machine.run("worker-cpu", ["prefect", "deployment", "run", "hello/default", "--watch"])
    log = processes.tail(machine.folder / "worker-cpu.log")
    assert "Flow run finished successfully" in done.stdout, done.stdout + done.stderr + log

    # Written through MLflow's server: the number into PostgreSQL, the file into the bucket.
    found = machine.run("worker-cpu", [sys.executable, "-c", READ])
    run = json.loads(found.stdout)
    assert run["metrics"] == {"loss_nats": 2.0}
    (kept,) = [item["Key"] for item in s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert kept.endswith(f"{run['id']}/artifacts/note.txt")
    assert s3.get_object(Bucket="mlflow", Key=kept)["Body"].read() == b"kept in the bucket"

    nobody_gets_in()
    a_dump_brings_the_run_back(machine, run["id"])
    no_secret_is_shown(machine)


READ = """
import json, mlflow
client = mlflow.MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("line").experiment_id])
print(json.dumps({"id": run.info.run_id, "metrics": run.data.metrics}))
"""


def nobody_gets_in() -> None:
    flows = f"http://127.0.0.1:{PORTS['prefect:4200']}/api/flows/filter"
    runs = f"http://127.0.0.1:{PORTS['mlflow:5000']}/api/2.0/mlflow/experiments/search?max_results=1"
    assert [status_code(flows, login, b"{}") for login in ("", "ann:guess", SECRETS["PREFECT_LOGIN"])] == [
        401,
        401,
        200,
    ]
    right = f"{SECRETS['MLFLOW_USER']}:{SECRETS['MLFLOW_PASSWORD']}"
    assert [status_code(runs, login) for login in ("", "bob:guess", right)] == [401, 401, 200]


def a_dump_brings_the_run_back(machine: Machine, run: str) -> None:
    said = machine.compose["backup"]
    assert said["entrypoint"] == ["/bin/sh", "/backup.sh"]
    folder = machine.folder / "backups"
    folder.mkdir()
    old = [folder / f"mlflow-2020010{day}T000000Z.dump" for day in range(1, 6)]
    for path in old:
        path.touch()
        os.utime(path, (0, 0))
    script = ["/bin/sh", str(ROOT / "docker" / "backup.sh"), "once"]
    tools = {"PGHOST": "127.0.0.1", "PGPORT": str(PORTS["database:5432"]), "PATH": f"{POSTGRES}:/usr/bin:/bin"}
    done = machine.run("backup", script, BACKUP_FOLDER=str(folder), **tools)
    assert done.returncode == 0, done.stderr
    dumps = sorted(folder.glob("*.dump"))
    assert [path.name.split("-")[0] for path in dumps] == ["mlflow", "mlflow", "mlflow", "mlflow_auth", "prefect"]
    assert [path for path in old if path.exists()] == old[3:], "the last three of each stay, whatever their age"
    assert all(oct(path.stat().st_mode)[-3:] == "600" for path in dumps if path not in old)
    for line in (
        ["createdb", "again"],
        ["pg_restore", "--dbname=again", str(dumps[2])],
        ["psql", "-d", "again", "-Atc", "select run_uuid, value from metrics"],
    ):
        done = machine.run("backup", line, **tools)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{run}|2"]
    # The check of the compose file takes such a folder for well, and an empty one for ill.
    check = machine.here(machine.compose["backup"]["healthcheck"]["test"][1])
    for place, code in ((folder, 0), (machine.folder / "bin", 1)):
        assert subprocess.run(["/bin/sh", "-c", check.replace("/backups", str(place))], check=False).returncode == code


def no_secret_is_shown(machine: Machine) -> None:
    hidden = [value for name, value in SECRETS.items() if name not in ("MLFLOW_USER", "S3_ACCESS_KEY")]
    for service in machine.started:
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(service.pid)
            for process in [leader, *leader.children(recursive=True)]:
                shown = " ".join(process.cmdline())
                assert not [value for value in hidden if value in shown]
        text = Path(service.log).read_text(encoding="utf-8", errors="replace")
        assert not [value for value in hidden if value in text], service.name
    files = [path for path in (machine.folder / "project").rglob("*") if path.is_file()]
    files += [path for path in (machine.folder / "tmp").rglob("*") if path.is_file()]
    assert not [path for path in files if any(value.encode() in path.read_bytes() for value in hidden)]
