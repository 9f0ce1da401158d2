"""Trains settings as a tree, each state once, and writes their learning curves to a table as it goes.

A setting begins at the deepest state on its way that is there, as in a search
(:mod:`dbf_ray.search.sharing`); processes wait for what another is about to reach. Killed at any moment, the
same command goes on.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.search.bands import resampled
from benchmarks.search.table import Row, append_rows, read_rows, setting_text
from benchmarks.search.world import add_draws
from dbf_ray.config import Config, to_dict
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.progress import duration
from dbf_ray.run import find_resume, run
from dbf_ray.run.summary import versions
from dbf_ray.search.checked import code_versions
from dbf_ray.search.settings import Setting
from dbf_ray.search.sharing import Sharing, Visit
from dbf_ray.search.store import Store
from dbf_ray.search.trial import Keeping, epochs_done, read_result
from dbf_ray.tracking import make_trackers, read_epochs
from dbf_ray.training.checkpoint import newest_epoch

KEPT = 64  # states at once
Train = Callable[..., list[dict[str, Any]]]


@dataclass
class Recording:
    """One training seed's part of a table.

    Attributes:
        settings: to be trained.
        horizon: of all of them.
        file: the table; rows of other seeds in it stay.
        folder: runs and states while they are needed.
        seed: of the trainings.
        train: trains one setting, in a process of its own; gives its epochs' records.
    """

    settings: Sequence[Setting]
    horizon: Horizon
    file: Path
    folder: Path
    seed: int
    train: Train = field(default_factory=lambda: train_one)
    executor: Callable[[int], Executor] = field(default_factory=lambda: processes_of)
    say: Callable[[str], None] = print

    def run(self, processes: int, hours: float | None = None) -> dict[str, Any]:
        """Train what is not in the table; none is begun once ``hours`` have passed.

        Returns:
            ``settings``, ``done`` of them, ``epochs_trained`` in this call, ``seconds``.
        """
        begun, trained = time.monotonic(), 0
        known = self._known()
        left = sorted((one for one in self.settings if one.key not in known), key=lambda one: one.states)
        total = len({state for one in self.settings for state in one.states[1:]})
        have = {row.state for row in read_rows(self.file) if row.seed == self.seed}
        todo = len({state for one in left for state in one.states[1:]} - have)
        self.say(
            f"seed {self.seed}: {len(left)} of {len(self.settings)} settings, {todo} of {total} epochs to do"
        )
        store, sharing = Store(self.folder / "states", code_versions(versions())), Sharing(KEPT)
        store.tidy()
        running: dict[Future[list[dict[str, Any]]], tuple[int, Setting]] = {}
        with self.executor(processes) as pool:
            while left or running:
                over = hours is not None and time.monotonic() - begun > 3600 * hours
                while left and len(running) < processes and not over:
                    names = store.names()
                    ready = [one for one in left if not sharing.waits(one.states, names)]
                    if not ready:
                        break
                    left.remove(ready[0])
                    number = len(self.settings) - len(left)
                    directory = self.folder / "runs" / ready[0].key
                    done = newest_epoch(directory / "checkpoints")
                    visit = sharing.begin(number, ready[0].states, [one.states for one in left], names, done)
                    future = pool.submit(self.train, to_dict(ready[0].config), str(directory), store, visit)
                    running[future] = number, ready[0]
                if not running:
                    break
                ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    number, setting = running.pop(future)
                    own = self._write(setting, future.result())
                    trained += own
                    sharing.end(number)
                    seen = store.names()
                    store.sweep(sharing.needed([one.states for one in left], seen), seen)
                    self._progress(setting, own, trained, todo, time.monotonic() - begun)
        done_now = len(self._known() & {one.key for one in self.settings})
        seconds = time.monotonic() - begun
        self.say(f"{done_now} of {len(self.settings)} settings, {trained} epochs in {duration(seconds)}")
        return {
            "settings": len(self.settings),
            "done": done_now,
            "epochs_trained": trained,
            "seconds": seconds,
        }

    def _known(self) -> set[str]:
        """Keys of the settings that are in the table, whole."""
        texts = {setting_text(one.overrides): one for one in self.settings}
        found: dict[str, set[str]] = {}
        for row in read_rows(self.file):
            if row.seed == self.seed and row.setting in texts:
                found.setdefault(row.setting, set()).add(row.state)
        return {texts[text].key for text, states in found.items() if states == {*texts[text].states[1:]}}

    def _write(self, setting: Setting, records: Sequence[dict[str, Any]]) -> int:
        """Append a setting's rows, and its draws; how many of its epochs it has trained itself."""
        run = self.folder / "runs" / setting.key
        if (drawn := resampled(run, records[-1])) is not None:
            add_draws(
                self.file, setting_text(setting.overrides), self.seed, drawn
            )  # first: what has rows is done
        costs = nominal(setting, self.horizon)
        append_rows(
            self.file,
            [
                Row(
                    setting_text(setting.overrides),
                    self.seed,
                    record["epoch"],
                    record["map50"],
                    setting.states[record["epoch"] + 1],
                    cost,
                    record["wall_seconds"],
                )
                for record, cost in zip(records, costs, strict=True)
            ],
        )
        shutil.rmtree(run, ignore_errors=True)
        return sum("inherited" not in record for record in records)

    def _progress(self, setting: Setting, own: int, trained: int, todo: int, seconds: float) -> None:
        each = seconds / max(1, trained)
        self.say(
            f"{setting_text(setting.overrides)}: {own} epochs; {trained} of {todo}, {each:.1f} s each, about "
            f"{duration(each * max(0, todo - trained))} left"
        )


def processes_of(count: int) -> Executor:
    """New processes to train in."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def nominal(setting: Setting, horizon: Horizon) -> list[float]:
    """Training FLOPs of each epoch, an image's times steps."""
    policy = make_policy(setting.config.freezing.policy, **setting.config.freezing.parameters)
    seeded = horizon.model_copy(update={"seed": setting.config.seed})
    assert horizon.costs is not None
    return [
        float(horizon.costs[max(one.num_frozen, horizon.always_frozen)]) * horizon.steps(epoch)
        for epoch, one in enumerate(policy.timeline(seeded))
    ]


def train_one(tree: dict[str, Any], directory: str, store: Store, visit: Visit) -> list[dict[str, Any]]:
    """Train a setting to its end, from where it is; its epochs' records."""
    config, place = Config.model_validate(tree), Path(directory)
    if read_result(place) is None:
        torch.set_num_threads(config.training.threads or 1)
        config = config.model_copy(update={"name": place.name, "runs_dir": place.parent})
        keeping = Keeping(store, visit.keep)
        resume, begin = find_resume(config, place), None
        done = 0 if resume is None else epochs_done(resume)
        found = next((store[state] for state in visit.begins if store.whole(state)), None)
        if found is not None and epochs_done(found) > done:
            resume, begin = None, found
        elif resume is not None:
            keeping({"epoch": done - 1}, resume)

        def on_epoch(record: dict[str, Any], checkpoint: Path | None) -> bool:
            keeping(record, checkpoint)
            return True

        run(
            config,
            directory=place,
            trackers=make_trackers(place, None),
            on_epoch=on_epoch,
            resume=resume,
            begin=begin,
            quiet=True,
            coverage=False,
        )
    return read_epochs(place)
