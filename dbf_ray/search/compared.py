"""Whether a search's trials will have the two numbers that it compares them by: asked before the first."""

from __future__ import annotations

from dbf_ray.build import RunSpec
from dbf_ray.build.data import choose_device
from dbf_ray.config import Config
from dbf_ray.config.search_section import OF_FUNCTION
from dbf_ray.cost.energy import EnergyMeter
from dbf_ray.data import originals_of
from dbf_ray.data.contents import classes_in
from dbf_ray.errors import ConfigError, DataError

OF_CLASS = "ap50/"


def check_accuracy(config: Config, spec: RunSpec) -> None:
    """Refuse an accuracy that no evaluation of ``spec``, made from ``config``, will have.

    Raises:
        ConfigError, DataError: a class is not known or has no object that counts, or nothing is merged.
    """
    name = config.search.accuracy
    if name == OF_FUNCTION:
        raise ConfigError(
            f"search.accuracy {OF_FUNCTION} is what one's own training function reports, and a detector has "
            "none; compare by --search.accuracy map50"
        )
    if name == "merged/map50" and originals_of(spec.eval_set) is None:
        raise ConfigError(
            "search.accuracy merged/map50 needs evaluated images that are all patches of their originals "
            f"(dbf prepare-data split), and those of the {spec.eval_split} split are not; compare by "
            "--search.accuracy map50"
        )
    if not name.startswith(OF_CLASS):
        return
    wanted, classes = name.removeprefix(OF_CLASS), spec.train_set.classes
    if wanted not in classes:
        raise ConfigError(f"search.accuracy must be ap50/ and one of {', '.join(classes)}, got {name}")
    if classes.index(wanted) not in classes_in(spec.eval_set, counted=True):
        raise DataError(
            f"search.accuracy {name} will be none, since no object of class {wanted} counts in the "
            f"{spec.eval_split} split; compare by --search.accuracy map50, or hold other images out "
            "(data.selection_fraction, data.selection_fold)"
        )


def check_measured(config: Config) -> None:
    """Refuse a measured cost that the device of this process does not tell.

    Raises:
        ConfigError: energy without a meter.
    """
    if config.search.cost != "energy_joules":
        return
    device = choose_device(config.training.device)
    if EnergyMeter(device).joules() is None:
        raise ConfigError(
            f"search.cost energy_joules needs a device with an energy counter (an NVIDIA GPU, and the "
            f"package pynvml), and {device.type} has none here; compare by --search.cost device_seconds"
        )
