"""Promises of a whole refresh to whoever lets it run unattended: it calls nobody, and gives no secret away."""

import base64
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import zipfile
from pathlib import Path

import psutil
import pytest

# As a shell of a person who uses all of it would hold them.
CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-s3-secret-4711",
    "HF_TOKEN": "hf_canaryOfTheHub4711",
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-4711",
    "PREFECT_SERVER_API_AUTH_STRING": "ann:canary-prefect-4711",
    "SLACK_WEBHOOK_URL": "http://127.0.0.1:9/services/canary-webhook-4711",
    "RATOON_NOTIFY_URL": "http://127.0.0.1:9/notify/canary-notify-4711",
    "OPENAI_API_KEY": "sk-canary-of-no-use-4711",
}
# Every Python process of the refresh imports this first.
GUARD = """
import os, socket, sys

def outside(address):
    if not isinstance(address, tuple):
        return False  # a socket of this machine's file system
    host = str(address[0])
    return host not in ("localhost", "::1", "", "0.0.0.0", "::") and not host.startswith("127.")

def refuse(what, address):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(f"{what} {address} by {' '.join(sys.argv)[:200]}\\n")
    raise OSError(101, f"sealed: {what} {address}")

def guarded(name):
    real = getattr(socket.socket, name)
    def call(self, *given, **named):
        address = given[-1] if given else named.get("address")
        if self.family in (socket.AF_INET, socket.AF_INET6) and outside(address):
            refuse(name, address)
        return real(self, *given, **named)
    return call

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, guarded(name))
resolve = socket.getaddrinfo

def getaddrinfo(host, *given, **named):
    name = host.decode() if isinstance(host, bytes) else host
    if name and outside((name, 0)) and name != socket.gethostname():
        refuse("getaddrinfo", name)
    return resolve(host, *given, **named)

socket.getaddrinfo = getaddrinfo
"""
pytestmark = pytest.mark.slow


def hidden(value: str) -> list[bytes]:
    """A secret as it is, and as headers and URLs carry it."""
    encoded = [base64.b64encode(text.encode()).rstrip(b"=")[:-2] for text in (value, f"ann:{value}", f":{value}")]
    return [value.rsplit("/", 1)[-1].removeprefix("ann:").encode(), *encoded]


def holders(folder: Path) -> list[str]:
    """Files of any kind that hold one of the canaries."""
    forms = [form for value in CANARIES.values() for form in hidden(value)]
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if (data := path.read_bytes()) and any(form in data for form in forms)]


def pickles(folder: Path) -> list[str]:
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        with path.open("rb") as file:
            head = file.read(2)
        if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".ckpt") or (
            (head[:1] == b"\x80" and head[1:] in b"\2\3\4\5") or head == b"gA"  # in base64, as Prefect keeps them
        ):
            found.append(str(path))
        elif head == b"PK" and zipfile.is_zipfile(path):
            found += [str(path) for name in zipfile.ZipFile(path).namelist() if name.endswith(".pkl")]
    return found


def without_network() -> list[str]:
    """A namespace in which there is this machine alone, for what no guard in Python would see; [] where not allowed."""
    line = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        return []
    return line if subprocess.run([*line, "true"], capture_output=True, check=False).returncode == 0 else []


def watch(process: subprocess.Popen, shown: set[str]) -> None:
    while process.poll() is None:
        try:
            leader = psutil.Process(process.pid)
            for each in [leader, *leader.children(recursive=True)]:
                shown.add(" ".join(each.cmdline()))
        except psutil.Error:
            pass
        threading.Event().wait(0.2)


def test_a_refresh_calls_nobody_writes_no_secret_and_leaves_no_pickle(new_project, tmp_path):
    project = new_project("sealed", 400_000)
    guard, home, log = tmp_path / "guard", tmp_path / "home", tmp_path / "network.log"
    guard.mkdir()
    home.mkdir()
    (guard / "sitecustomize.py").write_text(textwrap.dedent(GUARD), encoding="utf-8")
    given = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_HUB_OFFLINE", "CI", "PYTEST"))
    }
    given |= {"PYTHONPATH": f"{guard}{os.pathsep}{project.root}", "NETWORK_LOG": str(log), "HOME": str(home)}
    # The guard guards: this is refused, and written down.
    control = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=1)"
    done = subprocess.run([sys.executable, "-c", control], env=given, capture_output=True, text=True, check=False)
    assert "sealed" in done.stderr
    assert "192.0.2.1" in log.read_text()
    log.unlink()

    shown: set[str] = set()
    line = [*without_network(), sys.executable, "-m", "ratoon", "refresh", "--ratio", "0.3"]
    output = tmp_path / "said.txt"
    with output.open("w") as said:
        process = subprocess.Popen(line, cwd=project.root, env=given | CANARIES, stdout=said, stderr=said)
        watcher = threading.Thread(target=watch, args=(process, shown))
        watcher.start()
        process.wait(timeout=1200)
        watcher.join()
    assert process.returncode in (0, 3), output.read_text()[-3000:]  # promoted, or refused: a whole refresh

    assert not log.exists(), log.read_text()
    assert any("ratoon" in text and "train" in text for text in shown), "its children were seen"
    secrets = [form.decode() for value in CANARIES.values() for form in hidden(value)]
    assert not [text for text in shown if any(secret in text for secret in secrets)]
    planted = project.root / "planted.bin"
    planted.write_bytes(b"\0" + hidden(CANARIES["HF_TOKEN"])[1])
    assert holders(project.root) == [str(planted)], "the search finds what is there, and there is nothing else"
    assert holders(home) == []
    assert holders(output.parent / "guard") == []
    assert not any(form in output.read_bytes() for value in CANARIES.values() for form in hidden(value))
    assert pickles(project.root) == []
    weights = [path for path in (project.root / ".ratoon").rglob("*.safetensors")]
    assert weights
