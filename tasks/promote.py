"""The registry, and the record of a whole refresh."""

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from ratoon import records, report
from ratoon.lm.suitable import license_of
from ratoon.records import Choice, Lineage, Observation, Refresh, Verdict
from ratoon.training.request import Result
from tasks import tracking, versions
from tasks.job import Job, digest, finish
from tasks.names import artifact_key
from tasks.prepare import ledgers, path_of
from tasks.retry import weather

PACKAGES = ("torch", "transformers", "lm_eval", "prefect", "mlflow", "dvc", "numpy", "pyarrow", "tokenizers")


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=weather)
def register(job: Job, verdict: Verdict, run_id: str) -> int:
    """The candidate as a version of the model line; the champion's alias moves only if it was promoted.

    One that asks is the line's challenger: nothing waits for a person, who may come any day (flows/promote.py).
    """
    tags = {
        "verdict": tracking.SAID[verdict.decision],
        "gate": verdict.decision,  # stays, whatever a person decides
        "report": str((job.folder / "report.html").resolve()),
        "reasons": "\n".join(verdict.reasons),
        "parent": str(job.parent_version or job.base.name),
        "question": job.question,
        "license": license_of(path_of(job.base, job.layout.root), job.base) or "none declared",
        **{f"edition.{path}": md5 for path, md5 in job.editions.items()},
    }
    version = tracking.register(job.line, Path(verdict.candidate), run_id, tags)
    if verdict.promoted:
        tracking.promote(job.line, version)
    elif verdict.decision == "ask":
        tracking.challenge(job.line, version, verdict.reasons)
    else:
        tracking.refuse(job.line, version, verdict.reasons)
    return version


@task(cache_policy=NO_CACHE)
def conclude(
    job: Job,
    *,
    started: datetime,
    seconds: dict[str, float],
    runs: dict[str, str],
    version: int | None,
) -> Refresh:
    """Everything the refresh left, as one record, one page and one Prefect artifact."""
    result = records.read(job.folder / "train" / "result.json", Result)
    commit, dirty = versions.commit(job.layout.root)
    refresh = Refresh(
        name=f"{job.line} {started:%Y-%m-%d %H:%M}",
        line=job.line,
        base=job.base.name,
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        params=job.params.model_dump(mode="json"),
        ledgers=ledgers(job.layout, job.base, job.sources),
        observations=sweep_observations(job),
        curve=result.observations,
        choice=records.read(job.folder / "choice.json", Choice),
        verdict=records.read(job.folder / "verdict.json", Verdict),
        version=version,
        lineage=Lineage(
            commit=commit,
            dirty=dirty,
            config=digest(job.params.model_dump(mode="json")),
            parent=f"{job.line} v{job.parent_version}" if job.parent_version else job.base.name,
            license=license_of(path_of(job.base, job.layout.root), job.base),
            editions=job.editions,
            mlflow_runs=runs,
            packages={name: importlib.metadata.version(name) for name in PACKAGES},
        ),
    )
    finish(job, refresh)
    tell(job, refresh, links_of(refresh))
    show(job, refresh)
    return refresh


def tell(job: Job, refresh: Refresh, links: dict[str, str]) -> None:
    """The page, the model card, and the card where a hub and transformers' readers look for it."""
    report.write(refresh, job.folder / "report.html", links)
    card = report.write_card(refresh, job.folder, report.hub_name(job.base, job.layout.root))
    if (model := Path(refresh.verdict.candidate)).is_dir():
        records.write_text(model / tracking.CARD, card.read_text(encoding="utf-8"))


@task(cache_policy=NO_CACHE)
def tell_again(job: Job, refresh: Refresh) -> None:
    """With what came after the verdict: the arms."""
    tell(job, refresh, links_of(refresh))


def links_of(refresh: Refresh) -> dict[str, str]:
    runs = refresh.lineage.mlflow_runs
    return {f"MLflow: {what}": page for what, run_id in runs.items() if (page := tracking.link(run_id))}


def link_of(refresh: Refresh, page: Path) -> str:
    """Where a message points: the run on MLflow's page if there is one, with the report among its files."""
    found = tracking.link(refresh.lineage.mlflow_runs["refresh"])
    return "\n".join([*([found] if found else []), f"report: {page.resolve().as_uri()}"])


def headline(refresh: Refresh) -> dict[str, float]:
    """What one refresh is compared with another by."""
    changes = {
        f"{item.benchmark}/{item.source}/change": (item.relative or item.difference).value
        for item in refresh.verdict.comparisons
    }
    return {"domain_share": refresh.choice.share, "promoted": float(refresh.verdict.promoted), **changes}


def sweep_observations(job: Job) -> tuple[Observation, ...]:
    return tuple(records.read_observations(job.folder / "sweep" / "observations.csv"))


def show(job: Job, refresh: Refresh) -> None:
    """On the Prefect page of the run."""
    create_markdown_artifact(key=artifact_key(job.line, "verdict"), markdown=f"```\n{report.summary(refresh)}\n```")
    page = (job.folder / "report.html").resolve().as_uri()
    create_link_artifact(key=artifact_key(job.line, "report"), link=page, link_text="report")
