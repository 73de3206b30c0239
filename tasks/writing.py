"""How parent and candidate write, and how sure they are of their answers."""

from pathlib import Path

from ratoon.corpus.portions import shares
from ratoon.evaluation import suite, writing
from ratoon.evaluation.health import Health
from ratoon.records import write
from tasks import tracking
from tasks.job import Job
from tasks.retry import healing


@healing("how {job.line} writes")
def look_at_writing(job: Job, scores: dict[str, Path], candidate: Path, parent_run: str | None) -> Health:
    """health.json beside the verdict, prompts and outputs in health.parquet; both and every mean with the run.

    scores   arm -> folder of its scores
    """
    recipe = job.params.train
    models = writing.Models(
        parent=job.parent,
        candidate=candidate,
        row_tokens=job.base.row_tokens,
        device=recipe.device,
        precision="fp32" if recipe.precision == "fp32" else "bf16",
        threads=recipe.threads,
    )
    places = {
        share.name: writing.Place(s.role, job.layout.clean(s.name) / share.folder, Path(job.corpora[share.name].rows))
        for s in job.sources
        for share in shares(s, job.layout.clean(s.name))
    }
    tests = suite.load(job.folder / "assess" / "suite")
    found = writing.assess(models, places, scores, tests, job.params.assess, job.folder / "health.parquet")
    write(job.folder / "health.json", found)
    with tracking.run(job.line, "health", kind="assess", parent_run_id=parent_run) as run:
        run.metrics(means(found))
        for file in sorted(job.folder.glob("health.*")):
            run.artifact(file)
    return found


def means(found: Health) -> dict[str, float]:
    """As a tracker takes them: numbers by name, what was not measured left out."""
    named: dict[str, float | None] = {}
    for writing_of in found.writing:
        for measure in writing_of.measures:
            for arm in ("parent", "candidate", "text"):
                named[f"{measure.name}/{writing_of.source}/{arm}"] = getattr(measure, arm)
    for valid in found.valid:
        named |= {
            f"valid/{valid.benchmark}/{valid.source}/{arm}": getattr(valid, arm) for arm in ("parent", "candidate")
        }
    for item in found.calibration:
        for arm in ("parent", "candidate"):
            named[f"calibration_error/{item.benchmark}/{item.source}/{arm}"] = getattr(item, arm).ece
    return {name: value for name, value in named.items() if value is not None}
