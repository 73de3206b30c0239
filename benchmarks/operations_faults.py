"""What may go wrong in a year, made to happen. Used by benchmarks/operations_soak.py.

A fault prepares (before the week's command), strikes (while it runs), is mended (after it ended), and heals what a
person would have to do, once they have read the letter.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

HELD_SECONDS = 20.0
DISK_MIB = 6000


class Fault:
    name = ""
    wants = ""
    kills = False  # whether the command itself is killed, so that its exit code says nothing

    @classmethod
    def able(cls) -> bool:
        return True

    def prepare(self, project, week: int) -> None: ...

    def strike(self, project, process) -> None: ...

    def mend(self, project) -> None: ...

    def heal(self, project, week: int) -> None: ...


def service(project, name: str) -> dict:
    return json.loads((project.root / ".ratoon" / "services.json").read_text())[name]


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpgid(pid), signal.SIGKILL)


class Killed(Fault):
    """kill -9 of the refresh with all its group, as by a machine that goes dark."""

    name, kills = "killed", True

    def strike(self, project, process) -> None:
        kill_group(process.pid)


class Orphaned(Fault):
    """kill -9 of the flow's process alone: its training child must not live on."""

    name, kills = "orphaned", True

    def strike(self, project, process) -> None:
        os.kill(process.pid, signal.SIGKILL)


class Stopped(Fault):
    """SIGTERM, as a scheduler sends it."""

    name, kills = "stopped", True

    def strike(self, project, process) -> None:
        if process.poll() is None:
            process.terminate()


class ServerDies(Fault):
    """A server is killed, and started again half a minute later."""

    server = "mlflow"
    name = "mlflow-dies"

    def strike(self, project, process) -> None:
        kill_group(service(project, self.server)["pid"])
        time.sleep(HELD_SECONDS)
        again = subprocess.run(
            [*command(project), "up"], cwd=project.root, capture_output=True, text=True, env=environment(project)
        )
        if again.returncode:
            raise RuntimeError(f"`ratoon up` after {self.server} died:\n{again.stdout}\n{again.stderr}")


class PrefectDies(ServerDies):
    server = "prefect"
    name = "prefect-dies"


def command(project) -> list[str]:
    return [sys.executable, "-m", "ratoon"]


def environment(project) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project.root), "HF_HUB_OFFLINE": "1"}


class WorkerDies(Fault):
    """The refresh is started as the page does it, and its worker killed with all its children."""

    name = "worker-dies"

    def prepare(self, project, week: int) -> None:
        env = environment(project) | {"PREFECT_API_URL": f"{service(project, 'prefect')['address']}/api"}
        subprocess.run(
            [sys.executable, "-m", "prefect", "deployment", "run", "refresh/default"],
            cwd=project.root, env=env, capture_output=True, check=True,
        )  # fmt: skip
        time.sleep(HELD_SECONDS)
        worker = service(project, "worker")["pid"]
        family = psutil.Process(worker).children(recursive=True)
        for each in [psutil.Process(worker), *family]:
            each.kill()
        up = subprocess.run([*command(project), "up"], cwd=project.root, capture_output=True, text=True,
                            env=environment(project))  # fmt: skip
        if up.returncode:
            raise RuntimeError(f"`ratoon up` after the worker died:\n{up.stdout}\n{up.stderr}")


class DiskFull(Fault):
    """The disk has no byte left for a while."""

    name, wants = "disk-full", "root, for a disk of its own"

    @classmethod
    def able(cls) -> bool:
        return os.geteuid() == 0 and bool(shutil.which("mount"))

    def ballast(self, project) -> Path:
        return project.root.parent / "project" / ".ratoon" / "ballast"

    def strike(self, project, process) -> None:
        path = self.ballast(project)
        with path.open("wb") as file:
            block = b"\0" * 2**20
            try:
                while True:
                    file.write(block)
                    file.flush()
            except OSError:
                pass
        until = time.monotonic() + HELD_SECONDS
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.5)
        path.unlink()


class NetworkCut(Fault):
    """The refresh runs behind a network of its own, which is cut from the servers for a while."""

    name, wants = "network-cut", "root and `ip`, for a network namespace"
    space, here, there = "ratoon-soak", "10.213.77.1", "10.213.77.2"

    @classmethod
    def able(cls) -> bool:
        return os.geteuid() == 0 and bool(shutil.which("ip"))

    def prepare(self, project, week: int) -> None:
        self.mend(project)
        for words in (
            f"netns add {self.space}",
            "link add soak0 type veth peer name soak1",
            f"link set soak1 netns {self.space}",
            f"addr add {self.here}/24 dev soak0",
            "link set soak0 up",
            f"-n {self.space} addr add {self.there}/24 dev soak1",
            f"-n {self.space} link set soak1 up",
            f"-n {self.space} link set lo up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        ports = {name: int(service(project, name)["address"].rsplit(":", 1)[1]) for name in ("prefect", "mlflow")}
        self.forwards = [Forward(self.here, port) for port in ports.values()]
        project.through = ["ip", "netns", "exec", self.space]
        project.environment = {
            "PREFECT_API_URL": f"http://{self.here}:{ports['prefect']}/api",
            "MLFLOW_TRACKING_URI": f"http://{self.here}:{ports['mlflow']}",
        }

    def strike(self, project, process) -> None:
        subprocess.run(["ip", "link", "set", "soak0", "down"], check=True)
        time.sleep(HELD_SECONDS)
        subprocess.run(["ip", "link", "set", "soak0", "up"], check=True)

    def mend(self, project) -> None:
        project.through, project.environment = [], {}
        for forward in getattr(self, "forwards", []):
            forward.close()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)
        subprocess.run(["ip", "link", "del", "soak0"], capture_output=True)


class Forward:
    """Connections to `host:port` go on to the same port on loopback."""

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self.listening = socket.create_server((host, port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            except OSError:
                return
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    @staticmethod
    def pump(a, b) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        finally:
            for end in (a, b):
                with contextlib.suppress(OSError):
                    end.shutdown(2)

    def close(self) -> None:
        self.listening.close()


class Rot(Fault):
    """Bytes of a packed file change on the disk, its time and size as before."""

    name = "corrupt-shard"

    def prepare(self, project, week: int) -> None:
        shards = sorted((project.root / "data" / "rows").rglob("*.arrow")) or sorted(
            p for p in (project.root / "data" / "rows").rglob("*") if p.is_file() and p.stat().st_size > 20_000
        )
        if not shards:
            raise RuntimeError("no packed file to corrupt")
        path = shards[week % len(shards)]
        stat = path.stat()
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 256] = bytes(255 - b for b in data[middle : middle + 256])
        path.chmod(0o644)
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class Poison(Fault):
    """The week's delivery has a broken line, and documents of noise that pass for text."""

    name = "poison"

    def prepare(self, project, week: int) -> None:
        draw = random.Random(week)
        path = project.root / "data" / "raw" / "code" / f"week-{week:02}.jsonl"
        noise = ["".join(chr(draw.randint(33, 0x2FF)) for _ in range(3000)) for _ in range(10)]
        noise += ["x = 1\n" * 800, "\u0000".join("ab" * 500), "A" * 15_000]
        lines = path.read_text().splitlines() + [json.dumps({"text": text}) for text in noise]
        lines.insert(len(lines) // 2, '{"text": "cut off in the mid')
        path.write_text("\n".join(lines) + "\n")

    def heal(self, project, week: int) -> None:
        path = project.root / "data" / "raw" / "code" / f"week-{week:02}.jsonl"
        kept = [line for line in path.read_text().splitlines() if not line.endswith("mid")]
        path.write_text("\n".join(kept) + "\n")


KINDS = [Killed, Orphaned, Stopped, ServerDies, PrefectDies, WorkerDies, DiskFull, NetworkCut, Rot, Poison]


def own_disk(folder: Path) -> bool:
    """A disk for the project alone, so that filling it fills nothing else. Without root: none."""
    if not DiskFull.able():
        return False
    place = folder / "project"
    place.mkdir(exist_ok=True)
    size = f"size={DISK_MIB}m"
    return subprocess.run(["mount", "-t", "tmpfs", "-o", size, "ratoon-soak", str(place)]).returncode == 0


def give_back_disk(folder: Path) -> None:
    subprocess.run(["umount", str(folder / "project")], check=False)
