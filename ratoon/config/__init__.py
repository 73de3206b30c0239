"""What is asked for, as frozen models. `params.yaml` is their file; each default has its one home here.

Everything below the door trusts these models: keys are known, numbers in range, names declared.
"""

from ratoon.config.assess import AssessConfig, GateConfig
from ratoon.config.bases import Base, Gguf, Pretrained, Scratch
from ratoon.config.benchmarks import Benchmark, HeldOutText, NextPassage
from ratoon.config.declaration import ConfigError, Declared, Kind, Name, Role, Share, T, unknown
from ratoon.config.params import Ask, Params, RefreshConfig
from ratoon.config.prepare import Dedup, HeldOut, NearDuplicates, Paragraphs, PrepareConfig, Thresholds
from ratoon.config.reading import base, benchmark, declared, load, merge, parse, read_yaml, source
from ratoon.config.sources import Columns, Dataset, Files, Origin, Packages, Source, WebPages
from ratoon.config.sweep import ChooseConfig, SweepConfig
from ratoon.config.train import Schedule, TrainConfig

__all__ = [
    "Ask",
    "AssessConfig",
    "Base",
    "Benchmark",
    "ChooseConfig",
    "Columns",
    "ConfigError",
    "Dataset",
    "Declared",
    "Dedup",
    "Files",
    "GateConfig",
    "Gguf",
    "HeldOut",
    "HeldOutText",
    "Kind",
    "Name",
    "NearDuplicates",
    "NextPassage",
    "Origin",
    "Packages",
    "Paragraphs",
    "Params",
    "PrepareConfig",
    "Pretrained",
    "RefreshConfig",
    "Role",
    "Schedule",
    "Scratch",
    "Share",
    "Source",
    "SweepConfig",
    "T",
    "Thresholds",
    "TrainConfig",
    "WebPages",
    "base",
    "benchmark",
    "declared",
    "load",
    "merge",
    "parse",
    "read_yaml",
    "source",
    "unknown",
]
