"""Sources made of packages alone."""

from ratoon.config import Ask
from tasks import prepare, versions


def test_a_source_gets_its_folder_for_dropped_files_before_dvc_asks_for_it(tmp_path, monkeypatch):
    import shutil
    from pathlib import Path

    root = Path(__file__).parents[2]
    for name in ("params.yaml", "data/sources", "models/bases"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, tmp_path / name)
    seen = []

    def repro(at, targets, heard, *, within):
        seen.extend(sorted(path.name for path in (at / "data" / "raw").iterdir()))
        return versions.Repro((), {})

    monkeypatch.setattr(versions, "repro", repro)
    prepare.make_editions.fn(tmp_path, Ask())
    assert seen == ["python-code", "python-docs"]
