"""What a person may ask of the deployments that keep a project going: gc and backup."""

from typing import Literal

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared

Part = Literal["mlflow", "prefect", "editions"]


class Collect(Declared):
    """What `retention` does not keep and no version in use needs. Told only, unless removal is asked for."""

    remove: bool = Field(False, description="remove it; off: say what would go, and touch nothing")
    remote: bool = Field(False, description="at the DVC remote too, of what was made here")


class Archive(Declared):
    """One archive of what cannot be made again. Where it goes is no part of a form: params.yaml or the environment."""

    every: bool = Field(False, description="all registered versions, and editions the DVC remote has too")
    without: tuple[Part, ...] = Field((), description="parts to leave out, such as a database others keep")


class BackupConfig(Declared):
    folder: str | None = Field(
        None, description="where the deployment `backup` writes, best on another disk; RATOON_BACKUPS goes before it"
    )
    keep: PositiveInt = Field(8, description="newest archives of this project that stay there")
