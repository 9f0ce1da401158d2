"""A search whose trainings only write small checkpoints: the real study, store and visits, without Ray."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.files import write_json
from dbf_ray.freezing import make_policy
from dbf_ray.search.cost import Costs
from dbf_ray.search.known import Known
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.settings import Settings
from dbf_ray.search.sharing import Sharing
from dbf_ray.search.spaces import load_space
from dbf_ray.search.store import Store
from dbf_ray.search.study import Study, Trial
from dbf_ray.search.trial import Keeping, _deepest, epochs_done, leave, read_result
from dbf_ray.search.wanted import budget_of, options_of
from dbf_ray.training.checkpoint import newest_epoch, newest_whole, save_checkpoint
from tests.search.begins import four_stages

VERSIONS = {"torch": "2"}


class FakeSearch:
    """One process that searches; another one with the same folder goes on.

    Attributes:
        trained: how often each state was reached by training, by (state, trial).
    """

    def __init__(
        self,
        folder: Path,
        space: Path,
        epochs: int,
        trained: Counter[tuple[str, int]],
        most: int = 16,
        known: Path | None = None,
        most_epochs: int | None = None,
        fails: Mapping[int, int] = {},
        **search: Any,
    ) -> None:
        """``fails``: the epochs after which trials fail, by their numbers."""
        search = {"sampler": "tpe", "epochs": most_epochs, **search}
        config = with_overrides(
            Config(), {"training.epochs": epochs, **{f"search.{key}": value for key, value in search.items()}}
        )
        self.trials, self.epochs, self.trained = folder / "trials", epochs, trained
        self.fails = fails
        self.store = Store(folder / "states", VERSIONS)
        self.store.tidy()
        settings = Settings(config, four_stages)
        earlier = None if known is None else Known(known, folder, config)
        self.study = Study(
            open_study(folder / "study.db", folder.name, trials=8, seed=0),
            load_space(space),
            settings,
            **options_of(config, Costs(settings)),
            recover=lambda number: read_result(self.trials / str(number)),
            store=self.store,
            sharing=Sharing(most),
            done=lambda number: newest_epoch(self.trials / str(number) / "checkpoints"),
            bring=lambda book, pool: earlier.bring(book, pool, self.store, self.trials) if earlier else None,
            leave=lambda number, names: leave(self.store, self.trials / str(number), names),
        )
        self.study.budget = budget_of(config, self.study.rows(self.trials), 0.0)
        self.running: dict[int, tuple[Trial, Keeping, int]] = {}
        self.largest = 0

    def run(self, workers: int = 1, most_trials: int = 99) -> None:
        """Train until nothing is left: one epoch of each running trial after the other."""
        while True:
            while len(self.running) < workers and most_trials > 0:
                asked = self.study.ask()
                if not isinstance(asked, Trial):
                    assert self.running or asked is None, "what is left waits for nobody"
                    break
                self.begin(asked)
                most_trials -= 1
            if not self.running:
                self.study.sweep()
                return
            for number in list(self.running):
                self.epoch(number)

    def begin(self, asked: Trial) -> None:
        folder = self.trials / str(asked.number) / "checkpoints"
        keeping = Keeping(self.store, asked.visit.keep)
        own, found = newest_whole(folder), _deepest(self.store, asked.visit.begins)
        done = 0 if own is None else epochs_done(own)
        if own is not None:
            keeping({"epoch": done - 1}, own)
        if found is not None:
            done = max(done, epochs_done(found))
        self.running[asked.number] = asked, keeping, done

    def epoch(self, number: int) -> None:
        asked, keeping, done = self.running[number]
        if done < self.epochs:
            done += 1
            self.trained[asked.setting.states[done], number] += 1
            facts = {"name": f"s-{number}", "pieces": [{"epoch": 0, "versions": VERSIONS}]}
            record = {"facts": facts, "epochs": [{}] * done, "config": to_dict(asked.setting.config)}
            folder = self.trials / str(number) / "checkpoints"
            keeping({"epoch": done - 1}, save_checkpoint(folder, done, {"epoch": done}, record))
            self.study.reached(number, done)
            self.largest = max(self.largest, len(self.store.names()))
        self.running[number] = asked, keeping, done
        if done == self.fails.get(number):
            self.study.tell(number, None, "the disk is full")
            del self.running[number]
            self.study.sweep()
        elif done == self.epochs:
            summary = summary_of(asked, self.epochs)
            write_json(self.trials / str(number) / "summary.json", summary)
            self.study.tell(number, summary)
            del self.running[number]
            self.study.sweep()

    def values(self) -> dict[str, Any]:
        """map50 of each setting, by its parameters."""
        rows = self.study.rows(self.trials)
        assert [row["number"] for row in rows] == list(range(len(rows)))
        assert {row["state"] for row in rows} == {"COMPLETE"}
        return {json.dumps([row["policy"], row["parameters"]]): row["map50"] for row in rows}


def summary_of(asked: Trial, epochs: int) -> dict[str, Any]:
    """Made of the timeline alone."""
    freezing = asked.setting.config.freezing
    trained = make_policy(freezing.policy, **freezing.parameters).decisions(epochs, 4).count(0)
    return {"map50": 0.1 * trained, "compute_ratio": 0.4 + 0.1 * trained, "epochs": epochs}
