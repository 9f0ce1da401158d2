"""One search in progress: its trials, then what the front needs (further seeds, val), and what the person is
told.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from dbf_ray import stopping
from dbf_ray.cluster.address import cluster_address
from dbf_ray.cluster.ray_runtime import Resources, connected_ray, require
from dbf_ray.cluster.train import RunFunction
from dbf_ray.config import Config, to_dict
from dbf_ray.errors import TrainingError
from dbf_ray.files import write_json
from dbf_ray.search import mlflow_runs, validation
from dbf_ray.search.cost import RATIOS, Costs
from dbf_ray.search.in_turn import InTurn
from dbf_ray.search.kept import keep_only
from dbf_ray.search.outcome import Outcome
from dbf_ray.search.progress import SearchProgress, describe, spent, standing
from dbf_ray.search.repeats import Repeat, Repeats
from dbf_ray.search.searcher import DIED, IN_A_ROW, StudySearcher
from dbf_ray.search.settings import Setting
from dbf_ray.search.spaces import DrawError
from dbf_ray.search.store import Store
from dbf_ray.search.study import Study, Trial
from dbf_ray.search.trial import Evaluate, TrialSetup, read_result, train_trial
from dbf_ray.search.tune import run_visits
from dbf_ray.search.visits import ListSearcher
from dbf_ray.search.wanted import SECONDS
from dbf_ray.tracking import read_summary, write_epochs

if TYPE_CHECKING:
    from dbf_ray.tracking.mlflow import MlflowStudy

MOST = 1_000_000  # visits of a search; its searchers end it


def concurrency(config: Config, wanted: int | None, resources: Resources) -> int:
    """How many trials run at once: as many as fit, at most ``wanted`` or ``config.search.concurrent``. A
    cluster that scales up does so for trials that wait.

    Raises:
        ResourceError: not even one fits.
    """
    cluster = config.cluster
    require(cluster.workers, cluster.cpus_per_worker, cluster.gpu, resources)
    places = [
        resources.slots(cluster.cpus_per_worker, cluster.gpu)
        for resources in (resources, resources.at_largest())
    ]
    fit = max(places) // cluster.workers
    return max(1, min(fit, wanted or config.search.concurrent or fit))


@dataclass(frozen=True)
class Asked:
    """What a search was asked for.

    Attributes:
        trials: complete ones that the study shall have in the end, controls not counted.
        concurrent: at once; None: as many as fit.
        show: called with each line for the person.
        run, evaluate: replace training and evaluation, for tests.
        space_file: the space's.
        controls: shorter full trainings, on top of the trials.
    """

    trials: int
    concurrent: int | None
    show: Callable[[str], None]
    run: RunFunction | None
    evaluate: Evaluate | None
    space_file: Path
    controls: list[Setting]


class Searching:
    """One search in progress: of ``study`` in ``folder``, with its ``store``; ``config`` is what its trials
    share.
    """

    def __init__(self, config: Config, folder: Path, study: Study, store: Store, asked: Asked) -> None:
        self.config, self.folder, self.study, self.store, self.asked = config, folder, study, store, asked
        self.name, self.show = folder.name, asked.show
        before = study.optuna.user_attrs.get("controls", [])
        now = [setting.key for setting in asked.controls]
        if not set(now) <= set(before):
            study.optuna.set_user_attr("controls", [*before, *(key for key in now if key not in before)])
        self.control_keys = frozenset({*before, *now})
        self.repeats = Repeats(study, folder / "trials")
        self.outcome = Outcome(study, config, folder, self.repeats, self.control_keys)
        self.repeats.left(config.search.seeds_on_front)  # what an interrupted search left: its states stay
        self._failures: list[str] = []
        self._ended_well = 0
        self._refused: DrawError | None = None
        self._parent: MlflowStudy | None = None
        self._costs = Costs(study.settings)

    def execute(self) -> dict[str, Any]:
        """Search; returns the content of pareto.json.

        Raises:
            TrainingError: not one trial ended well, or Ray Tune stopped.
            Stopped: the process was asked to stop; what has ended is written.
        """
        done = bool(self.study.complete())
        if not self._anything_left():
            self.show(f"study {self.name}: all {self.asked.trials} trials are done")
            return self._finish()
        with connected_ray(self.config.cluster.address) as resources:
            at_once = concurrency(self.config, self.asked.concurrent, resources)
            if left := self._missing() + len(self._controls_left()):
                self._greet(min(at_once, left), resources)
            self._parent = mlflow_runs.parent_run(
                self.config, self.folder, self.asked.trials, self.asked.space_file
            )
            failure, killed = "interrupted", True
            try:
                self._run_visits(at_once)
                stopping.check()
                well = self._ended_well or (done and not self._failures)
                failure, killed = "" if well else "no trial ended well", False
            finally:
                if killed:
                    self.study.book.put_back()
                result = self.outcome.write()
                if self._parent is not None:
                    self._parent.finish(failure or None, killed)
                    if rest := mlflow_runs.deliver_rest(self.config, self.folder):
                        self.show(f"study {self.name}: {rest}")
        if self._refused is not None:
            raise self._refused
        if failure:
            budget = self.study.budget
            nothing = budget.stopped_text() if budget.stopped else "nothing"
            reasons = [self.study.choosing.last_invalid or nothing, *self._failures]
            raise TrainingError(
                f"study {self.name}: not one trial ended well; the last one said: {reasons[-1]}; mend that, "
                "and the same command goes on"
            )
        self._say_what_is_missing()
        result = self._finish()
        stopped = f"; {self.study.budget.stopped_text()}" if self.study.budget.stopped else ""
        self.show(f"study {self.name}: {standing(result)}; {spent(result)}{stopped}")
        return result

    def _finish(self) -> dict[str, Any]:
        """The content of pareto.json, written, with what the study now has; checkpoints as ``search.keep``
        says.
        """
        result = self.outcome.write()
        if self.config.search.keep == "front":
            kept = {*validation.reported(result), *self.study.baselines()}
            self.store.sweep(())
            keep_only(kept, result, self.folder / "trials")
        else:  # it may have been killed in the last sweep
            self.study.sweep()
        return result

    def _missing(self) -> int:
        """Trials to do, without controls."""
        complete = [trial.user_attrs["setting"]["key"] for trial in self.study.complete()]
        return max(0, self.asked.trials - sum(key not in self.control_keys for key in complete))

    def _controls_left(self) -> list[Setting]:
        complete = {trial.user_attrs["setting"]["key"] for trial in self.study.complete()}
        return [setting for setting in self.asked.controls if setting.key not in complete]

    def _anything_left(self) -> bool:
        """Whether anything is still to be trained or evaluated."""
        if self._missing() or self._controls_left():
            return True
        return bool(self._repeats_left(set())) or bool(self._to_validate())

    def _repeats_left(self, tried: set[str]) -> list[Repeat]:
        """Repeats to do that this call has not tried; more are decided once those that were have ended."""
        seeds = self.config.search.seeds_on_front
        if seeds == 1:
            return []
        while True:
            if left := [repeat for repeat in self.repeats.left(seeds) if repeat.name not in tried]:
                return left
            also = self.study.baselines() | self.study.begun_of(self.control_keys)
            if not self.repeats.decide(self.outcome.result(), seeds, also):
                return []

    def _to_validate(self) -> list[tuple[Path, Path]]:
        here = cluster_address(self.config.cluster.address) is None
        return validation.to_validate(self.outcome.result(), self.config, self.show, here)

    def _run_visits(self, at_once: int) -> None:
        target = mlflow_runs.target(self.config, self.folder, self._parent)
        trials, (run, evaluate) = self.folder.absolute() / "trials", (self.asked.run, self.asked.evaluate)
        setup = TrialSetup(self.name, str(trials), self.store, target, run, evaluate)
        run_visits(
            InTurn(self._searchers(at_once)),
            partial(train_trial, setup=setup),
            folder=self.folder,
            cluster=self.config.cluster,
            most=MOST,
            at_once=at_once,
            show=self.show,
        )

    def _searchers(self, at_once: int) -> Iterator[Searcher]:
        """Trials, then repeats of the front, then val: each made when the one before is done."""
        wanted = self._missing() + len(self._controls_left())
        if wanted:
            yield from self._trials(wanted, at_once)
        if not self.study.complete() or self._refused is not None:
            return
        tried: set[str] = set()
        while repeats := self._repeats_left(tried):
            tried |= {repeat.name for repeat in repeats}
            self.show(f"study {self.name}: {len(repeats)} trainings with further seeds to do")
            yield ListSearcher(repeats, self._begin_repeat, self._epoch_of_repeat, self._end_repeat)
        if left := self._to_validate():
            yield ListSearcher(left, self._begin_validation, lambda *_: None, self._end_validation)

    def _trials(self, wanted: int, at_once: int) -> Iterator[Searcher]:
        done = len(self.study.complete())
        total = None if self.study.budget.text() else done + wanted
        accuracy = self.study.objectives.accuracy
        reporter = SearchProgress(self.show, done=done, total=total, concurrent=at_once, accuracy=accuracy)
        searcher = StudySearcher(
            self.study,
            wanted,
            partial(self._begin, reporter=reporter),
            partial(reporter.epoch, epochs=self.config.training.epochs),
            partial(self._end, reporter=reporter),
            self.control_keys,
            self._about,
        )
        yield searcher
        self._refused = searcher.refused
        if searcher.failed_in_a_row >= IN_A_ROW:
            self.show(f"study {self.name}: stopped after {IN_A_ROW} failures one after the other")

    def _begin(self, trial: Trial, *, reporter: SearchProgress) -> None:
        directory = self.folder / "trials" / str(trial.number)
        ended = read_result(directory)
        if trial.again and ended is not None and self.study.book.fault_of(trial.setting, ended) is not None:
            shutil.rmtree(directory)  # anew
        reporter.begin(trial)

    def _end(
        self, number: int, report: Mapping[str, Any], failure: str | None, *, reporter: SearchProgress
    ) -> None:
        self._take(self.folder / "trials" / str(number), report, failure)
        self.study.optuna.set_user_attr(SECONDS, self.study.budget.seconds)
        result = self.outcome.now_and_then()
        reporter.end(number, failure, result)
        if self._parent is not None:
            self._parent.progress()

    def _about(self, asked: Trial) -> dict[str, Any]:
        return self._told(asked.setting, asked.number)

    def _told(self, setting: Setting, number: int) -> dict[str, Any]:
        """What the process of a trial, or of its repeat, is told for MLflow."""
        if self._parent is None:
            return {}
        role = "setting"
        if number in self.study.begun_of(self.control_keys):
            role = "control"
        elif number in self.study.baselines():
            role = "baseline"
        return mlflow_runs.about(setting, number, role, self._costs, self.asked.run)

    def _take(self, directory: Path, report: Mapping[str, Any], failure: str | None) -> None:
        """What a training's process reported last."""
        if failure is not None:
            self._failures.append(failure)
        self._ended_well += failure is None
        if failure is None and read_summary(directory) is None:  # trained on another machine
            write_epochs(directory, report["records"])
            write_json(directory / "summary.json", report["summary"])
        if failure is not None and self._parent is not None:
            self._parent.lost(directory, failure, failure == DIED)

    def _begin_repeat(self, repeat: Repeat) -> dict[str, Any] | None:
        assignment = self.repeats.begin(repeat)
        if assignment is not None:
            self.show(f"{_named(repeat)}: started")
            assignment["about"] = self._told(repeat.setting, repeat.number)
        return assignment

    def _epoch_of_repeat(self, repeat: Repeat, report: Mapping[str, Any]) -> None:
        self.study.reached(repeat.name, report["epoch"] + 1)

    def _end_repeat(self, repeat: Repeat, report: Mapping[str, Any], failure: str | None) -> None:
        self.repeats.end(repeat)
        self._take(self.folder / "trials" / repeat.name, report, failure)
        of = self.outcome.objectives.accuracy
        said = f"FAILED: {failure}" if failure is not None else f"{of} {report['summary'].get(of)}"
        self.show(f"{_named(repeat)}: {said}")

    def _begin_validation(self, left: tuple[Path, Path]) -> dict[str, Any]:
        folder, checkpoint = left
        number, _, seed = folder.name.partition("-seed-")
        assignment = {"number": int(number), "config": to_dict(self.config), "validate": str(checkpoint)}
        return assignment | ({"seed": int(seed)} if seed else {})

    def _end_validation(
        self, left: tuple[Path, Path], report: Mapping[str, Any], failure: str | None
    ) -> None:
        folder, _ = left
        if failure is not None:
            self.show(f"trial {folder.name}: not evaluated on val: {failure}")
        else:
            self.show(validation.record(folder, report["metrics"]))

    def _say_what_is_missing(self) -> None:
        """Failed trials, and why there are fewer complete ones than wanted."""
        if self._failures:
            self.show(f"study {self.name}: {len(self._failures)} failed, the last: {self._failures[-1]}")
        complete, wanted = self.asked.trials - self._missing(), self.asked.trials
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
        if complete < wanted and not self.study.budget.stopped:
            why = "the space has no further setting" if self.study.exhausted else "too many failed"
            self.show(f"study {self.name}: {why}; it ends with {complete} of {wanted} trials")

    def _greet(self, at_once: int, resources: Resources) -> None:
        cluster, controls = self.config.cluster, len(self._controls_left())
        workers = f"{cluster.workers} x {cluster.cpus_per_worker} CPUs" + (
            f" and {cluster.workers * float(cluster.gpu):g} GPUs" if cluster.gpu else ""
        )
        more = f" and {controls} shorter full trainings" if controls else ""
        self.show(
            f"study {self.name}: {self._missing()} of {self.asked.trials} trials{more} to do, {at_once} at "
            f"once, each on {workers} ({resources.place}: {resources.cpus} CPUs, {resources.gpus} GPUs)"
        )
        if (cost := self.config.search.cost) not in RATIOS:
            self.show(f"study {self.name}: {cost} is measured, so it is known of no setting before it trains")
        wanted = self.asked.concurrent
        if wanted and at_once < min(wanted, self._missing() + controls):
            self.show(f"study {self.name}: {wanted} at once do not fit, {at_once} do")
        if self.study.interrupted:
            self.show(
                f"study {self.name}: goes on with the interrupted trials "
                f"{', '.join(map(str, self.study.interrupted))}"
            )


def _named(repeat: Repeat) -> str:
    setting = describe(repeat.setting.policy, repeat.setting.parameters)
    return f"trial {repeat.number} {setting}, seed {repeat.seed}"
