"""The sections of a configuration: one strict pydantic model per part of a run. A key's description is its
help on the command line.

Sections that name a family member (``freezing.policy``, ``detector.name``) accept further keys, which are
that member's own parameters (``freezing.rho``); :mod:`dbf_ray.build` checks them against the member before
any work starts. A key whose type says nothing else shapes what is trained: see :mod:`.roles`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dbf_ray.config.base import OpenSection, Section
from dbf_ray.config.roles import Frozen, Guard, Label, Place, Resource, Thawed, Weights
from dbf_ray.values import is_text


class AugmentConfig(Section):
    """Random changes of training images, beyond the fixed set of orientations. All are off by default."""

    rotate: float = Field(
        0.0,
        ge=0,
        le=180,
        description="turn training images by a random angle of up to so many degrees either way, at constant "
        "size; objects whose centre leaves the image are dropped; 0: off. As all of data.augment it leaves "
        "freezing.cache nothing to keep",
    )
    rotate_probability: float = Field(0.5, ge=0, le=1, description="share of the images that are turned")
    scales: list[float] | None = Field(
        None,
        description="multi-scale training: the long side is image_size times a factor from [low, high], or, "
        "of three or more numbers, times one of them; it is the resized image that is scaled, so for full "
        "detail set image_size to the largest and scale by factors up to 1. With data.pad_to square or "
        "compiled graphs images are padded to the largest; null: off",
    )
    brightness: float = Field(
        0.0,
        ge=0,
        le=1,
        description="multiply by a random factor from 1 - brightness to 1 + brightness; 0: off",
    )
    contrast: float = Field(0.0, ge=0, le=1, description="the same for the contrast; 0: off")
    saturation: float = Field(0.0, ge=0, le=1, description="the same for the saturation; 0: off")
    hue: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="turn the hue by up to this share of the colour circle either way; 0: off",
    )


class DataConfig(Section):
    """Where the images come from and how they are fed."""

    name: str = Field(
        "synthetic", description="data set, drawn on the fly (synthetic) or the format of the folder root"
    )
    root: Place[Path | None] = Field(
        None, description="folder of the data; dota: with train/ and val/, each with images/ and labelTxt/"
    )
    train_split: str = Field(
        "train", description='split to train on; several joined by "+", as train+val (not synthetic)'
    )
    val_split: str = Field("val", description="split to evaluate on, as val or test (not synthetic)")
    classes: list[str] | str | None = Field(
        None,
        description="class names in label order, or a public list: dota-v1.0, dota-v1.5, dota-v2.0, dior-r, "
        "hrsc2016, hrsc2016-types; null: the format's own, or those found in train_split",
    )
    train_images: int = Field(240, ge=1, description="number of training scenes (synthetic only)")
    val_images: int = Field(80, ge=1, description="number of validation scenes (synthetic only)")
    image_size: int = Field(
        384,
        ge=32,
        le=8192,
        description="long side in pixels that images are resized to; nominal cost is for this square",
    )
    flips: list[
        Literal["horizontal", "vertical", "diagonal", "rotate90", "rotate270", "transpose", "transverse"]
    ] = Field(
        ["horizontal", "vertical", "diagonal"],
        description="orientations of training images beside the unflipped one, all drawn with equal chance: "
        "mirrored one way, the other, or both (diagonal: a half turn), turned counter-clockwise by 90 or 270 "
        "degrees, mirrored at a diagonal (transpose, transverse: as in Pillow)",
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    selection_fraction: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="share of train held out to evaluate on instead of val, as a search should; val is then "
        "left for the end",
    )
    selection_fold: int = Field(
        0,
        ge=0,
        description="which share is held out: 0 to 4 are different fifths with selection_fraction 0.2, for a "
        "cross-validation",
    )
    drop_empty: bool = Field(False, description="leave training images without objects out")
    allow_empty: Guard[bool] = Field(False, description="train though no image has an object")
    changed: Guard[Literal["refuse", "accept"]] = Field(
        "refuse", description="a run or study whose images or labels have changed; accept: goes on, noted"
    )
    orientation_per: Literal["epoch", "span"] = Field(
        "epoch",
        description="epoch: an image's orientation (flip) is drawn in each epoch; span: once for each frozen "
        "span, so that a feature cache hits in all but its first epoch",
    )
    pad_to: Literal["batch", "square"] = Field(
        "batch",
        description="what images are padded to: batch: the size that holds those of one step; square: always "
        "image_size (times the largest of augment.scales), for a feature cache of images of different "
        "shapes, whose features depend on their padding",
    )
    loader_workers: Resource[int | None] = Field(
        None,
        ge=0,
        description="processes that prepare images, per training worker; 0: in the training process; null: 0 "
        "on a CPU, up to 8 for a GPU",
    )
    prefetch: Resource[int] = Field(
        2, ge=1, description="micro-batches that each of these processes has ready"
    )
    decoded_gb: Resource[float] = Field(
        2.0,
        ge=0,
        description="memory in GB, per training worker, for decoded and resized images, training images "
        "first; 0: decode in every epoch",
    )

    @field_validator("train_split", "val_split")
    @classmethod
    def _within_root(cls, value: str) -> str:
        if not is_text(value) or any(
            {"/", "\\"} & set(name) or name in (".", "..") for name in value.split("+")
        ):
            raise ValueError("should name splits of the data, without slashes (root says where)")
        return value


class DetectorConfig(OpenSection):
    """The detector. Further keys are its own options."""

    name: str = Field("rotated_retinanet", description="which detector")
    backbone: str = Field("mobilenet_v2", description="which backbone")
    weights_backbone: Weights[str | None] = Field(
        None,
        description="null (random), DEFAULT or a name such as IMAGENET1K_V1 (torchvision's, downloaded), or "
        "a state_dict file",
    )
    weights_mmrotate: Weights[str | None] = Field(
        None,
        description="checkpoint of MMRotate 0.3 or 1.x of the same detector and backbone (resnet50, swin_t) "
        "to begin with; null: none",
    )
    weights_checkpoint: Weights[str | None] = Field(
        None,
        description="checkpoint of another run, of the same detector and classes, whose weights a new run "
        "begins with, in place of other weights; null: none",
    )
    fpn_channels: int = Field(256, ge=8, description="width of the feature pyramid and of the head")
    head_convs: int | None = Field(
        None,
        ge=0,
        description="3 x 3 convolutions in each branch of the dense head; null: the detector's own, 4, or 1 "
        "in two-stage ones",
    )
    frozen_stages: int = Field(
        0, ge=0, description="leading backbone stages that are never trained, whatever the policy"
    )
    norm_eval: bool | Literal["sync"] = Field(
        True,
        description="backbone batch norms: true always in eval mode, false in train mode while trained, sync "
        "over workers",
    )


class IntervalConfig(Section):
    """How long a decision holds."""

    unit: Literal["epochs", "steps"] = Field(
        "epochs", description="epochs, or optimizer steps for long epochs"
    )
    every: int = Field(
        1,
        ge=1,
        description="a policy's rule counts blocks of this many units: with steps and 500, rho 5 trains 500 "
        "steps in 2500",
    )


class FreezingConfig(OpenSection):
    """When the backbone is trained: n(t) of its K stages are frozen in epoch t of E. Further keys are the
    policy's parameters; docs/policies.md explains them.
    """

    policy: str = Field("full", description="the policy that decides it")
    interval: IntervalConfig = Field(default_factory=IntervalConfig)
    momentum: Thawed[Literal["keep", "reset"]] = Field(
        "keep",
        description="the optimizer's state of stages that are trained again: keep it, or reset it as if "
        "never stepped",
    )
    rewarm_steps: Thawed[int] = Field(
        0,
        ge=0,
        description="optimizer steps over which the learning rate of a stage that is trained again rises "
        "from warmup_factor times its value",
    )
    rewarm_after: Thawed[int] = Field(
        1, ge=1, description="frozen epochs (or blocks) in a row from which on that happens"
    )
    engine: Frozen[bool] = Field(
        True,
        description="run frozen stages as an inference engine: batch norms folded into convolutions, "
        "channels-last; equal up to rounding",
    )
    engine_precision: Frozen[Literal["auto", "bf16", "float32"]] = Field(
        "auto",
        description="of the engine; auto: training.precision. bf16 leaves the trained part as it is, and "
        "early stages in float32 where later ones would magnify their rounding (mobilenet_v2: two)",
    )
    engine_compile: Frozen[bool | None] = Field(
        None,
        description="torch.compile for the engine, once for each frozen prefix and shape of images; null: as "
        "training.compile",
    )
    cache: Frozen[Literal["off", "ram", "disk"]] = Field(
        "off",
        description="keep the features of frozen stages while these are frozen, and do not run them for an "
        "image that is known: in each worker's memory, or in files that all workers of a machine read and "
        "that outlive a crash",
    )
    cache_dtype: Frozen[Literal["bf16", "float16", "float32"]] = Field(
        "bf16", description="how cached features are stored"
    )
    cache_gb: Resource[float] = Field(
        4.0, gt=0, description="hard limit in GB of memory or disk, of each worker's cache"
    )
    cache_dir: Place[Path | None] = Field(
        None,
        description="folder of cache disk, best on a local disk; null: features/ in the run's folder. "
        "Removed when the run is finished",
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
    batch_size: int = Field(
        8, ge=1, description="effective batch: images per optimizer step over all workers and micro-batches"
    )
    accumulation: int = Field(1, ge=1, description="micro-batches per optimizer step on each worker")
    micro_batch_gb: Resource[float | None] = Field(
        None,
        gt=0,
        description="with accumulation: merge micro-batches where stages are frozen, as long as the measured "
        "peak of a step's tensors stays within this many GB on each device; null: never",
    )
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="which optimizer")
    lr: float = Field(2e-4, gt=0, description="base learning rate")
    backbone_lr_factor: float = Field(1.0, gt=0, description="the backbone's learning rate is lr times this")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (sgd only)")
    weight_decay: float = Field(0.05, ge=0, description="weight decay of weights; norms and biases have none")
    schedule: Literal["constant", "step", "cosine"] = Field(
        "step",
        description="learning rate after warm-up: constant, step (see milestones, gamma) or cosine (see "
        "final_lr_factor)",
    )
    milestones: list[int] = Field(
        [8, 11], description="step schedule: epochs before which lr is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the step schedule")
    final_lr_factor: float = Field(0.0, ge=0, le=1, description="the cosine schedule ends at lr times this")
    warmup_steps: int = Field(100, ge=0, description="optimizer steps of linear warm-up")
    warmup_factor: float = Field(1.0 / 3.0, gt=0, le=1, description="warm-up starts at lr times this")
    clip_norm: float | None = Field(
        35.0, gt=0, description="clip the gradient norm of the trained parameters; null: no clipping"
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32",
        description="bf16: forward under autocast, losses in float32; faster where the CPU or GPU has bf16",
    )
    channels_last: bool = Field(
        True, description="channels-last memory format, usually faster for convolutions"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is then what is evaluated; "
        "null: none",
    )
    compile: bool = Field(
        False,
        description="torch.compile for backbone, neck and dense head, a graph for each frozen prefix, "
        "trained and evaluated, compiled when it is first needed (minutes); meant for long trainings on "
        "GPUs. All images are padded to the square of data.image_size, so that one size does",
    )
    device: Resource[Literal["auto", "cpu", "cuda"]] = Field(
        "auto", description="auto: cuda where there is one"
    )
    threads: Resource[int | None] = Field(
        None, ge=1, description="CPU threads of each worker; null: torch's default, or the CPUs Ray gave it"
    )
    keep_checkpoints: Resource[int] = Field(
        2, ge=1, description="newest checkpoints kept in the run's folder"
    )
    keep_best: Resource[bool] = Field(
        False, description="keep the checkpoint of the epoch with the best map50, too"
    )

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, value: list[int]) -> list[int]:
        if any(m < 1 for m in value) or sorted(set(value)) != value:
            raise ValueError("milestones must be increasing epochs >= 1")
        return value


class EvaluationConfig(Section):
    """When the detector is evaluated; the last epoch always is."""

    every: int = Field(1, ge=1, description="evaluate after every this many epochs, and after the last")
    batch_size: Resource[int] = Field(8, ge=1, description="images per evaluation batch and worker")
    pictures_every: Resource[int | None] = Field(
        None,
        ge=0,
        description="epochs from one picture of detections to the next (the first and the last evaluation "
        "have one); 0: none, nor of precision and confusion; null: for about five in a training",
    )


class TrackingConfig(Section):
    """Where records go beside the run's own folder."""

    mlflow: Place[bool] = Field(
        True, description="log to MLflow; the record in the run's folder is written anyway"
    )
    uri: Place[str | None] = Field(
        None, description="MLflow tracking URI; null: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db"
    )
    experiment: Label[str] = Field(
        "dbf_ray", description="MLflow experiment of single runs; a study has its own"
    )
    registered_model_name: Label[str | None] = Field(
        None,
        description="name in MLflow's model registry for the detector trained or recommended; null: none",
    )
