"""operate: how the services run it. No part of a refresh's identity: it changes no number."""

from typing import Literal

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared
from ratoon.config.keeping import BackupConfig

Pool = Literal["cpu", "gpu"]
Happening = Literal["promoted", "refused", "asked", "failed"]


class OperateConfig(Declared):
    pool: Pool | None = Field(
        None, description="work pool of what trains or scores; none: gpu where `ratoon deploy` sees a GPU, else cpu"
    )
    gpu_slots: PositiveInt | None = Field(
        None, description="GPUs of all machines together; none: those `ratoon deploy` sees, at least one"
    )
    notify: tuple[Happening, ...] = Field(
        ("promoted", "refused", "asked", "failed"), description="what is told to the addresses of `ratoon notify`"
    )
    backup: BackupConfig = Field(
        BackupConfig(),  # type: ignore[call-arg]
        description="where the deployment `backup` writes, and how many stay",
        exclude_if=lambda it: it == BackupConfig(),  # type: ignore[call-arg]
    )
