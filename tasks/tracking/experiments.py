"""The experiment of a model line: its description, and views of its runs that need no setting up in MLflow's page.

A view is a tag of the experiment, as the page itself keeps one that is shared: a filter, columns, order and charts. The
page opens it by its key: `#/experiments/1/runs?viewStateShareKey=proxies`.

Whether the page shows training runs or agents and traces is a switch of the browser's ("Machine learning"), off at
first. MLflow 3.17 reads no experiment's kind for it, but each address may carry it: ours do.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ratoon.config import ConfigError, Role
from tasks import reach
from tasks.reach import shown
from tasks.tracking.connection import LONGEST_TAG, ask, store

VIEW_TAG = "mlflow.sharedViewState."
TITLES = {
    "refreshes": "every refresh, what it gained and lost",
    "proxies": "proxy runs by domain share",
    "training": "target runs by tokens",
}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # what MLflow before and beside 3.17 opens it by
TRAINING = "workflowType=machine_learning"  # of an address: the page for training runs, with the model registry
Chart = dict[str, Any]


def experiment_of(line: str) -> str:
    """The id of the line's experiment, made where it is new."""
    from mlflow.exceptions import MlflowException

    found = ask("get_experiment_by_name", line)
    if found is None:
        try:
            return str(ask("create_experiment", line, artifact_location=reach.artifacts(store()), tags=KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = ask("get_experiment_by_name", line)  # another run made it in the meantime
    if found.lifecycle_stage == "deleted":
        raise ConfigError(
            f"MLflow at {shown(store())}: experiment {line!r} was deleted; "
            f"`mlflow experiments restore -x {found.experiment_id}` brings it back, or name another refresh.model"
        )
    return str(found.experiment_id)


def lay_out(line: str, sources: Mapping[str, Role]) -> None:
    """Describe the line's experiment and set its views up for these sources. What a person wrote there stays."""
    experiment = experiment_of(line)
    tags = ask("get_experiment", experiment).tags
    wanted = {f"{VIEW_TAG}{name}": text for name, text in fitting(sources).items()}
    wanted |= {key: value for key, value in KIND.items() if key not in tags}  # made by hand, or before there were kinds
    said = description(line, experiment, sources)
    # A person's own words are not written over.
    if tags.get("mlflow.note.content", "") in ("", tags.get("ratoon.note", "")):
        wanted |= dict.fromkeys(("mlflow.note.content", "ratoon.note"), said[:LONGEST_TAG])
    for key, value in wanted.items():
        if tags.get(key) != value:
            ask("set_experiment_tag", experiment, key, value)


def description(line: str, experiment: str, sources: Mapping[str, Role]) -> str:
    protects = ", ".join(name for name, role in sources.items() if role == "general")
    learns = ", ".join(name for name, role in sources.items() if role == "domain")
    pages = "\n".join(f"- [{title}](#{path(experiment, name)})" for name, title in TITLES.items())
    return f"Refreshes of the model line **{line}**. It learns {learns} and is to keep {protects}.\n\n{pages}"


def path(experiment: str, view: str) -> str:
    return f"/experiments/{experiment}/runs?viewStateShareKey={view}&compareRunsMode=CHART&{TRAINING}"


def page(path: str) -> str | None:
    """Address of a page of MLflow's, where it is a server; None for a file."""
    uri = store()
    return f"{shown(uri).rstrip('/')}/#{path}" if reach.served(uri) else None


def view_link(line: str, view: str) -> str | None:
    """Address of a view, where MLflow is a server; None for a file."""
    return page(path(experiment_of(line), view)) if reach.served(store()) else None


def view_links(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Line -> view -> address, of lines that were laid out. Asks only: nothing is made."""
    found: dict[str, dict[str, str]] = {}
    for line in lines if reach.served(store()) else ():
        experiment = ask("get_experiment_by_name", line)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            continue
        views = [name for name in TITLES if f"{VIEW_TAG}{name}" in experiment.tags]
        pages = {name: page(path(experiment.experiment_id, name)) for name in views}
        if there := {name: link for name, link in pages.items() if link}:
            found[line] = there
    return found


# ---------------------------------------------------------------- views


def fitting(sources: Mapping[str, Role]) -> dict[str, str]:
    """Each view as a tag's text. Of many portions the first: a tag is short, and so is a page.

    The domain's come first: what they gain is why there was a refresh.
    """
    names = sorted(sources, key=lambda name: (sources[name] != "domain", name))
    found: dict[str, str] = {}
    for number in range(len(names), 0, -1):
        made = {key: json.dumps(view) for key, view in views(names[:number]).items()}
        found = {key: text for key, text in made.items() if len(text) <= LONGEST_TAG} | found
    return found


def views(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By key."""
    return {"refreshes": refreshes(names), "proxies": proxies(names), "training": training(names)}


def refreshes(names: Sequence[str]) -> dict[str, Any]:
    changes = [f"held-out/{name}/change" for name in names]
    columns = [tag("verdict"), tag("version"), metric("domain_share"), *map(metric, changes)]
    columns += [param("refresh.base"), param("train.tokens")]
    return view("refresh", columns, [bar(key) for key in ("domain_share", *changes)], order="attributes.start_time")


def proxies(names: Sequence[str]) -> dict[str, Any]:
    losses = [f"held_out/{name}/loss_nats" for name in names]
    columns = [param("model"), param("share"), metric("tokens"), *map(metric, losses)]
    charts = [scatter("share", key, "PARAM") for key in losses] + [scatter("tokens", key, "METRIC") for key in losses]
    return view("proxy", columns, charts, order=metric(losses[0]), rising=True)


def training(names: Sequence[str]) -> dict[str, Any]:
    losses = [f"held_out/{name}/loss_nats" for name in names]
    columns = [metric("train/mean_tokens_per_second"), metric("tokens"), metric("train/loss_nats")]
    columns += [*map(metric, losses), param("recipe.learning_rate"), param("recipe.tokens")]
    charts = [curve(key) for key in (*losses, "train/loss_nats", "train/grad_norm")]
    return view("train", columns, charts, order=metric(losses[0]), rising=True)


def view(kind: str, columns: list[str], charts: list[Chart], *, order: str, rising: bool = False) -> dict[str, Any]:
    """As MLflow's page writes one down. The axis of its curves is tokens; steps and time are a click away.

    order   by start time the page folds runs into those above them, and draws no chart of what is folded
    """
    section = {"uuid": kind, "name": "at a glance", "display": True, "isReordered": False, "deleted": False}
    return {
        "searchFilter": f"tags.`ratoon.kind` = '{kind}'",
        "orderByKey": order,
        "orderByAsc": rising,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {column: 50 + 7 * len(column.split("`")[1]) for column in columns},  # in pixels: the whole name
        "runsHiddenMode": "SHOW_ALL" if kind == "proxy" else "FIRST_20_RUNS",
        "isAccordionReordered": True,  # ours stays above those the page makes, one for each prefix
        "compareRunSections": [{**section, "isGenerated": False}],
        "compareRunCharts": [{**chart, "metricSectionId": kind} for chart in charts],
        "globalLineChartConfig": {"xAxisKey": "metric", "lineSmoothness": 0, "selectedXAxisMetricKey": "tokens"},
    }


def metric(key: str) -> str:
    return f"metrics.`{key}`"


def param(key: str) -> str:
    return f"params.`{key}`"


def tag(key: str) -> str:
    return f"tags.`{key}`"


def bar(key: str) -> Chart:
    return card("BAR", key, metricKey=key)


def curve(key: str) -> Chart:
    axes = {"xAxisScaleType": "linear", "scaleType": "linear", "xAxisKey": "metric", "selectedXAxisMetricKey": "tokens"}
    shape = {"lineSmoothness": 0, "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False}
    use = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    return card("LINE", key, metricKey=key, selectedMetricKeys=[key], **axes, **shape, **use)


def scatter(across: str, key: str, kind: str) -> Chart:
    sides = {"xaxis": {"key": across, "type": kind}, "yaxis": {"key": key, "type": "METRIC"}}
    return card("SCATTER", f"{key} by {across}", **sides) | {"runsCountToCompare": 1000}


def card(kind: str, name: str, **settings: Any) -> Chart:
    known = {"type": kind, "uuid": f"{kind}-{name}", "displayName": name, "runsCountToCompare": 100}
    return {**known, "deleted": False, "isGenerated": False, **settings}
