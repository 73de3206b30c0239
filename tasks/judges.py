"""The candidate's training again under other seeds, every checkpoint scored: which tasks may judge."""

from dataclasses import replace
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records
from ratoon.config import ArmsConfig, Ask, ConfigError, TrajectoryConfig
from ratoon.config.arms import Seeded
from ratoon.evaluation import judges
from ratoon.evaluation.judges import Judges
from ratoon.evaluation.trajectory import Trajectory
from ratoon.training.controls import control
from ratoon.training.disk import discard
from ratoon.training.request import Request
from tasks.arms import Study, study_of
from tasks.disk import room
from tasks.history import followed, kept_models
from tasks.job import Job, resolve
from tasks.retry import healing
from tasks.room import kept_bytes
from tasks.train import carry_out, chosen_share, request_of

RECORD = "judges.json"
OWN = "the candidate"
SEED = "seed "  # and its number: what a run is called


@task(cache_policy=NO_CACHE)
def open_judges(root: Path, ask: Ask) -> Study:
    """The candidate's weights need not be there: seeds begin at its parent, and its own checkpoints were scored."""
    now, *_ = resolve(root, ask)
    return study_of(root, ask, now, ArmsConfig(second_seed=Seeded()), "its seeds")


def asked_of(study: Study) -> TrajectoryConfig:
    """As the refresh's own checkpoints were asked; where they were not, as params.yaml has it now. No probes."""
    job = study.job
    now = config.load(job.layout.root, budget=job.ask.budget, changes=job.ask.changes()).assess.trajectory
    found = job.params.assess.trajectory or now or TrajectoryConfig()  # type: ignore[call-arg]
    return found.model_copy(update={"probe": False})


def job_of(study: Study) -> Job:
    """The refresh's own job, its checkpoints kept."""
    assess = study.job.params.assess.model_copy(update={"trajectory": asked_of(study)})
    return replace(study.job, params=study.job.params.model_copy(update={"assess": assess}))


def seeds_of(study: Study, given: tuple[int, ...]) -> tuple[int, ...]:
    """Those given, or as many as make enough runs with the refresh's own checkpoints, where these were scored."""
    own, least = study.job.params.train.seed, asked_of(study).quality.min_runs
    if own in given:
        raise ConfigError(
            f"ratoon judges --seeds: {own} is the seed the candidate was trained with; give others, such as {own + 1}"
        )
    if len(set(given)) < len(given):
        raise ConfigError(f"ratoon judges --seeds: {' '.join(map(str, given))}: each seed is one run; give each once")
    wanted = least - (own_run(study) is not None)
    return given or tuple(own + k for k in range(1, wanted + 1))


def own_run(study: Study) -> Trajectory | None:
    """Of the refresh itself, where it scored its checkpoints and has enough of them to tell its noise by."""
    path, asked = study.job.folder / "trajectory.json", study.job.params.assess.trajectory
    if not path.exists() or asked is None:
        return None
    found = records.read(path, Trajectory)
    enough = sum(step > 0 for step in found.steps) >= asked.quality.last
    return found.model_copy(update={"run": OWN}) if enough else None


def checkpoints_of(study: Study) -> int:
    """How many a seed saves: at least so many that the last ones, whose spread is the noise, are of its second half.

    Those of the refresh may be fewer: when they are saved decides no number.
    """
    return max(study.job.params.train.checkpoints, 2 * asked_of(study).quality.last)


@healing("follow seed {seed}")
def follow_seed(study: Study, seed: int, parent_run: str | None) -> Trajectory:
    """One run with this seed, its checkpoints scored. One that is there is read back; a killed one goes on."""
    job, folder = job_of(study), study.job.folder / "judges" / f"seed-{seed}"
    checkpoints, told = checkpoints_of(study), folder / "trajectory.json"
    if not has_saved(folder / "train", checkpoints):
        told.unlink(missing_ok=True)
        room(job.layout.root, folder, kept_bytes(job, checkpoints), f"{SEED}{seed}")
        target = request_of(job, chosen_share(job))
        request = control("second_seed", Seeded(seed=seed), target, job.params.train, folder)
        recipe = request.recipe.model_copy(update={"checkpoints": checkpoints})
        request = request.model_copy(update={"name": f"{request.name}-{seed}", "recipe": recipe})
        carry_out(job, request, f"{SEED}{seed}", parent_run)
    elif told.exists():
        before = records.read(told, Trajectory)
        if not {*before.steps} <= {0, *kept_models(folder / "train")}:
            return before  # its weights are gone, as `ratoon gc` lets them go; what was measured stands
    found = followed(job, folder, f"{SEED}{seed}")  # a checkpoint that was scored on these items is not scored again
    records.write(told, found)
    return found


def has_saved(run: Path, checkpoints: int) -> bool:
    """Whether `run` has ended with as many. One that ended with fewer, or whose model was never scored and is gone, is
    removed: it is to be made again."""
    if not (run / "result.json").exists():
        return False
    many = records.read(run / "request.json", Request).recipe.checkpoints >= checkpoints
    if many and ((run.parent / "trajectory.json").exists() or kept_models(run)):
        return True
    discard(run)
    return False


def seed_of(run: Trajectory) -> int:
    return int(run.run.removeprefix(SEED))


@task(cache_policy=NO_CACHE)
def conclude_judges(study: Study, measured: list[Trajectory]) -> Judges:
    """Those measured now, and what earlier commands measured that began alike and has no fewer checkpoints."""
    own, least = own_run(study), min((len(run.steps) for run in measured), default=0)
    seeds = {seed_of(run): run for run in measured}
    alike = [own] if own else measured[:1]
    for path in study.job.folder.glob("judges/seed-*/trajectory.json"):
        before = records.read(path, Trajectory)
        if len(before.steps) >= least and judges.parted([*alike, before]) is None:
            seeds.setdefault(seed_of(before), before)
    found = judges.together(
        [*([own] if own else []), *(seeds[seed] for seed in sorted(seeds))],
        asked_of(study).quality,
        refresh=study.refresh.name,
        line=study.job.line,
        parent=str(study.job.parent),
    )
    records.write(study.job.folder / RECORD, found)
    return found
