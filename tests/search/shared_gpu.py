"""Four visits that each reserve a share of one simulated GPU; prints, as JSON, when each ran and on which."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
import ray.tune

from dbf_ray.cluster.ray_runtime import available_resources, set_environment
from dbf_ray.config import Config, with_overrides
from dbf_ray.search.searching import concurrency
from dbf_ray.search.tune import run_visits
from dbf_ray.search.visits import ListSearcher


def visit(assignment: dict[str, Any]) -> None:
    """Takes three seconds, and touches no GPU."""
    begin = time.time()
    time.sleep(3.0)
    ids = [str(found) for found in ray.get_gpu_ids()]
    outcome = {"ran": [begin, time.time()], "gpus": ids, "number": assignment["number"]}
    ray.tune.report({"outcome": json.dumps(outcome)})


def main(share: str, folder: Path) -> None:
    """Place them."""
    set_environment()
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=60,
        object_store_memory=128 * 1024**2,
    )
    config = with_overrides(Config(), {"cluster.gpu": share})
    at_once = concurrency(config, None, available_resources())
    found: list[Any] = []
    searcher = ListSearcher(
        range(4),
        lambda number: {"number": number},
        lambda *_: None,
        lambda _, outcome, failure: found.append({**outcome, "failure": failure}),
    )
    run_visits(searcher, visit, folder=folder, cluster=config.cluster, most=100, at_once=at_once)
    print(json.dumps({"at_once": at_once, "visits": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
