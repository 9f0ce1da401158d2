"""What a search knows of its trials' configurations and data before the first of them."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.build import check_scored, prepare
from dbf_ray.config import Config, with_overrides
from dbf_ray.freezing import Horizon
from dbf_ray.run.same_data import DataRecord, continued, data_of, stored


class CheckedBegin:
    """Checks a configuration completely (data, weights, sizes, and that map50 will tell something) and gives
    its horizon; keeps the data of the first.
    """

    def __init__(self) -> None:
        self.data: DataRecord | None = None

    def __call__(self, config: Config) -> Horizon:
        """The horizon of a run of ``config``.

        Raises:
            DbfRayError: it cannot be trained, or its map50 would tell nothing.
        """
        spec = prepare(config)
        check_scored(spec)
        if self.data is None:
            self.data = data_of(spec)
        return spec.horizon

    def study_data(self, config: Config, folder: Path) -> DataRecord:
        """The data of the study in ``folder`` with the base ``config``, which begins or goes on.

        Raises:
            DataError: they have changed since it began.
        """
        if self.data is None:  # no baseline was looked at
            self(with_overrides(config, {"freezing.policy": "full"}))
        assert self.data is not None
        trials = [int(entry.name) for entry in (folder / "trials").glob("*") if entry.name.isdecimal()]
        return continued(
            self.data,
            stored(folder),
            folder,
            whose=f"study {folder.name!r} in {folder.parent}",
            another="give another --study",
            after=f"trial {max(trials)}" if trials else "the beginning",
            accept=config.data.changed == "accept",
        )
