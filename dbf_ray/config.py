"""What a run is: one strict pydantic model per part, read from YAML plus dotted command-line overrides.

Nothing below ``build.py`` sees these classes: ``build.py`` turns them into plain arguments.
Sections that name a family member (``freezing.policy``, ``detector.name``) accept further keys, which are that member's own
parameters (``freezing.rho``); ``build.py`` checks them against the member before any work starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dbf_ray.errors import ConfigError


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class OpenSection(Section):
    """A section whose further keys are parameters of the family member that it names."""

    model_config = ConfigDict(extra="allow", validate_assignment=True, allow_inf_nan=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that this section does not define itself: the member's own parameters."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _no_slips(self) -> OpenSection:
        for key in self.parameters:
            if meant := difflib.get_close_matches(key, type(self).model_fields, 1, cutoff=0.8):
                raise ValueError(f"unknown key {key}; did you mean {meant[0]}?")
        return self


class DataConfig(Section):
    """Where the images come from and how they are fed."""

    name: str = Field("synthetic", description="data set: synthetic (drawn on the fly) or dota (folders of images and labelTxt)")
    root: Path | None = Field(None, description="folder with train/ and val/, each with images/ and labelTxt/ (dota only)")
    classes: list[str] | None = Field(None, description="class names in label order; dota: default the classes found in train")
    train_images: int = Field(240, ge=1, description="number of training scenes (synthetic only)")
    val_images: int = Field(80, ge=1, description="number of validation scenes (synthetic only)")
    image_size: int = Field(
        384, ge=32, le=8192, description="long side in pixels that images are resized to; nominal cost is for this square"
    )
    flips: list[Literal["horizontal", "vertical", "diagonal"]] = Field(
        ["horizontal", "vertical", "diagonal"], description="training views beside the unflipped image, all drawn with equal chance"
    )
    selection_fraction: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="share of train held out to evaluate on instead of val, as a search should; val is then left for the end",
    )
    drop_empty: bool = Field(False, description="leave training images without objects out")
    view_per: Literal["epoch", "stretch"] = Field(
        "epoch",
        description="epoch: an image's view (flip) is drawn in each epoch; stretch: once for each frozen stretch, so that a feature cache hits in "
        "all but its first epoch",
    )
    canvas: Literal["batch", "square"] = Field(
        "batch",
        description="what images are padded to: batch: the size that holds those of one step; square: always image_size, for a feature cache of "
        "images of different shapes, whose features depend on their padding",
    )
    loader_workers: int | None = Field(
        None,
        ge=0,
        description="processes that prepare images, per training worker; 0: in the training process; null: 0 on a CPU, up to 8 for a GPU",
    )
    prefetch: int = Field(2, ge=1, description="micro-batches that each of these processes has ready")
    decoded_gb: float = Field(
        2.0,
        ge=0,
        description="memory in GB, per training worker, for decoded and resized images, training images first; 0: decode in every epoch",
    )


class DetectorConfig(OpenSection):
    """The detector. Further keys are its own options; all: score_threshold, nms_threshold, detections_per_image; rotated_retinanet:
    anchor_scales, anchor_ratios, anchor_angles (degrees), positive_iou, negative_iou, topk_candidates, loss_beta; rotated_fcos:
    regress_limits, center_radius, topk_candidates; two-stage: anchor_scales, anchor_ratios, roi_channels, proposals, rpn_samples,
    rpn_positive_fraction, rpn_positive_iou, rpn_negative_iou, rpn_candidates, rpn_nms_threshold, roi_samples, roi_positive_fraction,
    roi_positive_iou.
    """

    name: str = Field(
        "rotated_retinanet", description="which detector: rotated_retinanet, rotated_fcos, rotated_faster_rcnn, oriented_rcnn"
    )
    backbone: str = Field(
        "mobilenet_v2",
        description="which backbone: mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, resnet18, resnet34, resnet50, resnet101, swin_t, "
        "swin_s, convnext_tiny, efficientnet_b0, regnet_y_400mf, regnet_y_800mf, regnet_y_1_6gf",
    )
    weights_backbone: str | None = Field(
        None, description="null (random), DEFAULT or a name such as IMAGENET1K_V1 (torchvision's, downloaded), or a state_dict file"
    )
    weights_mmrotate: str | None = Field(
        None, description="checkpoint of MMRotate 0.3 or 1.x of the same detector and backbone (resnet50, swin_t) to begin with; null: none"
    )
    fpn_channels: int = Field(256, ge=8, description="width of the feature pyramid and of the head")
    head_convs: int | None = Field(
        None, ge=0, description="3 x 3 convolutions in each branch of the dense head; null: the detector's own, 4, or 1 in two-stage ones"
    )
    frozen_stages: int = Field(0, ge=0, description="leading backbone stages that are never trained, whatever the policy")
    norm_eval: bool | Literal["sync"] = Field(
        True, description="backbone batch norms: true always in eval mode, false in train mode while trained, sync over workers"
    )


class IntervalConfig(Section):
    """How long a decision holds."""

    unit: Literal["epochs", "steps"] = Field("epochs", description="epochs, or optimizer steps for long epochs")
    every: int = Field(
        1, ge=1, description="a policy's rule counts blocks of this many units: with steps and 500, rho 5 trains 500 steps in 2500"
    )


class FreezingConfig(OpenSection):
    """When the backbone is trained. Further keys are the policy's parameters: step: rho, phase; epochs: epochs; random_budget, front, back:
    budget; bernoulli: p; lr_scale: factor; layer_decay: xi; warmup_step: warmup, rho; cosine: start, end; gradual_unfreeze: every;
    gradual_freeze: t0, p; multirate_step: rho, growth; gradnorm: percentile, window, recheck; aimd: threshold, start, max_rho; drift: low, high,
    recheck; plateau: patience, min_delta; budget: limit, inner (inner.name and that policy's parameters). docs/policies.md explains them.
    """

    policy: str = Field(
        "full",
        description="full: always trained; frozen: never; step: in epochs 0, rho, 2 rho, ..., so --freezing.rho 4 belongs to it; or epochs, "
        "random_budget, bernoulli, front, back, lr_scale, layer_decay, warmup_step, cosine, gradual_unfreeze, gradual_freeze, multirate_step, "
        "gradnorm, aimd, drift, plateau, budget",
    )
    interval: IntervalConfig = Field(default_factory=IntervalConfig)
    momentum: Literal["keep", "reset"] = Field(
        "keep", description="the optimizer's state of stages that are trained again: keep it, or reset it as if never stepped"
    )
    rewarm_steps: int = Field(
        0,
        ge=0,
        description="optimizer steps over which the learning rate of a stage that is trained again rises from warmup_factor times its value",
    )
    rewarm_after: int = Field(1, ge=1, description="frozen epochs (or blocks) in a row from which on that happens")
    engine: bool = Field(
        True,
        description="run frozen stages as an inference engine: batch norms folded into convolutions, channels-last; equal up to rounding",
    )
    engine_precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", description="of the engine; auto: training.precision. bf16 leaves the trained part as it is"
    )
    engine_compile: bool | None = Field(
        None, description="torch.compile for the engine, once for each frozen prefix and shape of images; null: as training.compile"
    )
    cache: Literal["off", "ram", "disk"] = Field(
        "off",
        description="keep the features of frozen stages while these are frozen, and do not run them for an image that is known: in each worker's "
        "memory, or in files that all workers of a machine read and that outlive a crash",
    )
    cache_dtype: Literal["bf16", "float16", "float32"] = Field("bf16", description="how cached features are stored")
    cache_gb: float = Field(4.0, gt=0, description="GB of memory or disk that each worker's cache never goes beyond")
    cache_dir: Path | None = Field(
        None,
        description="folder of cache disk, best on a local disk; null: features/ in the run's folder. Removed when the run is finished",
    )

    @field_validator("cache", mode="before")
    @classmethod
    def _off_in_yaml(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML 1.1 reads off as false

    @model_validator(mode="after")
    def _policy_is_its_name(self) -> FreezingConfig:
        if "name" in self.parameters:
            raise ValueError("unknown key name; did you mean policy?")
        return self


class TrainingConfig(Section):
    """Optimization. Steps are optimizer steps, epochs are 0-based."""

    epochs: int = Field(12, ge=1, description="epochs to train")
    batch_size: int = Field(8, ge=1, description="effective batch: images per optimizer step over all workers and micro-batches")
    accumulation: int = Field(1, ge=1, description="micro-batches per optimizer step on each worker")
    micro_batch_gb: float | None = Field(
        None,
        gt=0,
        description="with accumulation: merge micro-batches, as where stages are frozen, as long as the tensors of a step (weights, optimizer, "
        "activations of the network) stay within this many GB on each device; null: never",
    )
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="which optimizer")
    lr: float = Field(2e-4, gt=0, description="base learning rate")
    backbone_lr_factor: float = Field(1.0, gt=0, description="the backbone's learning rate is lr times this")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (sgd only)")
    weight_decay: float = Field(0.05, ge=0, description="weight decay of weights; norms and biases have none")
    schedule: Literal["constant", "step", "cosine"] = Field(
        "step", description="learning rate after warm-up: constant, step (see milestones, gamma) or cosine (see final_lr_factor)"
    )
    milestones: list[int] = Field([8, 11], description="step schedule: epochs before which lr is multiplied by gamma")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the step schedule")
    final_lr_factor: float = Field(0.0, ge=0, le=1, description="the cosine schedule ends at lr times this")
    warmup_steps: int = Field(100, ge=0, description="optimizer steps of linear warm-up")
    warmup_factor: float = Field(1.0 / 3.0, gt=0, le=1, description="warm-up starts at lr times this")
    clip_norm: float | None = Field(35.0, gt=0, description="clip the gradient norm of the trained parameters; null: no clipping")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: forward under autocast, losses in float32; faster where the CPU or GPU has bf16"
    )
    channels_last: bool = Field(True, description="channels-last memory format, usually faster for convolutions")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of an exponential moving average of the weights, which is then what is evaluated; null: none"
    )
    compile: bool = Field(
        False,
        description="torch.compile for backbone, neck and dense head, a graph for each frozen prefix, trained and evaluated, compiled when it is "
        "first needed (minutes); meant for long trainings on GPUs. All images are padded to the square of data.image_size, so that one size does",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    threads: int | None = Field(None, ge=1, description="CPU threads of each worker; null: torch's default, or the CPUs Ray gave it")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept in the run's folder")

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, value: list[int]) -> list[int]:
        if any(m < 1 for m in value) or sorted(set(value)) != value:
            raise ValueError("milestones must be increasing epochs >= 1")
        return value


class EvaluationConfig(Section):
    """When the detector is evaluated; the last epoch always is."""

    every: int = Field(1, ge=1, description="evaluate after every this many epochs, and after the last")
    batch_size: int = Field(8, ge=1, description="images per evaluation batch and worker")


class ClusterConfig(Section):
    """Ray Train workers."""

    workers: int = Field(1, ge=1, description="data-parallel training workers (DDP ranks)")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs that each worker reserves")
    gpu: bool = Field(False, description="give each worker a GPU of its own")
    use_ray: bool | None = Field(None, description="run under Ray Train; null: only when workers > 1")
    address: str | None = Field(None, description="Ray cluster address; null: the running job's, or a local one")
    storage: str | None = Field(None, description="folder or URI all nodes share, for checkpoints; null: the runs folder")
    max_failures: int = Field(3, ge=0, description="worker failures to recover from")


class TrackingConfig(Section):
    """Where records go beside the run's own folder."""

    mlflow: bool = Field(True, description="log to MLflow; the record in the run's folder is written anyway")
    uri: str | None = Field(None, description="MLflow tracking URI; null: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db")
    experiment: str = Field("dbf_ray", description="MLflow experiment of single runs; a study has its own")


class SearchConfig(Section):
    """A study: how many trials, and how many at once."""

    trials: int = Field(20, ge=1, description="trials to run, baselines included")
    concurrent: int | None = Field(None, ge=1, description="trials at once; null: as many as the resources hold")
    studies_dir: Path = Field(Path("studies"), description="folder of the studies")


class Config(Section):
    """What a run is called and where it goes."""

    name: str | None = Field(None, description="run name, also its folder; null: made from the policy, detector and seed")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, order, augmentation and policies")
    runs_dir: Path = Field(Path("runs"), description="folder of the runs")
    data: DataConfig = Field(default_factory=DataConfig)
    detector: DetectorConfig = Field(default_factory=DetectorConfig)
    freezing: FreezingConfig = Field(default_factory=FreezingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)

    @field_validator("name")
    @classmethod
    def _one_folder(cls, value: str | None) -> str | None:
        if value is not None and (value in ("", ".", "..") or "/" in value or "\\" in value):
            raise ValueError("should be the name of one folder, without slashes (runs_dir says where)")
        return value

    @model_validator(mode="after")
    def _divisible(self) -> Config:
        parts = self.cluster.workers * self.training.accumulation
        if self.training.batch_size % parts:
            raise ValueError(
                f"training.batch_size must be divisible by cluster.workers x training.accumulation "
                f"= {self.cluster.workers} x {self.training.accumulation}, got {self.training.batch_size}"
            )
        return self


def load_config(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file and lay dotted overrides over it.

    Args:
        file: YAML file, or None for the defaults.
        overrides: dotted key -> value, for example ``{"freezing.rho": 5}``. Strings are parsed as YAML scalars.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, or a value is out of range.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"cannot read the configuration file {file}: {error.strerror or error}; give an existing YAML file"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}; correct it") from error
        if not isinstance(loaded, dict | None):
            raise ConfigError(
                f"{file} must hold a mapping of sections and keys to values, found {type(loaded).__name__}; see jobs/configs for examples"
            )
        # A section whose keys are all commented out is empty, not null.
        tree = {key: {} if value is None and _section(key) else value for key, value in (loaded or {}).items()}
    freezing = tree.get("freezing")
    if isinstance(freezing, dict) and overrides and overrides.get("freezing.policy", freezing.get("policy")) != freezing.get("policy"):
        tree["freezing"] = _without_parameters(freezing)  # the file's policy goes, and its parameters with it
    _drop_inner(tree, overrides or {})
    place = "the options given" if file is None else f"{file} with the options given" if overrides else str(file)
    return make_config(apply_overrides(tree, overrides or {}), place)


def apply_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``tree`` with each dotted key of ``overrides`` set."""
    result = {key: apply_overrides(value, {}) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for dotted, value in overrides.items():
        *parents, leaf = dotted.split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--{dotted}: {parent} is a value, not a section")
            node = child
        node[leaf] = _parse_scalar(value, dotted) if isinstance(value, str) else value
    return result


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a copy of ``config`` with dotted keys changed. Changing ``freezing.policy`` drops the old policy's parameters."""
    tree = to_dict(config)
    if "freezing.policy" in overrides:
        tree["freezing"] = _without_parameters(tree["freezing"])
    _drop_inner(tree, overrides)
    return make_config(apply_overrides(tree, overrides), "the overrides")


def _drop_inner(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Another inner policy leaves nothing of the first one's parameters."""
    freezing = tree.get("freezing")
    if not isinstance(freezing, dict):
        return
    inner = freezing.get("inner")
    if isinstance(inner, dict) and overrides.get("freezing.inner.name", inner.get("name")) != inner.get("name"):
        tree["freezing"] = {**freezing, "inner": {}}


def _without_parameters(freezing: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in freezing.items() if key in FreezingConfig.model_fields}


def to_dict(config: Config) -> dict[str, Any]:
    """The complete configuration as plain YAML-able values."""
    return config.model_dump(mode="json")


def save_config(config: Config, file: Path) -> None:
    """Write the complete configuration, reusable by :func:`load_config`."""
    file.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def make_config(tree: Mapping[str, Any], place: str) -> Config:
    """The configuration that ``tree`` describes; ``place`` says in messages where it came from.

    Raises:
        ConfigError: a key is unknown, or a value is out of range; all such problems on one line.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problems(error.errors()))
        raise ConfigError(f"{problems} (in {place}); python -m jobs.train --help explains every key") from error


def _parse_scalar(text: str, dotted: str) -> Any:
    """``text`` read as YAML, or as it stands for keys whose values are text: a run may be called 5, a folder 2024-01-01."""
    node: Any = Config
    for part in dotted.split("."):
        node = node.model_fields[part].annotation if _is_model(node) and part in node.model_fields else None
    kinds = get_args(node) or (node,)
    if str in kinds or Path in kinds:
        return None if type(None) in kinds and text in ("", "null") else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            return value
    return value


def _problems(errors: Iterable[Any]) -> list[str]:
    """One phrase for each key with a problem; a value that fits none of several types has one error for each of them."""
    rules: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for item in errors:
        key, known = _locate(item["loc"])
        if item["type"] == "extra_forbidden":
            meant = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
            rules[f"unknown key {key}"] = [f"did you mean {meant[0]}?" if meant else f"known here: {', '.join(known)}"]
            continue
        rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        rules.setdefault(key, []).append(rule + (", written [a, b]" if item["type"] == "list_type" else ""))
        if not (isinstance(item["input"], Mapping) and item["type"] == "value_error"):
            given[key] = f", got {item['input']!r}"
    return [(f"{key}: " if key else "") + " or ".join(rules[key]) + given.get(key, "") for key in rules]


def _locate(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Dotted key of an error's location, and the keys known where it ends; pydantic's names of union members are left out."""
    node: Any = Config
    parts: list[str] = []
    known: list[str] = []
    for part in location:
        if _is_model(node):
            known = list(node.model_fields)
        elif isinstance(part, str):
            continue
        parts.append(str(part))
        node = node.model_fields[part].annotation if _is_model(node) and part in node.model_fields else None
    return ".".join(parts), known


def _section(key: Any) -> bool:
    return key in Config.model_fields and _is_model(Config.model_fields[key].annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
