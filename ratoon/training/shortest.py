"""What the shortest run of a sweep must reach: else it is of another recipe than the target, its loss of another law.

A warm-up, a phase, growing rows and methods that come to act at a step are part of the recipe at their own place:
shares of a run scale with it, steps and tokens do not.
"""

from collections.abc import Iterator

from ratoon.config import ConfigError, SweepConfig, TrainConfig


def check_shortest(sweep: SweepConfig, recipe: TrainConfig, shortest: int, step_tokens: int) -> None:
    """Raises ConfigError, with what to change, where a run of so many tokens ends before all of that was."""
    warmup = recipe.schedule.warmup_steps * step_tokens
    said = f"params.yaml: sweep: the shortest of {sweep.horizons} horizons is {shortest:,} tokens"
    if shortest <= warmup:
        raise ConfigError(
            f"{said}, not more than the warm-up of {warmup:,}; raise sweep.tokens, or lower sweep.horizons or "
            f"train.schedule.warmup_steps"
        )
    for key, tokens in begins(recipe, step_tokens):
        if shortest <= tokens:
            raise ConfigError(
                f"{said}, and {key} first acts after {tokens:,}: shorter proxies would be of another recipe than the "
                f"target; raise sweep.tokens, or lower sweep.horizons or {key}"
            )


def begins(recipe: TrainConfig, step_tokens: int) -> Iterator[tuple[str, int]]:
    """(key, tokens before what it says is done for the first time), of what is asked for at a fixed place."""
    mixture, forgetting, loss = recipe.mixture, recipe.forgetting, recipe.loss
    for name, parts in (("phases", mixture.phases), ("lengths", mixture.lengths)):
        if fixed := [round(part.until) for part in parts if part.until > 1]:
            yield f"train.mixture.{name}", max(fixed)
    if forgetting.anchor.epsilon < 1:
        yield "train.forgetting.anchor.every", (forgetting.anchor.every - 1) * step_tokens
    if forgetting.average.decay > 0:
        yield "train.forgetting.average.start", forgetting.average.start * step_tokens
    if loss.reweight is not None:
        yield "train.loss.reweight.burn_in_steps", loss.reweight.burn_in_steps * step_tokens
