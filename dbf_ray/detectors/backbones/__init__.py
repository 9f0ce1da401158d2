"""Pretrained torchvision backbones as ordered stages.

A family is one file with a function that cuts torchvision's classifier, a backbone one row in
:data:`BACKBONES`. All follow one interface, :class:`StagedBackbone`: a list of stages in forward order, the
stem in the first, one feature map out of each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import nn
from torchvision import models

from dbf_ray.detectors.backbones.convnext import cut_convnext
from dbf_ray.detectors.backbones.efficientnet import cut_efficientnet
from dbf_ray.detectors.backbones.mobilenet import (
    cut_mobilenet_v2,
    cut_mobilenet_v3_large,
    cut_mobilenet_v3_small,
)
from dbf_ray.detectors.backbones.parts import Cut, NormedStage
from dbf_ray.detectors.backbones.regnet import cut_regnet
from dbf_ray.detectors.backbones.resnet import cut_resnet
from dbf_ray.detectors.backbones.staged import FrozenFeatures, StagedBackbone
from dbf_ray.detectors.backbones.swin import cut_swin
from dbf_ray.detectors.backbones.weights import (
    download_weights,
    find_weights,
    fit_state,
    load_backbone_weights,
)
from dbf_ray.detectors.norms import convert_sync_batchnorm
from dbf_ray.errors import ConfigError
from dbf_ray.files import is_weights_name
from dbf_ray.members import find_member

Row = tuple[Callable[..., nn.Module], Cut]
BACKBONES: dict[str, Row] = {
    "mobilenet_v2": (models.mobilenet_v2, cut_mobilenet_v2),
    "mobilenet_v3_large": (models.mobilenet_v3_large, cut_mobilenet_v3_large),
    "mobilenet_v3_small": (models.mobilenet_v3_small, cut_mobilenet_v3_small),
    "resnet18": (models.resnet18, cut_resnet),
    "resnet34": (models.resnet34, cut_resnet),
    "resnet50": (models.resnet50, cut_resnet),
    "resnet101": (models.resnet101, cut_resnet),
    "swin_t": (models.swin_t, cut_swin),
    "swin_s": (models.swin_s, cut_swin),
    "convnext_tiny": (models.convnext_tiny, cut_convnext),
    "efficientnet_b0": (models.efficientnet_b0, cut_efficientnet),
    "regnet_y_400mf": (models.regnet_y_400mf, cut_regnet),
    "regnet_y_800mf": (models.regnet_y_800mf, cut_regnet),
    "regnet_y_1_6gf": (models.regnet_y_1_6gf, cut_regnet),
}

FLOAT32_STAGES = {"mobilenet_v2": 2}
"""Leading stages that an engine in bf16 runs in float32, of backbones where that was measured:
docs/results/low_precision.md.
"""


def find_backbone(name: str) -> Row:
    """What builds a classifier (``build(weights=None)``), and what cuts it into stages: a row of
    :data:`BACKBONES`, or such a pair found by a dotted path ``package.module:my_backbone``.

    Raises:
        ConfigError: there is no such backbone.
    """
    rule = "a pair (build, cut) of functions, as the rows of dbf_ray.detectors.backbones.BACKBONES are"
    found: Row = find_member("backbone", name, BACKBONES, rule, _is_a_row)
    return found


def _is_a_row(member: object) -> bool:
    return isinstance(member, tuple) and len(member) == 2 and all(map(callable, member))


def make_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    norm_eval: bool | Literal["sync"] = True,
    always_frozen: int = 0,
) -> StagedBackbone:
    """Build a backbone by name.

    Args:
        name: a key of :data:`BACKBONES`, or a dotted path to such a row.
        weights: None (random); the name of torchvision's, downloaded once, such as ``"IMAGENET1K_V1"``,
            ``"ResNet50_Weights.IMAGENET1K_V1"`` or ``"DEFAULT"``; or a state_dict file with torchvision's
            keys, in which what is not used (the classifier) may be missing.
        norm_eval: batch norms always in eval mode (True), in train mode while trained (False), or with
            statistics over all ranks ("sync").
        always_frozen: leading stages that are never trained, 0..K.

    Raises:
        ConfigError: unknown name, or ``always_frozen`` out of range.
        WeightsError: the weights are unknown, missing, unreadable or do not fit.
    """
    build, cut = find_backbone(name)
    named = find_weights(build, weights, name) if weights is not None and is_weights_name(weights) else None
    network = build(weights=None)
    stages, channels, strides = cut(network)
    if not 0 <= always_frozen <= len(stages):
        raise ConfigError(f"`frozen_stages` must be in 0..{len(stages)} for {name}, got {always_frozen}")
    if named is not None:
        fit_state(network, download_weights(named, name), f"torchvision's {named}", name, stages)
    elif weights is not None:
        load_backbone_weights(network, Path(weights).expanduser(), name, stages)
    backbone = StagedBackbone(
        stages,
        channels,
        strides,
        norm_eval=norm_eval is True,
        always_frozen=always_frozen,
        float32_stages=FLOAT32_STAGES.get(name, 0),
    )
    if norm_eval == "sync":
        convert_sync_batchnorm(backbone)
    return backbone


__all__ = [
    "BACKBONES",
    "FLOAT32_STAGES",
    "FrozenFeatures",
    "NormedStage",
    "StagedBackbone",
    "find_backbone",
    "is_weights_name",
    "load_backbone_weights",
    "make_backbone",
]
