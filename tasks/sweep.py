"""Proxy runs, the laws fitted on them, and the ratio they advise."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records
from ratoon.laws.choose import choose
from ratoon.records import Choice, Observation
from ratoon.stream.rows import Rows
from ratoon.training.request import Request, Result
from ratoon.training.supervise import supervise
from ratoon.training.sweep import SweepResult, group_tokens, plan
from tasks import tracking
from tasks.job import Job
from tasks.live import stage
from tasks.prepare import path_of
from tasks.retry import weather


@task(cache_policy=NO_CACHE, retries=1, retry_delay_seconds=5, retry_condition_fn=weather)
def run_proxies(job: Job, parent_run: str | None) -> list[Observation]:
    """Every size at every ratio; finished groups of an interrupted sweep are kept."""
    out = job.folder / "sweep"
    request = plan(
        {**family(job), job.base.name: job.parent}, job.corpora, job.params.sweep, job.params.train, out, **job.common
    )
    total = sum(group_tokens(group) for group in request.groups)
    with stage("sweep", "tokens", total) as shown:
        supervise("sweep", request, out, on_line=lambda line: shown.update(line["tokens"]))
    found = list(records.read(out / "result.json", SweepResult).observations)
    tracking.log_sweep(job.line, job.folder.name, found, out, parent_run)
    return found


def family(job: Job) -> dict[str, Path]:
    """Smaller models with the parent's history, as further sizes of the sweep.

    A base's family is declared. A champion's is made here when first asked for: each member continued as the
    champion was, so that it stands to the champion as it stood to the base.
    """
    root = job.layout.root
    members = {name: path_of(config.base(root, name), root) for name in job.base.family}
    for request in history(job):
        members = {name: continued(name, path, request) for name, path in members.items()}
    return members


def history(job: Job) -> list[Request]:
    """The training requests that led from the base to the parent, oldest first."""
    found: list[Request] = []
    folder: Path | None = job.parent
    while folder is not None:
        run = next((up for up in folder.parents if (up / "request.json").exists()), None)
        if run is None:
            break
        request = records.read(run / "request.json", Request)
        found.insert(0, request)
        folder = Path(request.model)
    return [request for request in found if not request.name.startswith("base-")]


def continued(name: str, member: Path, request: Request) -> Path:
    """`member` trained as `request` trained its model; kept beside that run."""
    out = Path(request.out) / "family" / name
    again = request.model_copy(
        update={
            "name": f"{request.name}-{name}",
            "label": name,
            "model": str(member),
            "out": str(out),
            "recipe": request.recipe.model_copy(update={"evaluations": 1, "checkpoints": 1}),
        }
    )
    if not (out / "result.json").exists():
        with stage("family", "tokens", again.recipe.tokens) as shown:
            supervise("run", again, out, on_line=lambda line: shown.update(line["tokens"], note=name))
    return Path(records.read(out / "result.json", Result).model)


@task(cache_policy=NO_CACHE)
def choose_ratio(job: Job, observations: list[Observation]) -> Choice:
    """Fit the laws and take the largest domain share that keeps general loss under its ceiling."""
    size = next(o.params_non_embedding for o in observations if o.model == job.base.name)
    parent = records.parent_losses(observations, size)
    choice = choose(
        observations,
        params_non_embedding=size,
        tokens=job.params.train.tokens,
        parent_general=parent["general"],
        parent_domain=parent["domain"],
        config=job.params.choose,
        available_domain_tokens=sum(
            Rows.open(Path(c.rows), "train", job.base.row_tokens).num_tokens
            for c in job.corpora.values()
            if c.role == "domain"
        ),
    )
    records.write(job.folder / "choice.json", choice)
    return choice
