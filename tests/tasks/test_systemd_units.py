"""Promises of the systemd unit that brings the services back after a reboot."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ratoon.cli import main, parser
from tasks import units

ROOT = Path(__file__).parents[2]


def command(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$"))


@pytest.mark.parametrize("folder", ["plain", "with a space", "100%", "$HOME", 'quo"ted', "back\\slash"])
def test_the_unit_starts_this_very_project_by_this_very_interpreter(tmp_path, folder):
    root = tmp_path / folder
    found = command(units.unit(root, ["--host=0.0.0.0", "--no-gpu"]))
    assert found[:3] == [sys.executable, "-m", "ratoon"]
    asked = parser().parse_args(found[3:])
    assert asked.root == root
    assert (asked.watch, asked.host, asked.gpu) == (True, "0.0.0.0", False)


@pytest.mark.parametrize("folder", ["plain", "with a space", "100%"])
def test_systemd_takes_the_unit(tmp_path, folder):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    root = tmp_path / folder
    root.mkdir()
    path = tmp_path / units.name(root)
    path.write_text(units.unit(root, ["--gpu"]), encoding="utf-8")
    line = ["systemd-analyze", "verify", "--user", "--man=no", str(path)]
    given = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}

    def verified():
        return subprocess.run(line, env=given, capture_output=True, text=True, check=False)

    done = verified()
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr, done.stderr
    path.write_text(path.read_text().replace("Restart=on-failure", "Restart=sometimes"), encoding="utf-8")
    assert path.name in verified().stderr, "or the check above checks nothing"


def test_the_command_prints_it_or_writes_it_where_systemd_looks(tmp_path, monkeypatch, capsys):
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(["up", "--systemd"]) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "config").exists()
    assert main(["up", "--systemd", "--write"]) == 0
    written = tmp_path / "config" / "systemd" / "user" / "ratoon-project.service"
    assert written.read_text(encoding="utf-8") + "\n" == printed
    assert "systemctl --user enable --now ratoon-project.service" in capsys.readouterr().out
    assert main(["up", "--write"]) == 2
    assert "only --systemd has something to write" in capsys.readouterr().err
