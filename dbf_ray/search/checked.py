"""What a search knows of its trials' configurations and data before the first of them."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.build import check_scored, prepare
from dbf_ray.build.data import make_split
from dbf_ray.config import Config, with_overrides
from dbf_ray.data.contents import why_nothing_counts
from dbf_ray.data.digest import Facts, data_facts
from dbf_ray.errors import DataError
from dbf_ray.freezing import Horizon
from dbf_ray.run.same_data import DataRecord, continued, data_of, stored


class CheckedBegin:
    """Checks a configuration completely (data, weights, sizes, and that map50 will tell something) and gives
    its horizon; keeps the data of the first.

    Attributes:
        warnings: lines about data that are left for the end.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._data: DataRecord | None = None
        self._classes: list[str] = []

    def __call__(self, config: Config) -> Horizon:
        """The horizon of a run of ``config``.

        Raises:
            DbfRayError: it cannot be trained, or its map50 would tell nothing.
        """
        spec = prepare(config)
        check_scored(spec)
        if self._data is None:
            self._data, self._classes = data_of(spec), spec.train_set.classes
        return spec.horizon

    def study_data(self, config: Config, folder: Path) -> DataRecord:
        """The data of the study in ``folder`` with the base ``config``, which begins or goes on: those of its
        trials, and val, where that is left for the end and could be read when the study began.

        Raises:
            DataError: they have changed since it began.
        """
        if self._data is None:  # no baseline was looked at
            self(with_overrides(config, {"freezing.policy": "full"}))
        assert self._data is not None
        now, before = self._data, stored(folder)
        if config.data.selection_fraction > 0:
            left = self._left_for_the_end(config)
            if not before or "val" in before.get("splits", {}):
                now = DataRecord({**now.splits, **left})
        trials = [int(entry.name) for entry in (folder / "trials").glob("*") if entry.name.isdecimal()]
        return continued(
            now,
            before,
            folder,
            whose=f"study {folder.name!r} in {folder.parent}",
            another="give another --study",
            after=f"trial {max(trials)}" if trials else "the beginning",
            accept=config.data.changed == "accept",
        )

    def _left_for_the_end(self, config: Config) -> dict[str, Facts]:
        """What val is, on which the front will be evaluated; a warning where that will not work."""
        split = config.data.val_split
        try:
            dataset = make_split(config.data, split, self._classes)
        except DataError as error:
            self.warnings.append(f"warning: the front will not be evaluated on {split}: {error}")
            return {}
        if reason := why_nothing_counts(dataset):
            self.warnings.append(f"warning: the front's map50 on {split} will be none, since there {reason}")
        return {"val": data_facts(dataset)}
