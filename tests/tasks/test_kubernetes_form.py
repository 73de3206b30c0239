"""Promises of docker/kustomization.yaml: valid, closed, and the very settings of the compose file."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
TOP = yaml.safe_load((ROOT / "docker" / "kustomization.yaml").read_text(encoding="utf-8"))
# Which container of which manifest is which service of the compose file.
SAME = {
    ("prefect", "prefect"): "prefect",
    ("mlflow", "mlflow"): "mlflow",
    ("storage", "storage"): "storage",
    ("database", "database"): "database",
    ("backup", "backup"): "backup",
    ("worker-cpu", "worker"): "worker-cpu",
    ("worker-gpu", "worker"): "worker-gpu",
    ("worker-cpu", "deploy"): "deploy",
}
HERE_ALONE = {("database", "PGDATA")}  # a volume of Kubernetes has a folder of its own in it


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def documents():
    paths = [ROOT / "docker" / name for name in TOP["resources"]]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def pods(documents):
    found = {}
    for document in documents:
        spec = document.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[document["metadata"]["name"]] = spec["template"]
    return found


def containers(pod):
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def test_every_manifest_is_named_and_every_named_file_is_there():
    assert {f"kubernetes/{path.name}" for path in FOLDER.glob("*.yaml")} == set(TOP["resources"])
    for made in TOP["configMapGenerator"]:
        assert all((ROOT / "docker" / name).exists() for name in made["files"])


def test_images_commands_and_settings_are_those_of_the_compose_file(pods, compose):
    for (pod, name), service in SAME.items():
        (container,) = [item for item in containers(pods[pod]) if item["name"] == name]
        said = compose[service]
        assert container["image"] == said["image"]
        given = {item["name"]: item for item in container["env"]}
        given = {key: item for key, item in given.items() if (pod, key) not in HERE_ALONE}
        wanted = said["environment"]
        assert set(given) == set(wanted), service
        for key, item in given.items():
            secret = re.match(r"\$\{(\w+):\?", str(wanted[key]))
            if secret:
                assert item["valueFrom"]["secretKeyRef"] == {"name": "ratoon", "key": secret[1]}
            else:
                assert item["value"] == str(wanted[key])
        if name in ("worker", "prefect"):
            assert container.get("args", container.get("command")) == said["command"]
        if name in ("deploy", "storage"):
            assert container["args"] == [text.replace("$$", "$") for text in said["command"]]
    (mlflow,) = containers(pods["mlflow"])
    assert mlflow["args"][0].endswith("exec " + " ".join(compose["mlflow"]["command"]))
    assert ". /etc/ratoon/server.env" in mlflow["args"][0]


def test_no_pod_runs_as_root_or_with_more_than_it_needs(pods):
    assert len(pods) == 7
    for name, pod in pods.items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", []))
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        for container in containers(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"].get("privileged")
            assert container["resources"]["limits"]["memory"]


def test_nothing_is_reached_from_outside_and_inside_by_those_alone_who_need_it(documents, pods):
    assert not [d for d in documents if d["kind"] in ("Ingress", "Secret")]
    assert not [d for d in documents if d["kind"] == "Service" and d["spec"].get("type", "ClusterIP") != "ClusterIP"]
    policies = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "NetworkPolicy"}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["database"]["ingress"]
    (who,) = rule["from"]
    (expression,) = who["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == {"prefect", "mlflow", "backup"} <= set(pods)
    assert all(pod["metadata"]["labels"]["role"] == "worker" for name, pod in pods.items() if name.startswith("worker"))


def test_a_name_of_a_service_never_becomes_a_setting(pods):
    """Kubernetes would set MLFLOW_PORT=tcp://..., which MLflow takes for its port."""
    for name in ("prefect", "mlflow", "worker-cpu", "worker-gpu"):
        assert pods[name]["spec"]["enableServiceLinks"] is False


def test_every_manifest_passes_the_published_schema(documents):
    validate = pytest.importorskip("kubernetes_validate", reason="`make test-ops` installs the schemas")
    for document in documents:
        validate.validate(document, "1.33", strict=True)
    broken = yaml.safe_load(yaml.safe_dump(documents[-1]))
    broken["spec"]["podSelektor"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, "1.33", strict=True)


def test_kustomize_puts_it_together():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    line = [kubectl, "kustomize", str(ROOT / "docker")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    names = {d["metadata"]["name"] for d in made if d["kind"] == "ConfigMap"}
    (database,) = [d for d in made if d["kind"] == "StatefulSet" and d["metadata"]["name"] == "database"]
    assert database["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] in names
    assert all(d["metadata"].get("namespace", "ratoon") == "ratoon" for d in made)
    (gpu,) = [d for d in made if d["metadata"]["name"] == "worker-gpu"]
    assert gpu["spec"]["replicas"] == 0, "no node with a GPU may be there"
