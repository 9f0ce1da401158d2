"""How a study looks in MLflow's UI: views of its experiment, and links that open them.

Found out by trying, with MLflow 3.17. A view is a tag of the experiment, ``mlflow.sharedViewState.KEY``: JSON
with a name, by which the page's list "Views" offers it, and a state, which ``?viewStateShareKey=KEY`` in the
address opens. The state can carry a search filter, sorting, columns with their order and widths, grouping,
charts (scatter, parallel coordinates, lines, bars) and their sections; not which rows are unfolded or pinned.
Whether the table or the charts show is in the address alone (``compareRunsMode``), and so is which kind of
work the page is for: without ``workflowType`` a browser that is new to MLflow shows its page for language
models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

COST, SECONDS = "cost/compute_ratio", "cost/device_seconds"
KIND = {"mlflow.experimentKind": "custom_model_development"}
_TAG = "mlflow.sharedViewState."
_WORKFLOW = "workflowType=machine_learning"
_SECTION = "dbf_ray-accuracy-and-cost"
_WORDS = ("params.`policy`", "tags.`dbf_ray.role`")
_MOST = 100  # runs in a chart, and runs that the page loads at once


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


@dataclass(frozen=True)
class View:
    """One entry of the list "Views".

    Attributes:
        key: in the address.
        name: in the list.
        kind: of runs that it shows, by their tag ``dbf_ray.kind``; None: all, the oldest first, so that the
            parent is among the hundred that the page loads at once, and its children nest.
        group: tag by which rows become one, with means.
    """

    key: str
    name: str
    kind: str | None
    group: str | None = None


TRIALS = View("trials", "Trials, the most accurate first", "trial")
SETTINGS = View("settings", "Settings, means over seeds", "trial", "dbf_ray.setting")
SEARCH = View("search", "The search, its trials below it", None)
RUNS = View("runs", "Trainings, the most accurate first", "training")


def experiment_tags(kind: str, accuracy: str = "map50") -> dict[str, str]:
    """Tags of a new experiment for runs of a ``kind`` (search, training ...): what its page is for, and its
    views. Once they are there, a person may change them.

    Args:
        kind: of runs.
        accuracy: by which a study's trials are compared.
    """
    tags, views = dict(KIND), (TRIALS, SETTINGS, SEARCH) if kind == "search" else (RUNS,)
    if kind == "trial":  # its parent brings the views
        return tags
    metric = accuracy if accuracy.startswith("merged/") else f"val/{accuracy}"
    for place, view in enumerate(views):
        stamp = len(views) - place  # the list is sorted by it, the largest first
        state = json.dumps(_state(view, metric), separators=(",", ":"))
        envelope = {"name": view.name, "createdAt": stamp, "updatedAt": stamp, "state": state}
        tags[_TAG + view.key] = json.dumps(envelope, separators=(",", ":"))
    return tags


def view_link(server: str, experiment: str, view: View, charts: bool = False) -> str:
    """The address of a view: its table, or its charts."""
    more = "&compareRunsMode=CHART" if charts else ""
    return f"{_page(server, experiment)}/runs?viewStateShareKey={view.key}&{_WORKFLOW}{more}"


def run_link(server: str, experiment: str, run: str, artifact: str | None = None) -> str:
    """The address of a run's page, or of one of its files."""
    rest = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"{_page(server, experiment)}/runs/{run}{rest}?{_WORKFLOW}"


def study_links(client: Any, server: str, study: str) -> dict[str, str]:
    """What to look at of a study, and where; nothing where the store does not have it.

    Args:
        client: MLflow's, of the store.
        server: address of MLflow's UI.
        study: name of the experiment.
    """
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return {}
    place = experiment.experiment_id
    links = {"trials": view_link(server, place, TRIALS), "charts": view_link(server, place, TRIALS, True)}
    for run in client.search_runs([place], "tags.`dbf_ray.kind` = 'search'", max_results=1):
        links["answer"] = run_link(server, place, run.info.run_id, "pareto.html")
    return links


def _page(server: str, experiment: str) -> str:
    return f"{server.rstrip('/')}/#/experiments/{experiment}"


def _state(view: View, accuracy: str) -> dict[str, Any]:
    """What the page keeps of itself, by the names that its scripts use; ``accuracy``: the metric."""
    group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": view.group}]}
    return {
        "searchFilter": f"tags.`dbf_ray.kind` = '{view.kind}'" if view.kind else "",
        "orderByKey": _metric(accuracy) if view.kind else "attributes.start_time",
        "orderByAsc": view.kind is None,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        **_columns(view, accuracy),
        **_charts(view, accuracy),
        "runsHiddenMode": "SHOW_ALL",  # of the charts' lines; otherwise ten
        "groupBy": group if view.group else None,
    }


def _columns(view: View, accuracy: str) -> dict[str, Any]:
    """Widths in pixels. Words have no means, so they are left out where rows are grouped."""
    widths = {_param("policy"): 100, _param("rho"): 70, _metric(accuracy): 110, _metric(COST): 150}
    widths |= {_metric(SECONDS): 130, "tags.`dbf_ray.role`": 110}
    if view.group:
        widths = {column: width for column, width in widths.items() if column not in _WORDS}
    name, created = "attributes.`Run Name`", "runDateAndNestInfo"
    return {
        "selectedColumns": list(widths),
        "columnOrder": [name, created, *widths, "duration"],
        "columnWidths": {name: 340, created: 140, **widths},
    }


def _charts(view: View, accuracy: str) -> dict[str, Any]:
    """What is empty, as rho without a policy that has it, the page hides."""
    lines = {"xAxisKey": "step", "lineSmoothness": 0}
    policy = [] if view.group else ["policy"]
    cards = [
        _card("front", "SCATTER", xaxis=_axis(COST), yaxis=_axis(accuracy)),
        _card("parallel", "PARALLEL", selectedParams=["rho"], selectedMetrics=[COST, accuracy]),
        _card("learning", "LINE", metricKey=accuracy, selectedMetricKeys=[accuracy], **lines),
        _card("costs", "PARALLEL", selectedParams=policy, selectedMetrics=[COST, SECONDS, accuracy]),
        _card("rho", "SCATTER", xaxis=_axis("rho", "PARAM"), yaxis=_axis(accuracy)),
    ]
    section = {"uuid": _SECTION, "name": "Accuracy and cost", "display": True, "isReordered": True}
    return {
        "compareRunCharts": cards,
        "compareRunSections": [{**section, "columns": 2, "cardHeight": 400}],
        "isAccordionReordered": True,  # ours stays the first
        "hideEmptyCharts": True,
        "globalLineChartConfig": {**lines, "selectedXAxisMetricKey": ""},
    }


def _axis(name: str, kind: str = "METRIC") -> dict[str, str]:
    return {"key": name, "type": kind}


def _card(name: str, kind: str, **more: Any) -> Mapping[str, Any]:
    place = {"uuid": f"dbf_ray-{name}", "metricSectionId": _SECTION, "type": kind}
    return {**place, "deleted": False, "isGenerated": False, "runsCountToCompare": _MOST, **more}
