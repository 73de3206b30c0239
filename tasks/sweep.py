"""Proxy runs, the laws fitted on them, and the ratio they advise."""

import json
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records
from ratoon.config import ConfigError
from ratoon.laws.decision.choose import choose
from ratoon.laws.design.advice import advise
from ratoon.laws.design.drift import compare, recalibrated
from ratoon.records import Choice, Observation
from ratoon.stream.rows import Rows
from ratoon.training.growth import Question, grow, size_of
from ratoon.training.joint import settle
from ratoon.training.request import Request, Result
from ratoon.training.supervise import supervise
from ratoon.training.sweep import Plan, SweepRequest, SweepResult, group_tokens
from ratoon.training.trunk import trunk_of
from tasks import tracking
from tasks.artifacts import show_choice
from tasks.job import Job
from tasks.live import stage
from tasks.prepare import path_of
from tasks.retry import healing
from tasks.train import clear, parent_trunk

CHOSEN = "observations-chosen.csv"  # of a sweep of several rates or schedules, those of the one that was chosen


@healing("proxies of {job.line}")
def run_proxies(job: Job, parent_run: str | None) -> list[Observation]:
    """The grid that was asked for, or a sweep that grows; finished groups of an interrupted one are kept."""
    plan = plan_of(job)
    if job.params.sweep.ratios is None:
        result = grown(question_of(job, plan), job.line)
    else:
        request = plan.request(plan.grid(), plan.out)
        with stage("sweep", "tokens", sum(group_tokens(group) for group in request.groups), job.line) as shown:
            supervise("sweep", request, plan.out, on_line=lambda line: shown.update(line["tokens"]))
        result = records.read(plan.out / "result.json", SweepResult)
    found = list(result.observations)
    tracking.log_sweep(job.line, job.folder.name, found, plan.out, parent_run)
    return found


def grown(question: Question, line: str) -> SweepResult:
    """Rounds of proxies, each planned from those before."""
    with stage("sweep", "tokens", line=line) as shown:
        before = 0.0

        def carry_out(request: SweepRequest, folder: Path) -> None:
            nonlocal before
            total = before + sum(group_tokens(group) for group in request.groups)
            supervise("sweep", request, folder, on_line=lambda line: shown.update(before + line["tokens"], total))
            before = total

        return grow(question, carry_out, lambda said: shown.update(shown.done, note=said))


def plan_of(job: Job) -> Plan:
    models = {**family(job), job.base.name: job.parent}
    trunks = {label: trunk for label, model in models.items() if (trunk := parent_trunk(job, model)) is not None}
    return Plan(
        models,
        job.corpora,
        job.params.sweep,
        job.params.train,
        job.folder / "sweep",
        job.common,
        choose=job.params.choose,
        trunks=trunks,
    )


def question_of(job: Job, plan: Plan) -> Question:
    sizes = {label: size_of(model) for label, model in plan.models.items()}
    return Question(plan, sizes, job.params.choose, tuple(former(job)))


def former(job: Job) -> list[Observation]:
    """The sweep of the refresh before this one; none before the first."""
    pointer = job.layout.latest(job.line)
    if not pointer.exists():
        return []
    folder = pointer.parent / json.loads(pointer.read_text(encoding="utf-8"))["folder"]
    table = folder / "sweep" / CHOSEN
    table = table if table.exists() else folder / "sweep" / "observations.csv"
    return [] if folder == job.folder or not table.exists() else records.read_observations(table)


def family(job: Job) -> dict[str, Path]:
    """Smaller models with the parent's history, as further sizes of the sweep.

    A base's family is declared. A champion's is made here when first asked for: each member continued as the
    champion was, so that it stands to the champion as it stood to the base.
    """
    root = job.layout.root
    members = {name: path_of(config.base(root, name), root) for name in job.base.family}
    for request in history(job):
        members = {name: continued(name, path, request, job.line) for name, path in members.items()}
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


def continued(name: str, member: Path, request: Request, line: str) -> Path:
    """`member` trained as `request` trained its model; kept beside that run."""
    out, trunk = Path(request.out) / "family" / name, request.trunk and trunk_of(member)
    if request.trunk is not None and trunk is None:
        raise ConfigError(
            f"{member}: {name} of the family has kept no trunk, and {request.name}, which it is to follow, went on "
            f"from one; without it {name} would be annealed twice: set train.trunk: keep, which begins a new trunk, or "
            f"leave {name} out of the base's family"
        )
    again = request.model_copy(
        update={
            "name": f"{request.name}-{name}",
            "label": name,
            "model": str(member),
            "out": str(out),
            "trunk": trunk,
            "recipe": request.recipe.model_copy(update={"evaluations": 1, "checkpoints": 1, "processes": 1}),
        }
    )
    clear(out)
    if not (out / "result.json").exists():
        with stage("family", "tokens", again.recipe.tokens, line) as shown:
            supervise("run", again, out, on_line=lambda told: shown.update(told["tokens"], note=name))
    return Path(records.read(out / "result.json", Result).model)


@task(task_run_name="choose the ratio of {job.line}", cache_policy=NO_CACHE)
def choose_ratio(job: Job, observations: list[Observation]) -> Choice:
    """Fit the laws and take the largest domain share that keeps general loss under its ceiling."""
    asked = question_of(job, plan_of(job))
    stakes = asked.stakes(observations)
    settled = settle(asked.plan, observations, asked.params, stakes)
    if settled.said:
        observations = settled.observations
        records.write_observations(job.folder / "sweep" / CHOSEN, observations)
    drift = compare(asked.former, observations, params=asked.params, tokens=asked.tokens, seed=asked.config.seed)
    # A sweep that grew is as short as the former law let it be, and is read with it.
    alone = drift is None or job.params.sweep.ratios is not None
    prior = [] if drift is None or alone else recalibrated(asked.former, drift, asked.params)
    choice = choose(
        [*observations, *prior],
        params_non_embedding=asked.params,
        tokens=asked.tokens,
        parent_general=stakes.general,
        parent_domain=stakes.domain,
        config=asked.config,
        available_domain_tokens=sum(
            Rows.open(Path(c.rows), "train", job.base.row_tokens).num_tokens
            for c in job.corpora.values()
            if c.role == "domain"
        ),
    )
    among = asked.options(observations)
    choice = advise(choice, observations, stakes=stakes, rule=asked.rule, among=among)
    missing = records.read(job.folder / "sweep" / "result.json", SweepResult).stopped
    choice = choice.model_copy(
        update={
            "drift": drift.statement if drift else None,
            "learning_rate": settled.learning_rate,
            "schedule": settled.schedule and settled.schedule.model_dump(mode="json"),
            "warnings": (*choice.warnings, *settled.said, *(one.said for one in missing)),
        }
    )
    records.write(job.folder / "choice.json", choice)
    show_choice(job.line, choice, job.folder)
    return choice
