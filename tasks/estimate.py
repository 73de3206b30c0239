"""What the target run and the sweep will cost, and whether the budget allows it."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from ratoon import config, records
from ratoon.config import ConfigError
from ratoon.training import guard
from ratoon.training.estimate import Estimate, SweepEstimate, estimate, estimate_sweep
from ratoon.training.growth import start
from ratoon.training.probe import Probe, measure, way_of
from ratoon.training.proxies import Group, group_tokens
from ratoon.training.request import Request, ended
from ratoon.training.stack_probe import StackProbe, measure_stack
from ratoon.training.stacked import Bundle, bundles
from ratoon.training.sweep import Plan
from tasks.job import Job
from tasks.live import stage
from tasks.prepare import path_of
from tasks.train import chosen_share, parent_trunk, request_of


@task(cache_policy=NO_CACHE)
def check_budget(job: Job) -> None:
    """Refuse a target run that would not end within train.budget. Without a limit nothing is measured."""
    budget, request = job.params.train.budget, target(job)
    if not budget.limited or ended(job.folder / "train") is not None:
        return
    # The folder is this question's: asked again, it costs the same where it is carried out in the same way.
    kept = job.folder / f"probe-{way_of(request)}.json"
    probe = records.read(kept, Probe) if kept.exists() else probed(request)
    records.write(kept, probe)
    guard.check(estimate(request, probe), probe, budget)


def estimate_target(job: Job) -> tuple[Estimate, str | None]:
    """What the target run costs, and the letter that would refuse it."""
    request = target(job)
    probe = probed(request)
    found = estimate(request, probe)
    try:
        guard.check(found, probe, job.params.train.budget)
    except ConfigError as refused:
        return found, str(refused)
    return found, None


def estimate_proxies(job: Job) -> tuple[SweepEstimate, SweepEstimate | None]:
    """What the sweep costs; of one that grows, the most it may, and what it begins with."""
    plan = plan_to_count(job)
    first = start(plan) if plan.sweep.ratios is None else []
    groups = at_most(plan) if first else plan.grid()
    labels = {group.request.label: one_process(group.request) for group in (*groups, *first)}
    probes = {label: probed(request, min(plan.workers, len(groups))) for label, request in labels.items()}
    if first:  # a round has as many groups as run at once: nothing is left to stack
        most = estimate_sweep(plan.request(groups, plan.out).groups, probes, plan.workers)
        return most, estimate_sweep(plan.request(first, plan.out).groups, probes, plan.workers)
    asked = plan.request(groups, plan.out)
    together = bundles(asked.groups, asked.stacked, asked.workers)
    return estimate_sweep(asked.groups, probes, plan.workers, together, stack_probes(together, asked.workers)), None


def one_process(request: Request) -> Request:
    """Proxies are one process each, whatever the target is."""
    return request.model_copy(update={"recipe": request.recipe.model_copy(update={"processes": 1})})


def stack_probes(together: list[Bundle], workers: int) -> dict[tuple[str, int], StackProbe]:
    """Of each size of a stack, measured with as many at once as there are."""
    stacks = {(bundle[0].request.label, len(bundle)): bundle for bundle in together if len(bundle) > 1}
    return {
        key: measure_stack([group.request for group in bundle], min(workers, len(together)))
        for key, bundle in stacks.items()
    }


def target(job: Job) -> Request:
    """The target run at the share that was chosen or asked for; half and half before that, which costs the same."""
    try:
        return request_of(job, chosen_share(job))
    except ConfigError:
        return request_of(job, 0.5)


def probed(request: Request, copies: int = 1) -> Probe:
    with stage("estimate", "tokens") as shown:
        shown.update(0, note=request.label)
        return measure(request, copies)


def plan_to_count(job: Job) -> Plan:
    """The sweep's plan with the bases themselves for a family: continued as the champion was, they cost the same."""
    root = job.layout.root
    models = {name: path_of(config.base(root, name), root) for name in job.base.family}
    models[job.base.name] = job.parent
    trunks = {label: trunk for label, model in models.items() if (trunk := parent_trunk(job, model)) is not None}
    return Plan(
        models, job.corpora, job.params.sweep, job.params.train, job.folder / "sweep", job.common, trunks=trunks
    )


def at_most(plan: Plan) -> list[Group]:
    """Groups of the target's own size at full length, as many as may be made."""
    one = plan.group(plan.own, plan.sweep.start[0])
    number = plan.sweep.max_runs
    if plan.sweep.budget is not None:
        number = min(number, int(plan.sweep.budget * plan.recipe.tokens / group_tokens(one)))
    return [one] * max(number, len(plan.sweep.start))
