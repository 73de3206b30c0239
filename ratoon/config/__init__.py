"""What is asked for, as frozen models. `params.yaml` is their file; each default has its one home here.

Everything below the door trusts these models: keys are known, numbers in range, names declared.
"""

from ratoon.config.amend import Amend
from ratoon.config.arms import ArmsConfig
from ratoon.config.assess import Approval, AssessConfig, GateConfig, Retreat, Unshown
from ratoon.config.bases import Base, Gguf, Pretrained, Scratch
from ratoon.config.benchmarks import Asked, Benchmark, HeldOutText, ItemColumns, Items, LmEval, NextPassage, Prompt
from ratoon.config.declaration import ConfigError, Declared, Kind, Name, Role, Share, T, unknown
from ratoon.config.decontaminate import Decontaminate, HeldOutTargets
from ratoon.config.engine import Engine
from ratoon.config.filters import DateFilter, LanguageFilter, LicenseFilter, Toxicity
from ratoon.config.generation import GenerationConfig
from ratoon.config.history import (
    DriftConfig,
    HistoryConfig,
    NoiseConfig,
    PeriodsConfig,
    ProbeConfig,
    QualityConfig,
    TrajectoryConfig,
)
from ratoon.config.keeping import Archive, BackupConfig, Collect
from ratoon.config.mixture import Curriculum, Length, MixtureConfig, Phase
from ratoon.config.operate import Happening, OperateConfig, Pool
from ratoon.config.params import Ask, Params, RefreshConfig
from ratoon.config.prefixes import Prefixes
from ratoon.config.prepare import Dedup, HeldOut, NearDuplicates, Paragraphs, PrepareConfig, Thresholds
from ratoon.config.reading import base, benchmark, declared, load, merge, parse, read_yaml, source
from ratoon.config.retention import RetentionConfig
from ratoon.config.scores import (
    CONTROLS,
    Classifier,
    Importance,
    Learned,
    ModelPerplexity,
    Perplexity,
    Retrieval,
    Scorer,
    Select,
)
from ratoon.config.sources import Columns, Dataset, Files, Origin, Packages, Source, Split, WebPages
from ratoon.config.sweep import ChooseConfig, SweepConfig
from ratoon.config.train import Schedule, TrainConfig

__all__ = [
    "CONTROLS",
    "Amend",
    "Approval",
    "Archive",
    "ArmsConfig",
    "Ask",
    "Asked",
    "AssessConfig",
    "BackupConfig",
    "Base",
    "Benchmark",
    "ChooseConfig",
    "Classifier",
    "Collect",
    "Columns",
    "ConfigError",
    "Curriculum",
    "Dataset",
    "DateFilter",
    "Declared",
    "Decontaminate",
    "Dedup",
    "DriftConfig",
    "Engine",
    "Files",
    "GateConfig",
    "GenerationConfig",
    "Gguf",
    "Happening",
    "HeldOut",
    "HeldOutTargets",
    "HeldOutText",
    "HistoryConfig",
    "Importance",
    "ItemColumns",
    "Items",
    "Kind",
    "LanguageFilter",
    "Learned",
    "Length",
    "LicenseFilter",
    "LmEval",
    "MixtureConfig",
    "ModelPerplexity",
    "Name",
    "NearDuplicates",
    "NextPassage",
    "NoiseConfig",
    "OperateConfig",
    "Origin",
    "Packages",
    "Paragraphs",
    "Params",
    "PeriodsConfig",
    "Perplexity",
    "Phase",
    "Pool",
    "Prefixes",
    "PrepareConfig",
    "Pretrained",
    "ProbeConfig",
    "Prompt",
    "QualityConfig",
    "RefreshConfig",
    "RetentionConfig",
    "Retreat",
    "Retrieval",
    "Role",
    "Schedule",
    "Scorer",
    "Scratch",
    "Select",
    "Share",
    "Source",
    "Split",
    "SweepConfig",
    "T",
    "Thresholds",
    "Toxicity",
    "TrainConfig",
    "TrajectoryConfig",
    "Unshown",
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
