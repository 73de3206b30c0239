"""arms: cheaper ways to the same end, which a refresh is measured against. An arm that is not named is not measured."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ratoon.config.declaration import ConfigError, Declared, Share, unknown

ArmName = Literal["few_shot", "retrieved", "scratch", "domain_only", "replay_only", "second_seed"]


class Shown(Declared):
    """Training text in front of all that the parent is asked; nothing is trained."""

    tokens: PositiveInt | None = Field(
        None, description="of training text shown at once, at most; none: half of what a row holds"
    )
    joined_by: str = Field("\n\n", description="behind each passage")
    max_overlap: Share = Field(
        0.5, description="part of a passage's runs of five words that the held-out document may hold; above it, no use"
    )
    max_bytes: PositiveInt = Field(64 << 20, description="of training text per source to take from; a sample by hash")


class FewShot(Shown):
    """Passages of the source that is asked about, drawn by hash."""

    passages: PositiveInt = 4
    seed: int = 0


class Retrieved(Shown):
    """Passages of the domain sources that are nearest to the text so far, by BM25 (doi:10.1561/1500000019)."""

    passages: PositiveInt = 1
    query_tokens: PositiveInt = Field(64, description="of the text before what is scored: what is looked for")
    k1: NonNegativeFloat = Field(1.2, description="how soon a word that comes again counts no more")
    b: Share = Field(0.75, description="how much long passages are marked down")


class Trained(Declared):
    """A training run like the target's, but for one thing."""

    tokens: Literal["same"] | PositiveInt = Field("same", description="to train on; same: as many as the target run")


class Seeded(Trained):
    seed: int = Field(1, description="of the random weights; of second_seed: of the order of the data")


class ArmsConfig(Declared):
    few_shot: FewShot | None = Field(None, description="the parent, shown passages drawn by hash")
    retrieved: Retrieved | None = Field(None, description="the parent, shown passages that are looked for")
    scratch: Seeded | None = Field(None, description="random weights, trained as the candidate was")
    domain_only: Trained | None = Field(None, description="the parent, trained on domain text alone")
    replay_only: Trained | None = Field(None, description="the parent, trained on general text alone")
    second_seed: Seeded | None = Field(None, description="the candidate once more, on the same text in another order")

    @property
    def asked(self) -> tuple[str, ...]:
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    def only(self, names: tuple[str, ...]) -> "ArmsConfig":
        """The arms of these names, each as it is asked for, or else by its defaults; without names those asked for."""
        defaults = {"few_shot": FewShot(), "retrieved": Retrieved(), "scratch": Seeded(), "second_seed": Seeded()}
        defaults |= {"domain_only": Trained(), "replay_only": Trained()}
        for name in names:
            if name not in defaults:
                raise ConfigError(f"ratoon arms: {unknown('arm', name, list(type(self).model_fields))}")
        wanted = names or self.asked
        if not wanted:
            raise ConfigError(
                f"params.yaml: arms: no arm is asked for; name some there, such as `arms: {{retrieved: {{}}}}`, or on "
                f"the command line: `ratoon arms retrieved`\n  there are {', '.join(type(self).model_fields)}"
            )
        return ArmsConfig(**{name: getattr(self, name) or defaults[name] for name in wanted})
