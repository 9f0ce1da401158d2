"""What the project does, as functions: train, search, evaluate, predict. The command line calls these.

A configuration is given as an object, a YAML file, the name of a shipped one (``"demo"``), or nested
dictionaries; None stands for the defaults. Keys to change are keyword arguments: a section as a dictionary
(``training={"epochs": 3}``), or a dotted key (``**{"freezing.rho": 4}``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from torch import Tensor

from dbf_ray.build import prepare
from dbf_ray.config import Config, load_config, make_config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import config_of, metrics_of
from dbf_ray.evaluation.merge import NMS_THRESHOLD
from dbf_ray.export.register import check_register, register_at_end
from dbf_ray.plan.given import given_keys, usual_base
from dbf_ray.progress import print_line
from dbf_ray.remote import at_hand, is_uri
from dbf_ray.run import find_resume, mlflow_target, run, run_directory
from dbf_ray.run.naming import safe_name
from dbf_ray.run.results import evaluated
from dbf_ray.run.same_data import resumed_data
from dbf_ray.shipped import find_shipped
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import whole_checkpoint
from dbf_ray.values import flat

if TYPE_CHECKING:
    from dbf_ray.predict.memory import Image

ConfigLike = Config | str | Path | Mapping[str, Any] | None


class ImageDetections(TypedDict):
    """What was found in an image, best first.

    ``boxes`` float32 [n, 5]: centre x, y, width, height in the image's pixels, angle in degrees, counter-
    clockwise as seen in the image, in [-90, 90). ``scores`` float32 [n] in [0, 1], ``labels`` int64 [n], and
    the ``names`` of their classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: list[str]


def train_detector(config: ConfigLike = None, **overrides: Any) -> dict[str, Any]:
    """Train one detector with one freezing policy; an unfinished run of the same folder is resumed.

    With several workers, on a cluster, or with ``cluster.use_ray``, training runs under Ray Train.

    Args:
        config, overrides: see :mod:`dbf_ray.api`.

    Returns:
        The content of the run's summary.json; with ``tracking.registered_model_name`` also ``registered``,
        see :func:`dbf_ray.export.register.register_checkpoint` (None where it could not be).

    Raises:
        DbfRayError: bad input, before training; a finished run; or a training that had to stop.

    Example:
        >>> summary = dbf_ray.train_detector("demo", name="mine", freezing={"policy": "step", "rho": 4})
        >>> summary["map50"], summary["compute_ratio"]
    """
    config = as_config(config, **overrides)
    mlflow_target(config)  # refuses a URI that is none before anything is written
    check_register(config)
    if wants_ray(config):
        summary = _train_with_ray(config)
    else:
        directory = run_directory(config)
        summary = run(config, directory=directory, resume=find_resume(config, directory))
    if config.tracking.registered_model_name is not None:
        summary = {**summary, "registered": register_at_end(summary["checkpoint"], config)}
    return summary


def search_schedules(
    config: ConfigLike = None,
    space: str | Path = "rho",
    *,
    study: str | None = None,
    trials: int | None = None,
    concurrent: int | None = None,
    progress: Callable[[str], None] | None = None,
    train: Callable[..., Any] | None = None,
    num_stages: int | None = None,
    epochs: int | None = None,
    costs: Sequence[float] | None = None,
    version: str | None = None,
    signals: Collection[str] = (),
    **overrides: Any,
) -> dict[str, Any]:
    """Search freezing policies (and any other key) for the best trade-off of an accuracy against a cost
    (``search.accuracy``, ``search.cost``: map50 and compute_ratio).

    Args:
        config, overrides: what all trials share, see :mod:`dbf_ray.api`.
        space: a Python file, or the name of a shipped one; search_spaces/rho.py explains how to write one.
        study: its name and folder in ``search.studies_dir``; None: the space's and data set's names (or the
            function's). An existing one is resumed.
        trials: complete trials to have in the end; None: ``search.trials``.
        concurrent: trials at once; None: ``search.concurrent``, else as many as fit.
        progress: takes each line for a person; None: they go to stderr.
        train: your own training function, of any model, instead of the detector's; docs/own-training.md says
            how it is called. What follows is for it alone:
        num_stages: K, stages that your model can freeze.
        epochs: E; None: ``training.epochs``.
        costs: what an epoch costs with the first 0..K stages frozen, K + 1 numbers in any one unit.
        version: what your function is called; None: a digest of its source. Give another one whenever it
            trains otherwise: beginnings are shared, and studies go on, within one version.
        signals: names of what it reports to its FreezingSchedule in every epoch, for adaptive policies.

    Returns:
        The content of the study's pareto.json; with ``tracking.registered_model_name`` also ``registered``,
        as :func:`train_detector` has it.

    Raises:
        DbfRayError: bad input, before the search; or not one trial ended well.

    Example:
        >>> pareto = dbf_ray.search_schedules("demo", "rho", trials=6)
        >>> print(pareto["answer"]["text"])
        >>> dbf_ray.search_schedules(train=mine, num_stages=4, epochs=12, costs=[1, .8, .6, .5, .4])
    """
    from dbf_ray.search import search
    from dbf_ray.search.own import OwnBegin, own_config, own_training
    from dbf_ray.search.own_run import OwnRun

    config, file = as_config(config, **overrides), find_shipped("search space", space)
    given = {"num_stages": num_stages, "epochs": epochs, "costs": costs, "version": version}
    options: dict[str, Any] = {}
    if train is None:
        if alone := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{alone[0]} is for one's own training function, got {given[alone[0]]!r} without train; give "
                "train=..., or a configuration instead"
            )
        study = study or study_name(file, config)
    else:
        if missing := [name for name in ("num_stages", "costs") if given[name] is None]:
            raise ConfigError(
                f"one's own training function needs num_stages and costs, {missing[0]} is missing; give "
                f"{missing[0]}=..."
            )
        own = own_training(
            train,
            epochs=config.training.epochs if epochs is None else epochs,
            num_stages=cast(int, num_stages),
            costs=cast(Sequence[float], costs),
            version=version,
            signals=signals,
        )
        config = own_config(config, own)
        study = study or f"{file.stem}-{safe_name(getattr(train, '__name__', 'own'))}"
        options = {"run": OwnRun(own), "begin": OwnBegin(own)}
    name = config.tracking.registered_model_name
    if train is not None and name is not None:
        raise ConfigError(
            f"tracking.registered_model_name is for the detectors here, got {name!r} with train=...; "
            "register your model yourself"
        )
    check_register(config)
    result = search(
        config,
        file,
        study_name=study,
        trials=trials,
        concurrent=concurrent,
        studies_dir=config.search.studies_dir,
        progress=progress or print_line,
        **options,
    )
    if name is not None:
        result = {**result, "registered": _register_recommended(result, config)}
    return result


def _register_recommended(result: Mapping[str, Any], config: Config) -> dict[str, Any] | None:
    """Register the last checkpoint of the setting that a study recommends, if it does one."""
    number = (result.get("answer") or {}).get("number")
    if number is None:
        warnings.warn(
            "the study recommends no setting, so none is registered; dbf export --checkpoint DIR --register "
            f"{config.tracking.registered_model_name} registers a trial's",
            stacklevel=3,
        )
        return None
    folder = next(Path(row["run"]) for row in result["trials"] if row["number"] == number)
    return register_at_end((read_summary(folder) or {}).get("checkpoint"), config)


def study_name(space: Path, config: Config) -> str:
    """The name of a study that was given none: the space's and the data set's."""
    return f"{space.stem}-{safe_name(config.data.name)}"


def plan_settings(
    root: str | Path | None,
    config: ConfigLike = None,
    *,
    patches: str | Path | None = None,
    memory_gb: float | None = None,
    train_hours: float | None = None,
    progress: Callable[[str], None] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Choose settings that fit a data set: nothing is trained, labels and the headers of images are read.

    With ``memory_gb`` or ``train_hours`` some steps are measured, for a minute at most.

    Args:
        root: folder of labelled images; None for generated scenes (``data={"name": "synthetic"}``).
        config, overrides: what stays as it is, see :mod:`dbf_ray.api`; without a configuration the base is
            ``base_gpu`` or ``base_cpu``, by what the machine has, and a rule may change what it says.
        patches: folder to cut images into, where patches are due; the plan is then made on these.
        memory_gb: GB of tensors that a step may take on each device; None: micro-batches are the base's.
        train_hours: hours that one training may take with its evaluations, if its backbone is trained all the
            time; None: as many epochs as learning needs.
        progress: takes each line for a person; None: they go to stderr.

    Returns:
        ``config`` (as nested dictionaries), ``yaml`` (the same as a file, with reasons), ``choices``,
        ``fingerprint``, ``coverage``, ``measured``, ``notes``; or only ``cut``, the command that is to be
        run first, where patches are due and ``patches`` is None.

    Raises:
        DbfRayError: the data or the configuration cannot be used.

    Example:
        >>> plan = dbf_ray.plan_settings("my/images")
        >>> summary = dbf_ray.train_detector(plan["config"])
    """
    from dbf_ray.plan.costs import Budget
    from dbf_ray.plan.job import plan_data

    budget = Budget(memory_gb, train_hours)
    given = as_config(config, **overrides)
    base = given if config is not None else as_config(usual_base(given), **overrides)
    folder = None if root is None else Path(root)
    cut = None if patches is None else Path(patches)
    return plan_data(base, given_keys(given), folder, cut, progress or print_line, budget)


def evaluate_checkpoint(
    checkpoint: str | Path, data_root: str | Path | None = None, split: str = "val", **overrides: Any
) -> dict[str, Any]:
    """Evaluate a trained detector on the data it was trained on, or on others with the same classes.

    Args:
        checkpoint: a folder like runs/NAME/checkpoints/epoch-00012; it brings its configuration. Where it is
            torn, the newest whole one of an earlier epoch beside it is taken, with a warning. Or the URI of
            one in a storage (``s3://...``), which is fetched.
        data_root: another data folder, in the format that the detector was trained on (or DOTA's, after
            training on generated scenes).
        split: ``val`` or ``train``.
        overrides: keys to change, such as ``training={"device": "cpu"}``, see :mod:`dbf_ray.api`.

    Returns:
        Fractions in [0, 1]: map50, map50_voc07, map75, map50_95 and ap50/CLASS; NaN without objects. And
        ``checkpoint``, the folder that was evaluated.

    Raises:
        DbfRayError: the checkpoint or the data cannot be used.

    Example:
        >>> metrics = dbf_ray.evaluate_checkpoint("runs/mine/checkpoints/epoch-00012", "other/data")
        >>> metrics["map50"], metrics["ap50/ship"]
    """
    root = None if data_root is None else Path(data_root)
    used = whole_checkpoint(at_hand(checkpoint))
    config = as_config(config_of(used, root), **overrides)
    metrics = evaluated(config, used, split, partial(metrics_of, used, config, split))
    return {**metrics, "checkpoint": str(checkpoint if is_uri(checkpoint) else used)}


def predict_images(
    checkpoint: str | Path,
    images: Image | Sequence[Image],
    *,
    window: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    score: float | None = None,
    nms: float = NMS_THRESHOLD,
) -> list[ImageDetections]:
    """Detect objects in images of any size: the detections that ``dbf predict`` writes, in memory.

    Args:
        checkpoint: a folder like runs/NAME/checkpoints/epoch-00012; see :func:`evaluate_checkpoint`.
        images: one image or several, each a file, an array uint8 [H, W, 3] or a tensor uint8 [3, H, W], RGB.
        window, overlap: pixels; windows slide over an image, and each is resized to what the network was
            trained on. None: as large as the training images, 200/1024 of a window.
        batch: windows at once; None: the checkpoint's ``evaluation.batch_size``.
        score: detections up to it are dropped; None: up to the detector's ``score_threshold``.
        nms: of two detections of a class in an image of several windows that overlap by this IoU, the better
            one is kept.

    Returns:
        For each image what was found in it.

    Raises:
        DbfRayError: the checkpoint or an image cannot be read, or an option is out of range.

    Example:
        >>> (found,) = dbf_ray.predict_images("runs/mine/checkpoints/epoch-00012", "scene.tif", score=0.3)
        >>> for box, name in zip(found["boxes"], found["names"]):
        ...     print(name, box.tolist())
    """
    from dbf_ray.predict.checkpoint import make_task
    from dbf_ray.predict.memory import detect_in
    from dbf_ray.predict.options import Options

    options = Options(window=window, overlap=overlap, batch=batch, score=score, nms=nms)
    task, _ = make_task(whole_checkpoint(at_hand(checkpoint)), options)
    several: Sequence[Image] = images if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]
    return [
        {**found._asdict(), "names": [task.classes[label] for label in found.labels.tolist()]}  # type: ignore
        for found in detect_in(task, several)
    ]


def as_config(config: ConfigLike = None, **overrides: Any) -> Config:
    """The configuration that is meant, with keys changed.

    Raises:
        ConfigError: a file is missing, a key is unknown, or a value is out of range.
    """
    dotted = {key: value for key, value in flat(overrides).items() if value != {}}
    if config is None or isinstance(config, str | Path):
        return load_config(config, dotted)
    if not isinstance(config, Config):
        config = make_config(config, "the configuration given")
    return with_overrides(config, dotted) if dotted else config


def wants_ray(config: Config) -> bool:
    """Whether the run goes through Ray Train: several workers do, and on a cluster one, which Ray places too.

    Raises:
        ConfigError: several workers without Ray.
    """
    from dbf_ray.cluster.address import on_cluster

    use, workers = config.cluster.use_ray, config.cluster.workers
    if use is False and workers > 1:
        raise ConfigError(
            f"more than one worker needs Ray Train, got cluster.workers {workers} with cluster.use_ray "
            "false; change one"
        )
    return workers > 1 or on_cluster(config.cluster.address) if use is None else use


def _train_with_ray(config: Config) -> dict[str, Any]:
    """A run on this machine is checked before Ray starts; on a cluster the data may lie elsewhere."""
    from dbf_ray.cluster import train_on_ray
    from dbf_ray.cluster.address import cluster_address

    if cluster_address(config.cluster.address) is None:
        spec, directory = prepare(config), run_directory(config)
        if (resume := find_resume(config, directory)) is not None:
            resumed_data(spec, directory, resume, config.data.changed == "accept")
    return train_on_ray(config)
