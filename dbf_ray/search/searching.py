"""One search in progress: its trials, then what the front needs, and what the person is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.cluster.ray_runtime import Resources, connected_ray, require
from dbf_ray.cluster.train import RunFunction
from dbf_ray.config import Config
from dbf_ray.errors import TrainingError
from dbf_ray.files import write_json
from dbf_ray.search import mlflow_runs
from dbf_ray.search.kept import keep_only
from dbf_ray.search.outcome import Outcome
from dbf_ray.search.progress import SearchProgress, best_accuracy, spent, standing
from dbf_ray.search.searcher import IN_A_ROW, StudySearcher
from dbf_ray.search.store import Store
from dbf_ray.search.study import Study, Trial
from dbf_ray.search.trial import TrialSetup, read_result, train_trial
from dbf_ray.search.tune import run_visits
from dbf_ray.search.validation import validate_front
from dbf_ray.tracking import read_summary, write_epochs


def concurrency(config: Config, wanted: int | None, resources: Resources) -> int:
    """How many trials run at once: as many as fit, at most ``wanted`` or ``config.search.concurrent``.

    Raises:
        ResourceError: not even one fits.
    """
    cluster = config.cluster
    require(cluster.workers, cluster.cpus_per_worker, cluster.gpu, resources)
    fit = resources.slots(cluster.cpus_per_worker, cluster.gpu) // cluster.workers
    return max(1, min(fit, wanted or config.search.concurrent or fit))


class Searching:
    """One search in progress.

    Args:
        config: what all trials share.
        folder: the study's.
        study, store: what it knows and has.
        trials: complete ones that it shall have in the end.
        concurrent: trials at once that were asked for.
        show: called with each line for the person.
        run: replaces the training, for tests.
        space_file: the space's.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        study: Study,
        store: Store,
        trials: int,
        concurrent: int | None,
        show: Callable[[str], None],
        run: RunFunction | None,
        space_file: Path,
    ) -> None:
        self.config, self.folder, self.study, self.trials = config, folder, study, trials
        self.concurrent, self.show = concurrent, show
        self.store, self.run, self.space_file = store, run, space_file
        self.name = folder.name
        self.outcome = Outcome(study, folder)
        self._failures: list[str] = []

    def execute(self) -> dict[str, Any]:
        """Search; returns the content of pareto.json.

        Raises:
            TrainingError: not one trial ended well, or Ray Tune stopped.
        """
        done = len(self.study.complete())
        missing = self.trials - done
        if missing <= 0:
            self.show(f"study {self.name}: all {self.trials} trials are done")
            result = self.outcome.write()
            self._keep(result)
            return result
        with connected_ray(self.config.cluster.address) as resources:
            at_once = min(concurrency(self.config, self.concurrent, resources), missing)
            self._greet(done, at_once, resources)
            parent = mlflow_runs.parent_run(self.config, self.folder, self.trials, self.space_file)
            reporter = SearchProgress(self.show, done=done, total=self.trials, concurrent=at_once)
            failure: str | None = "interrupted"
            try:
                self._tune(reporter, parent, missing, at_once)
                ended_well = len(self.study.complete()) - done
                failure = None if ended_well or (done and not self._failures) else "no trial ended well"
            finally:
                result = self.outcome.write()
                if parent is not None:
                    parent.finish(self.outcome.files(self.space_file), failure)
        if failure is not None:
            reasons = [self.study.choosing.last_invalid or "nothing", *self._failures]
            raise TrainingError(
                f"study {self.name}: not one trial ended well; the last one said: {reasons[-1]}; mend that, "
                "and the same command goes on"
            )
        self._say_what_is_missing()
        if self.run is None:
            validate_front(result, self.folder / "trials", self.config, self.show)
            result = self.outcome.write()
        self._keep(result)
        self.show(f"study {self.name}: {standing(result)}; {spent(result)}")
        return result

    def _say_what_is_missing(self) -> None:
        """Failed trials, and why there are fewer complete ones than wanted."""
        if self._failures:
            self.show(f"study {self.name}: {len(self._failures)} failed, the last: {self._failures[-1]}")
        complete = len(self.study.complete())
        if not self.study.baselines_done():
            self.show(
                f"study {self.name}: a baseline has no result; the same command with --trials {complete + 1} "
                "trains it first"
            )
        if self.study.choosing.invalid_draws:
            self.show(
                f"study {self.name}: {self.study.choosing.invalid_draws} draws were not valid, the last: "
                f"{self.study.choosing.last_invalid}"
            )
        if complete < self.trials:
            why = "the space has no further setting" if self.study.exhausted else "too many failed"
            self.show(f"study {self.name}: {why}; it ends with {complete} of {self.trials} trials")

    def _tune(self, reporter: SearchProgress, parent: Any, missing: int, at_once: int) -> None:
        target = mlflow_runs.target(self.config, self.name, parent)
        setup = TrialSetup(self.name, str(self.folder.absolute() / "trials"), self.store, target, self.run)
        searcher = StudySearcher(
            self.study,
            missing,
            partial(self._begin, reporter=reporter),
            partial(reporter.epoch, epochs=self.config.training.epochs),
            partial(self._end, reporter=reporter, parent=parent),
        )
        run_visits(
            searcher,
            partial(train_trial, setup=setup),
            folder=self.folder,
            cluster=self.config.cluster,
            most=StudySearcher.most(missing),
            at_once=at_once,
        )
        if searcher.refused is not None:
            raise searcher.refused
        if searcher.failed_in_a_row >= IN_A_ROW:
            self.show(f"study {self.name}: stopped after {IN_A_ROW} failures one after the other")

    def _begin(self, trial: Trial, *, reporter: SearchProgress) -> None:
        directory = self.folder / "trials" / str(trial.number)
        if trial.again and read_result(directory) is not None:  # without a number: anew
            shutil.rmtree(directory)
        reporter.begin(trial)

    def _end(
        self,
        number: int,
        report: Mapping[str, Any],
        failure: str | None,
        *,
        reporter: SearchProgress,
        parent: Any,
    ) -> None:
        directory = self.folder / "trials" / str(number)
        if failure is not None:
            self._failures.append(failure)
        if failure is None and read_summary(directory) is None:  # trained on another machine
            write_epochs(directory, report["records"])
            write_json(directory / "summary.json", report["summary"])
        if failure is not None and parent is not None:
            mlflow_runs.end_trial(self.config, directory, failure)
        result = self.outcome.now_and_then()
        reporter.end(number, failure, result)
        if parent is not None:
            metrics = {
                "front": float(len(result["front"])),
                "hypervolume": result["hypervolume"],
                f"best_{self.study.objectives.accuracy}": best_accuracy(result),
                "epochs_trained": float(result["epochs_trained"]),
                "epochs_shared": float(result["epochs_shared"]),
            }
            parent.progress(
                len(self.study.complete()),
                {key: value for key, value in metrics.items() if value is not None},
            )

    def _keep(self, result: Mapping[str, Any]) -> None:
        """What stays of the checkpoints when the search has ended."""
        if self.config.search.keep == "front":
            self.store.sweep(())
            keep_only({*result["front"], *self.study.baselines()}, result, self.folder / "trials")

    def _greet(self, done: int, at_once: int, resources: Resources) -> None:
        cluster = self.config.cluster
        workers = f"{cluster.workers} x {cluster.cpus_per_worker} CPUs" + (
            f" and {cluster.workers} GPUs" if cluster.gpu else ""
        )
        self.show(
            f"study {self.name}: {self.trials - done} of {self.trials} trials to do, {at_once} at once, each "
            f"on {workers} ({resources.place}: {resources.cpus} CPUs, {resources.gpus} GPUs)"
        )
        if self.concurrent and at_once < min(self.concurrent, self.trials - done):
            self.show(f"study {self.name}: {self.concurrent} at once do not fit, {at_once} do")
        if self.study.interrupted:
            self.show(
                f"study {self.name}: goes on with the interrupted trials "
                f"{', '.join(map(str, self.study.interrupted))}"
            )
