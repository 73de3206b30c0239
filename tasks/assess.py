"""Candidate and parent on the same items."""

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config
from ratoon.config import ConfigError
from ratoon.corpus.portions import shares
from ratoon.evaluation import gate, harness, paired, prompts, suite
from ratoon.records import Verdict
from ratoon.records import read as read_record
from ratoon.records import write as write_record
from ratoon.training.request import Result
from tasks import tracking
from tasks.job import Job
from tasks.live import stage

Report = Callable[[int, int], None]


@task(cache_policy=NO_CACHE)
def score_both(job: Job, candidate: Path) -> dict[str, Path]:
    """Build the suite from held-out text and score parent and candidate on it. Scores already there are kept."""
    out = job.folder / "assess"
    benchmarks = [config.benchmark(job.layout.root, path.stem) for path in declared(job)]
    sources = {
        share.name: (s.role, job.layout.clean(s.name) / share.folder)
        for s in job.sources
        for share in shares(s, job.layout.clean(s.name))
    }
    suite.build(benchmarks, sources, job.params.assess, out / "suite", job.layout.root)
    recipe = job.params.train
    models = {"parent": job.parent, "candidate": candidate}
    with stage("assess", "rows", None) as shown:
        for number, (name, model) in enumerate(models.items()):

            def report(done: int, total: int, name: str = name, number: int = number) -> None:
                shown.update(number * total + done, 2 * total, note=name)

            def score(tests: Path, into: Path, model: Path = model, report: Report = report) -> dict[str, float]:
                scores = harness.score(
                    model,
                    tests,
                    into,
                    row_tokens=job.base.row_tokens,
                    device=recipe.device,
                    precision="fp32" if recipe.precision == "fp32" else "bf16",
                    threads=recipe.threads,
                    report=report,
                )
                return {task.task: task.value for task in scores.tasks}

            score(prompts.settle(out / "suite", out / f"{name}-prompts", score), out / name)
    return {name: out / name for name in models}


def candidate_of(job: Job) -> Path:
    """The model the training of this job left."""
    result = job.folder / "train" / "result.json"
    if not result.exists():
        raise ConfigError("nothing was trained for this text and these parameters yet; run `ratoon train` first")
    return Path(read_record(result, Result).model)


def declared(job: Job) -> list[Path]:
    return sorted((job.layout.root / "data" / "benchmarks").glob("*.yaml"))


@task(cache_policy=NO_CACHE)
def judge(job: Job, scores: dict[str, Path], candidate: Path, parent_run: str | None) -> Verdict:
    """Paired comparison and the gate; the verdict and every item's score are kept with the run."""
    out = job.folder / "assess"
    comparisons = paired.compare(scores["parent"], scores["candidate"], out / "suite", job.params.assess)
    verdict = gate.judge(comparisons, job.params.promote, parent=str(job.parent), candidate=str(candidate))
    write_record(job.folder / "verdict.json", verdict)
    with tracking.run(job.line, "assess", kind="assess", parent_run_id=parent_run) as run:
        run.params(job.params.assess.model_dump(mode="json"))
        for item in comparisons:
            for arm in ("parent", "candidate", "difference"):
                run.metrics({f"{item.benchmark}/{item.source}/{arm}": getattr(item, arm).value})
        for folder in scores.values():
            for file in sorted(folder.glob("*.parquet")):
                run.artifact(file, folder.name)
        run.artifact(job.folder / "verdict.json")
    return verdict
