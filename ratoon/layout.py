"""Where things lie under the project's folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    root: Path

    def documents(self, source: str) -> Path:
        return self.root / "data" / "documents" / source

    def scores(self, source: str) -> Path:
        return self.root / "data" / "scores" / source

    @property
    def scorers(self) -> Path:
        """Those that are kept."""
        return self.root / "data" / "scorers"

    def clean(self, source: str) -> Path:
        return self.root / "data" / "clean" / source

    def rows(self, base: str, source: str) -> Path:
        return self.root / "data" / "rows" / base / source

    def tokenizer(self, base: str) -> Path:
        return self.root / "models" / "tokenizers" / base

    @property
    def state(self) -> Path:
        """Everything that is neither in Git nor under DVC: runs, databases, caches."""
        return self.root / ".ratoon"

    @property
    def score_cache(self) -> Path:
        """Scores of models by what decides them, for all refreshes of all lines."""
        return self.state / "scores"

    @property
    def origins(self) -> Path:
        """What every refresh was asked of which text: its parameters, declarations and dvc.lock, to the byte."""
        return self.state / "origins"

    @property
    def unpushed(self) -> Path:
        """There while editions are owed to the DVC remote."""
        return self.state / "unpushed"

    def refreshes(self, line: str) -> Path:
        return self.state / "refreshes" / line

    def latest(self, line: str) -> Path:
        """Names the folder of the last finished refresh of a model line."""
        return self.refreshes(line) / "latest.json"

    def history(self, line: str) -> Path:
        """Held-out text of earlier refreshes of a model line, and how every model of it scored on it."""
        return self.state / "history" / line
