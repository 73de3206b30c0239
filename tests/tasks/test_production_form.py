"""Promises of docker/ and mlflow/: configuration only, pinned, closed, without a secret."""

import re
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
    assert set(compose["services"]) == OURS | {"database", "storage", "buckets"}
    assert compose["services"]["worker-gpu"]["profiles"] == ["gpu"]


def test_every_image_is_pinned(compose):
    images = [service["image"] for service in compose["services"].values()]
    lines = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    images += [line.split()[1] for line in lines if line.startswith("FROM ")]
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.search(r"\d", tag), image
        assert tag != "latest"
    assert "constraints.txt" in "\n".join(lines)
    extras = (ROOT / "docker" / "extras.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in line for line in extras if line and not line.startswith("#"))


def test_nothing_runs_privileged_or_as_root(compose):
    for name, service in compose["services"].items():
        assert not service.get("privileged"), name
        assert service.get("network_mode") != "host", name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name
    for name in OURS:
        assert compose["services"][name]["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in compose["services"][name]["security_opt"]
    users = re.findall(r"^USER (\S+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")


def test_ports_are_published_on_loopback_only(compose):
    published = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_secret_has_a_default_and_every_one_is_in_the_example(compose):
    text = COMPOSE.read_text(encoding="utf-8")
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+):\?", text))
    everything = set(re.findall(r"(?<!\$)\$\{?([A-Za-z_0-9]+)", text))
    assert everything - {"S3_ACCESS_KEY", "S3_SECRET_KEY"} <= wanted | {"pool"}
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
    for name in ("database", "storage", "prefect", "mlflow"):
        assert compose["services"][name]["healthcheck"]["test"]
    assert set(compose["volumes"]) == {"database", "storage"}


def test_files_the_compose_file_and_the_image_name_exist(compose):
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() or name == "README.md", name
    assert (ROOT / "docker" / "databases.sql").exists()
