"""Ray Tune, as a search uses it: it runs what a searcher hands out, and knows nothing that is needed after a
kill.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.fs import FileSystem
from ray import tune
from ray.tune.search import Searcher

from dbf_ray import stopping
from dbf_ray.cluster.relay import make_relay
from dbf_ray.cluster.stop import heeding, passing_on
from dbf_ray.cluster.waiting import Patience
from dbf_ray.config import ClusterConfig
from dbf_ray.errors import TrainingError
from dbf_ray.progress import print_line

# what a trial reserves whose workers have the CPUs: no CPU of its own, or two trials would wait for ever
DRIVER_MEMORY = 64 * 1024**2


def run_visits(
    searcher: Searcher,
    visit: Callable[[dict[str, Any]], None],
    *,
    folder: Path,
    cluster: ClusterConfig,
    most: int,
    at_once: int,
    show: Callable[[str], None] = print_line,
) -> None:
    """Run all that ``searcher`` hands out. Visits heed a stop that this process is asked for.

    Args:
        searcher: says what is next, and is told what came of it.
        visit: what runs in a trial's process.
        folder: of the study, whose name Tune's own notes carry.
        cluster: what each visit reserves, and where Tune's notes are.
        most: visits at most.
        at_once: of these.
        show: called with each line for the person.

    Raises:
        TrainingError: Ray Tune stopped.
        ResourceError: nothing ran for ``cluster.wait_minutes``, for want of CPUs or GPUs.
    """
    name, place, notes = folder.name, str(folder.absolute()), "tune"
    if cluster.storage is not None:
        place, notes = cluster.storage, f"{name}-tune"
    _remove(place, notes)  # of a search that was killed
    relay = make_relay()
    tuner = tune.Tuner(
        tune.with_resources(partial(_heeding, visit=visit, relay=relay), _resources(cluster)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=most,
            max_concurrent_trials=at_once,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            reuse_actors=True,  # a process costs seconds of imports
        ),
        run_config=tune.RunConfig(
            name=notes,
            storage_path=place,
            failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
            verbose=0,
            callbacks=[_Waiting(Patience(cluster.wait_minutes, lambda line: show(f"study {name}: {line}")))],
        ),
    )
    try:
        with passing_on(relay, stopping.insist):
            tuner.fit()
    except tune.TuneError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise TrainingError(
            f"study {name}: Ray Tune stopped ({lines[-1] if lines else error}); the same command continues it"
        ) from error
    finally:
        _remove(place, notes)


def _remove(place: str, notes: str) -> None:
    """Remove Tune's own notes; the study's state is in study.db."""
    with contextlib.suppress(OSError, pyarrow.ArrowException):  # where there are none, or the place is away
        system, path = FileSystem.from_uri(place)
        system.delete_dir(posixpath.join(path, notes))


def _heeding(assignment: dict[str, Any], visit: Callable[[dict[str, Any]], None], relay: Any) -> None:
    with heeding(relay):
        visit(assignment)


def _resources(cluster: ClusterConfig) -> dict[str, float]:
    if cluster.workers > 1:
        return {"memory": DRIVER_MEMORY}
    return {"CPU": cluster.cpus_per_worker, **({"GPU": float(cluster.gpu)} if cluster.gpu else {})}


class _Waiting(tune.Callback):
    """Looks, in every turn of Tune's, whether trials wait for resources."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune, which ends with what is raised."""
        self.patience.look()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its settings, which nobody reads
