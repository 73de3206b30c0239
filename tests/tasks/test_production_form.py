"""Promises of docker/ and mlflow/: configuration only, pinned, closed, without a secret."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
OURS = {"prefect", "mlflow", "deploy", "worker-cpu", "worker-gpu"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def test_folders_named_like_packages_hold_no_python():
    for folder in ("docker", "mlflow"):
        assert not list((ROOT / folder).rglob("*.py"))


def test_the_production_form_has_its_services(compose):
    assert set(compose["services"]) == OURS | {"database", "backup", "storage", "buckets"}
    assert compose["services"]["worker-gpu"]["profiles"] == ["gpu"]


def test_every_image_is_pinned(compose):
    images = [service["image"] for service in compose["services"].values()]
    lines = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    images += [line.split("=", 1)[1] for line in lines if line.startswith("ARG PYTHON_IMAGE=")]
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${PYTHON_IMAGE}", "base"}
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.search(r"\d", tag), image
        assert tag != "latest"
    assert "constraints.txt" in "\n".join(lines)
    pinned = {name for name, _ in pins("constraints.txt")}
    for file in ("docker/extras.txt", "docker/server.txt"):
        assert all(version or name in pinned for name, version in pins(file)), file


def pins(file: str) -> list[tuple[str, str]]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    split = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return [(name.lower().replace("_", "-"), version) for name, _, version in split]


def test_what_is_pinned_twice_is_pinned_alike():
    everywhere = [pair for file in ("constraints.txt", "docker/extras.txt", "docker/server.txt") for pair in pins(file)]
    versions: dict[str, set[str]] = {}
    for name, version in everywhere:
        versions.setdefault(name, set()).update({version} - {""})
    assert not {name: found for name, found in versions.items() if len(found) > 1}


def test_nothing_runs_privileged_or_as_root(compose):
    for name, service in compose["services"].items():
        assert not service.get("privileged"), name
        assert service.get("network_mode") != "host", name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
    for name in ("prefect", "mlflow", "backup"):
        assert compose["services"][name]["read_only"], name
    users = re.findall(r"^USER (\S+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    # Numeric, or Kubernetes could not tell that it is not root's.
    assert users == ["10001:10001"] * 2


def test_ports_are_published_on_loopback_only(compose):
    published = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_only_what_needs_it_meets_database_and_storage(compose):
    meets = {name: set(service["networks"]) for name, service in compose["services"].items()}
    assert {name for name, found in meets.items() if "databases" in found} == {
        "database",
        "backup",
        "prefect",
        "mlflow",
    }
    assert {name for name, found in meets.items() if "files" in found} == OURS - {"prefect"} | {"storage", "buckets"}
    assert all(compose["networks"][name]["internal"] for name in ("databases", "files"))
    assert not any(
        service.get("ports") for name, service in compose["services"].items() if name not in ("prefect", "mlflow")
    )


def test_both_pages_ask_who_is_there_and_workers_know_the_answer(compose):
    environment = {name: service.get("environment", {}) for name, service in compose["services"].items()}
    assert environment["prefect"]["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_LOGIN:?")
    assert compose["services"]["mlflow"]["command"] == ["mlflow", "server", "--app-name", "basic-auth"]
    for name in ("deploy", "worker-cpu", "worker-gpu"):
        assert environment[name]["PREFECT_API_AUTH_STRING"] == environment["prefect"]["PREFECT_SERVER_API_AUTH_STRING"]
        assert environment[name]["MLFLOW_TRACKING_PASSWORD"] == environment["mlflow"]["MLFLOW_AUTH_ADMIN_PASSWORD"]
        assert environment[name]["MLFLOW_TRACKING_USERNAME"] == environment["mlflow"]["MLFLOW_AUTH_ADMIN_USERNAME"]


def test_no_address_and_no_command_holds_a_secret(compose):
    for name, service in compose["services"].items():
        said = [*map(str, service.get("command", [])), *map(str, service.get("entrypoint", []))]
        said += [value for value in map(str, service.get("environment", {}).values()) if "://" in value]
        assert not any(re.search(r"(?<!\$)\$\{|:[^/@]+@", text) for text in said), name


def test_no_secret_has_a_default_and_every_one_is_in_the_example(compose):
    text = COMPOSE.read_text(encoding="utf-8")
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+):\?", text))
    everything = set(re.findall(r"(?<!\$)\$\{?([A-Za-z_0-9]+)", text))
    # Those with $$ are the shell's own within a container.
    assert everything - {"S3_ACCESS_KEY", "S3_SECRET_KEY"} <= wanted | {"pool", "find"}
    assert not re.search(r"\$\{[A-Z_0-9]+:?[-+]", text)
    example = (ROOT / "docker" / "secrets.env.example").read_text(encoding="utf-8")
    named = dict(line.split("=", 1) for line in example.splitlines() if "=" in line and not line.startswith("#"))
    assert set(named) == wanted
    assert not any(named.values())
    assert "secrets.env" in (ROOT / "docker" / ".gitignore").read_text(encoding="utf-8").split()


def test_settings_of_the_mlflow_server_hold_no_secret(compose):
    lines = (ROOT / "mlflow" / "server.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert not any(re.search("PASSWORD|SECRET|KEY|TOKEN", name) for name in settings)
    assert not any("://" in value for value in settings.values())
    assert settings["MLFLOW_SERVER_ALLOWED_HOSTS"] != "*"
    assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert (COMPOSE.parent / compose["services"]["mlflow"]["env_file"]).resolve() == ROOT / "mlflow" / "server.env"


def test_what_lasts_is_on_a_volume_and_what_serves_is_checked(compose):
    for name in ("database", "backup", "storage", "prefect", "mlflow", "worker-cpu", "worker-gpu"):
        assert compose["services"][name]["healthcheck"]["test"]
    assert set(compose["volumes"]) == {"database", "leases", "storage"}


def test_files_the_compose_file_and_the_image_name_exist(compose):
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() or name == "README.md", name
    for name in ("databases.sql", "backup.sh"):
        assert (ROOT / "docker" / name).exists()
    assert "COPY mlflow/server.env mlflow/auth.ini /etc/ratoon/" in text
    assert compose["services"]["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"] == "/etc/ratoon/auth.ini"
    made = set(re.findall(r"CREATE DATABASE (\w+)", (ROOT / "docker" / "databases.sql").read_text(encoding="utf-8")))
    assert set(compose["services"]["backup"]["environment"]["BACKUP_DATABASES"].split()) == made


def test_the_compose_file_is_one_and_a_misspelt_key_would_be_found():
    """By compose_spec, a parser of the Compose Specification that takes no key it does not know."""
    from compose_spec import PyCompose

    text = re.sub(r"(?<!\$)\$\{\w+:\?[^}]*\}", "1000", COMPOSE.read_text(encoding="utf-8"))
    whole = json.dumps(yaml.safe_load(text))
    assert len(PyCompose.from_json(whole)) == 9
    for right, wrong in (('"healthcheck"', '"heathcheck"'), ("service_healthy", "service_helthy")):
        with pytest.raises(ValueError, match=wrong.strip('"')):
            PyCompose.from_json(whole.replace(right, wrong))


def test_the_dockerfile_passes_hadolint():
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if tool is None:
        pytest.skip("needs hadolint: `make test-ops` installs it")
    line = [tool, "--no-color", str(ROOT / "docker" / "Dockerfile")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["docker/backup.sh"])
def test_shell_scripts_are_of_the_plain_shell(script):
    assert subprocess.run(["/bin/sh", "-n", str(ROOT / script)], check=False).returncode == 0
