"""The registry, and the record of a whole refresh."""

import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path

from ratoon import records, report
from ratoon.lm.suitable import license_of
from ratoon.records import Choice, Lineage, Observation, Refresh, Verdict
from ratoon.training.request import Result
from tasks import commits, tracking
from tasks.artifacts import show_verdict
from tasks.job import Job, digest, finish
from tasks.origin import TAG, of_folder
from tasks.prepare import ledgers, path_of
from tasks.retry import healing

PACKAGES = ("torch", "transformers", "lm_eval", "prefect", "mlflow", "dvc", "numpy", "pyarrow", "tokenizers")


@healing("register the candidate of {job.line}")
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
        "commit": commits.commit(job.layout.root)[0],
        "domain_share": records.read(job.folder / "choice.json", Choice).share,
        **{f"edition.{path}": md5 for path, md5 in job.editions.items()},
    }
    if name := of_folder(job.folder):
        tags[TAG] = name
    version = tracking.register(job.line, Path(verdict.candidate), run_id, tags, described(job, verdict))
    if verdict.promoted:
        tracking.promote(job.line, version)
    elif verdict.decision == "ask":
        tracking.challenge(job.line, version, verdict.reasons)
    else:
        tracking.refuse(job.line, version, verdict.reasons)
    return version


def described(job: Job, verdict: Verdict) -> str:
    """What a person reads on the version's page: verdict, lineage, and where the report is."""
    parent = f"{job.line} v{job.parent_version}" if job.parent_version else job.base.name
    share = records.read(job.folder / "choice.json", Choice).share
    learned = ", ".join(s.name for s in job.sources if s.role == "domain")
    page = (job.folder / "report.html").resolve()
    return (
        f"**{tracking.SAID[verdict.decision]}**: {verdict.reasons[0]}\n\n"
        f"{parent} continued on {share:.0%} {learned}.\n\n"
        f"[report]({page.as_uri()}) `{page}`"
    )


@healing("record the refresh of {job.line}")
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
    commit, dirty = commits.commit(job.layout.root)
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
    show_verdict(refresh, job.folder / "report.html")
    return refresh


def tell(job: Job, refresh: Refresh, links: dict[str, str]) -> None:
    tell_in(job.folder, refresh, links, report.hub_name(job.base, job.layout.root))


def tell_in(folder: Path, refresh: Refresh, links: dict[str, str], known_as: str | None) -> Path:
    """The page, the model card, and the card where a hub and transformers' readers look for it."""
    report.write(refresh, folder / "report.html", links)
    card = report.write_card(refresh, folder, known_as)
    if (model := Path(refresh.verdict.candidate)).is_dir():
        records.write_text(model / tracking.CARD, card.read_text(encoding="utf-8"))
    return card


@healing()
def tell_again(job: Job, refresh: Refresh) -> None:
    """With what came after the verdict: arms, judges."""
    tell(job, refresh, links_of(refresh))


def links_of(refresh: Refresh) -> dict[str, str]:
    runs = refresh.lineage.mlflow_runs
    found = {f"MLflow: {what}": tracking.link(run_id) for what, run_id in runs.items()}
    found["MLflow: all refreshes"] = tracking.view_link(refresh.line, "refreshes")
    found["MLflow: proxy runs"] = tracking.view_link(refresh.line, "proxies")
    return {what: page for what, page in found.items() if page}


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
