"""prepare.engine: where the work on shards runs. It changes how long an edition takes, never what is in it."""

from typing import Literal

from pydantic import Field, PositiveInt

from ratoon.config.declaration import Declared


class Engine(Declared):
    kind: Literal["processes", "ray"] = Field(
        "processes", description="processes of this machine, or tasks of a Ray cluster that sees the same files"
    )
    workers: PositiveInt | None = Field(None, description="at once; none: one per core, on Ray all that it has")
    address: str | None = Field(
        None, description="ray: of a running cluster; none: RAY_ADDRESS, or a cluster of its own on this machine"
    )
