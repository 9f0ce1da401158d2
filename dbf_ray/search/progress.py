"""What a person sees while a search runs, in lines: which trials run, which are done, the front so far, and
how long it will take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from dbf_ray.progress import duration
from dbf_ray.reports.objectives import in_figures, objectives_of
from dbf_ray.search.study import Trial

Print = Callable[[str], None]
EPOCH_LINES_EVERY = 20.0  # seconds


class SearchProgress:
    """Collects what happens and prints it through ``show``."""

    def __init__(
        self,
        show: Print,
        *,
        done: int,
        total: int | None,
        concurrent: int,
        accuracy: str = "map50",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show, self._accuracy, self._clock = show, accuracy, clock
        self._done, self._total, self._concurrent = done, total, concurrent
        self._running: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._epochs: dict[int, int] = {}  # of trials that have others than all
        self._since: dict[int, float] = {}
        self._trained: dict[int, int] = {}  # epochs that running trials have trained since they began here
        self._spent = (0.0, 0)  # seconds and epochs of trials that ended here
        self._shown = clock()

    def begin(self, trial: Trial) -> None:
        """A trial begins."""
        name = describe(trial.setting.policy, trial.setting.parameters)
        if "training.epochs" in trial.setting.overrides:  # a shorter full training, or drawn
            self._epochs[trial.number] = trial.setting.config.training.epochs
            name += f", {self._epochs[trial.number]} epochs"
        self._names[trial.number] = name
        self._since[trial.number] = self._clock()
        self._running[trial.number] = f"trial {trial.number} {name} starting"
        self._show(f"trial {trial.number} {name}: {'goes on' if trial.again else 'started'}")

    def epoch(self, number: int, report: Mapping[str, Any], epochs: int) -> None:
        """A running trial has done an epoch; a line now and then says where all of them are."""
        found, epochs = report.get("accuracy"), self._epochs.get(number, epochs)
        self._trained[number] = self._trained.get(number, 0) + 1
        score = f" {self._accuracy} {found:.3f}" if isinstance(found, float) else ""
        self._running[number] = (
            f"trial {number} {self._names.get(number, '')} epoch {report.get('epoch', 0) + 1}/{epochs}{score}"
        )
        if self._clock() - self._shown >= EPOCH_LINES_EVERY:
            self._shown = self._clock()
            self._show("running: " + "; ".join(self._running[key] for key in sorted(self._running)))

    def end(self, number: int, failure: str | None, result: Mapping[str, Any]) -> None:
        """A trial has ended; ``result`` is the study as it stands now (the content of pareto.json). Only
        complete trials count as done.
        """
        self._running.pop(number, None)
        seconds = self._clock() - self._since.pop(number, self._clock())
        trained = self._trained.pop(number, 0)
        self._done += failure is None
        name = f"trial {number} {self._names.get(number, '')}"
        if failure is None:
            self._spent = (self._spent[0] + seconds, self._spent[1] + trained)
            (row,) = (trial for trial in result["trials"] if trial["number"] == number)
            values = [f"{key} {in_figures(key, row[key])}" for key in objectives_of(result).names()]
            outcome = f"{', '.join(values)}, {seconds:.0f} s"
        else:
            outcome = f"FAILED: {failure}"
        of = "" if self._total is None else f"/{self._total}"
        self._show(f"[{self._done}{of}] {name}: {outcome} | {standing(result)}{self._eta(result)}")

    def _eta(self, result: Mapping[str, Any]) -> str:
        """How long the rest takes if its trials train as many epochs of their own as those before."""
        left, (seconds, epochs) = (self._total or 0) - self._done, self._spent
        if left <= 0 or not epochs:
            return ""
        each = max(1.0, result["epochs_trained"] / max(1, len(result["trials"]) - len(self._running)))
        rest = max(1.0, left * each - sum(self._trained.values()))
        return f" | about {duration(rest * seconds / epochs / self._concurrent)} left"


def describe(policy: str, parameters: Mapping[str, Any]) -> str:
    """A setting in short: ``step(rho=4)``."""
    inside = ", ".join(f"{name}={value}" for name, value in parameters.items())
    return f"{policy}({inside})" if inside else policy


def spent(result: Mapping[str, Any]) -> str:
    """How many epochs all trials have, and how many of them were trained."""
    trained, shared = result["epochs_trained"], result["epochs_shared"]
    count = len(result["trials"])
    text = f"{count} trial{'s' if count != 1 else ''}, {trained + shared} epochs"
    return text + (f", of which {trained} were trained" if shared else "")


def best_accuracy(result: Mapping[str, Any]) -> float | None:
    """That of the most accurate trial."""
    points = [objectives_of(result).point(trial) for trial in result["trials"]]
    return max((point[0] for point in points if point is not None), default=None)


def standing(result: Mapping[str, Any]) -> str:
    """Best accuracy, size of the front and hypervolume, as far as known."""
    best, volume = best_accuracy(result), result.get("hypervolume")
    name = objectives_of(result).accuracy
    known = f"best {name} {best:.3f}, front {len(result['front'])}" if best is not None else "no result yet"
    return known + (f", hypervolume {volume:.4f}" if volume is not None else "")
