"""The front, repeated with further seeds: which trials, which seeds, and where each goes on.

What is repeated is decided once all trials are done, and noted in the study's file before it begins: so an
interrupted search decides alike. Once the repeats are done, it is looked again: a setting that is on the
front now is repeated too, until all that are have their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbf_ray.config import to_dict
from dbf_ray.search.settings import Setting
from dbf_ray.search.study import Study
from dbf_ray.search.trial import name_of, read_result
from dbf_ray.tracking import read_epochs, read_summary
from dbf_ray.training.checkpoint import newest_epoch

PROBABLE = 0.2  # of being on the front: such trials are repeated too
ATTRIBUTE = "repeats"  # of the study's file: [number, seed] of each


@dataclass(frozen=True)
class Repeat:
    """A trial's setting, to be trained with another seed."""

    number: int
    seed: int
    setting: Setting

    @property
    def name(self) -> str:
        """Of its folder."""
        return name_of(self.number, self.seed)


class Repeats:
    """The repeats of a study's trials, whose run folders are in ``folder``."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self._made: dict[tuple[int, int], Setting] = {}
        self._decided: list[tuple[int, int]] | None = None

    def decided(self) -> list[tuple[int, int]]:
        """(number, seed) of all that were ever to be trained."""
        if self._decided is None:  # asked of the file once
            noted = self.study.optuna.user_attrs.get(ATTRIBUTE, [])
            self._decided = [(number, seed) for number, seed in noted]
        return self._decided

    def decide(self, result: Mapping[str, Any], seeds: int, also: set[int]) -> bool:
        """Note which repeats are needed beyond those decided; says whether there are any.

        Args:
            result: content of pareto.json.
            seeds: of each trial, its own included.
            also: numbers of trials that are repeated wherever they are: baselines and controls.
        """
        decided = self.decided()
        more = [
            (row["number"], row["seed"] + step)
            for row in result["trials"]
            if row["state"] == "COMPLETE" and self._wanted(row, result, also)
            for step in range(1, seeds)
        ]
        new = [pair for pair in more if pair not in decided]
        if new:
            self._decided = [*decided, *new]
            self.study.optuna.set_user_attr(ATTRIBUTE, [list(pair) for pair in self._decided])
        return bool(new)

    @staticmethod
    def _wanted(row: Mapping[str, Any], result: Mapping[str, Any], also: set[int]) -> bool:
        believed = row["number"] in result["front_posterior"] or row["number"] in also
        return believed or row.get("front_probability", 0.0) > PROBABLE

    def left(self, seeds: int) -> list[Repeat]:
        """Decided ones that have no result, for up to so many seeds; from now on what they will begin at is
        kept.
        """
        rows = {row["number"]: row for row in self.study.rows(self.folder)}
        left = [
            Repeat(number, seed, self._setting(rows[number], seed))
            for number, seed in self.decided()
            if number in rows
            and seed - rows[number]["seed"] < seeds
            and read_result(self.folder / name_of(number, seed)) is None
        ]
        self.study.others = [repeat.setting.states for repeat in left]
        return left

    def begin(self, repeat: Repeat) -> dict[str, Any] | None:
        """How one is trained now; None: it waits for what another is about to reach."""
        states = repeat.setting.states
        others = [names for names in self.study.others if names != states]
        before, self.study.others = self.study.others, others
        done = newest_epoch(self.folder / repeat.name / "checkpoints")
        visit = self.study.visit(repeat.name, states, done)
        if visit is None:
            self.study.others = before
            return None
        return {
            "number": repeat.number,
            "seed": repeat.seed,
            "config": to_dict(repeat.setting.config),
            "begin": list(visit.begins),
            "keep": [list(pair) for pair in visit.keep.items()],
        }

    def end(self, repeat: Repeat) -> None:
        """One has ended, however it did."""
        self.study.sharing.end(repeat.name)
        self.study.sweep()

    def entries(self, row: Mapping[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
        """A trial's row's ``seeds``: those of its repeats that have begun, by seed, with the values ``names``
        of those that are complete.
        """
        found = []
        for number, seed in sorted(self.decided()):
            folder = self.folder / name_of(number, seed)
            if number != row["number"] or not folder.is_dir():
                continue
            summary, epochs = read_result(folder), read_epochs(folder)
            own = [epoch for epoch in epochs if "inherited" not in epoch]
            known = summary or read_summary(folder) or {}
            entry: dict[str, Any] = {
                "seed": seed,
                "state": "FAIL" if summary is None else "COMPLETE",
                "run": str(folder),
            }
            values = {} if summary is None else self.study.book.values_of(self._setting(row, seed), summary)
            entry |= {name: values.get(name) for name in names}
            entry |= {
                "epochs": len(epochs),
                "epochs_trained": len(own),
                "own": known.get("own")
                or {
                    name: sum(epoch.get(name) or 0 for epoch in own)
                    for name in ("executed_flops", "device_seconds", "wall_seconds")
                },
            }
            found.append(entry)
        return found

    def _setting(self, row: Mapping[str, Any], seed: int) -> Setting:
        key = row["number"], seed
        if key not in self._made:
            self._made[key] = self.study.settings.make({**row["overrides"], "seed": seed})
        return self._made[key]
