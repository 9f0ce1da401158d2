"""Weights of MMRotate 0.3 and 1.x for the same four detectors, so that zoo models can be evaluated and
fine-tuned.

The names are MMRotate's; what they hold is the same, but for two things in Swin: the four neighbours that a
patch merging joins come in another order, and the index of relative positions is a table that torchvision
computes itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbf_ray.detectors.base import Detector
from dbf_ray.errors import WeightsError
from dbf_ray.tensors import load_tensors

# not weights: both sides make them anew
COMPUTED = re.compile(r"relative_position_index$|^data_preprocessor\.|^mean$|^std$")


@dataclass(frozen=True)
class Placement:
    """What became of a checkpoint's tensors.

    Attributes:
        placed: names that were copied into the detector.
        unplaced: names that could not be, each with the reason.
        missing: the detector's own names that got nothing and keep what they had.
    """

    placed: list[str]
    unplaced: dict[str, str]
    missing: list[str]

    def __str__(self) -> str:
        text = f"{len(self.placed)} tensors placed"
        if self.unplaced:
            text += (
                f"; could not place {_some([f'{name} ({reason})' for name, reason in self.unplaced.items()])}"
            )
        return text + (f"; without new values: {_some(self.missing)}" if self.missing else "")


def load_mmrotate_state_dict(detector: Detector, state_dict: Mapping[str, Tensor]) -> Placement:
    """Copy the weights of a MMRotate RetinaNet, FCOS, Faster R-CNN or Oriented R-CNN with ResNet or Swin
    backbone into ours.

    Args:
        detector: of the same kind, with the same backbone and widths. The number of classes may differ: then
            the layer of class logits keeps its own values.
        state_dict: MMRotate's names to tensors.

    Returns:
        What was placed and what was not.

    Raises:
        WeightsError: nothing fits, or a tensor that is not of the class logits has another shape.
    """
    own = detector.state_dict()
    names = _names(detector, list(state_dict))
    class_logits = [names(f"{owner}.{kind}") for owner in _CLASS_LOGITS for kind in ("weight", "bias")]
    placed: dict[str, Tensor] = {}
    unplaced: dict[str, str] = {}
    wrong: list[str] = []
    for name, value in state_dict.items():
        if COMPUTED.search(name):
            continue
        target = names(name)
        if target is None:
            unplaced[name] = "no place in the detector"
        elif target not in own:
            wrong.append(f"{name}: the detector has no {target}")
        elif own[target].shape != (value := _reordered(name, value)).shape:
            reason = f"shape {tuple(value.shape)}, the detector's is {tuple(own[target].shape)}"
            unplaced[name] = reason
            if target not in class_logits:
                wrong.append(f"{name}: {reason}")
        else:
            placed[target] = value
    kind = type(detector).__name__
    if not placed or wrong:
        problem = (
            wrong[0]
            if wrong
            else f"no name of the file is one of its, the file's first is {next(iter(state_dict), 'missing')}"
        )
        raise WeightsError(
            f"MMRotate weights do not fit {kind}: {problem}; choose the detector, backbone and widths of the "
            "checkpoint"
        )
    missing = [
        name
        for name in own
        if name not in placed and not COMPUTED.search(name) and not name.endswith("num_batches_tracked")
    ]
    with torch.no_grad():
        for name, value in placed.items():
            own[name].copy_(value)
    return Placement(list(placed), unplaced, missing)


def load_mmrotate_checkpoint(detector: Detector, file: Path) -> Placement:
    """:func:`load_mmrotate_state_dict` of a checkpoint file."""
    state, _ = read_mmrotate_checkpoint(file)
    return load_mmrotate_state_dict(detector, state)


def read_mmrotate_checkpoint(file: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """The state_dict of a MMRotate checkpoint, and the names of its classes where it says them.

    Such files carry pickled metadata. They are read with ``weights_only=True``; beside plain values only
    numpy's arrays and numbers and mmengine's log of losses are let in, the latter as an empty object.

    Raises:
        WeightsError: the file is missing, unreadable, holds other objects, or is no checkpoint.
    """
    try:
        with torch.serialization.safe_globals(_allowed()):
            loaded = load_tensors(file)
    except FileNotFoundError:
        raise WeightsError(
            f"MMRotate checkpoint {file} does not exist; give the path of a .pth file"
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"cannot read MMRotate checkpoint {file}: {reason}; save its state_dict alone where it was "
            "trained"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    tensors = (
        {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if not tensors:
        raise WeightsError(
            f"{file} must hold a MMRotate checkpoint with a state_dict (names to tensors), found "
            f"{type(loaded).__name__}"
        )
    return tensors, _classes(loaded.get("meta"))


class _Ignored:
    """Stands for an object of a checkpoint's metadata that is not needed."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


def _allowed() -> list[Any]:
    """What may be in a checkpoint beside plain values, by the names that old and new numpy and mmengine
    pickle them under.
    """
    scalar, reconstruct = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    allowed: list[Any] = [
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
        (_Ignored, _HISTORY),
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(scalar, f"{module}.scalar"), (reconstruct, f"{module}._reconstruct")]
    return allowed


_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_CLASS_LOGITS = ("bbox_head.retina_cls", "bbox_head.conv_cls", "roi_head.bbox_head.fc_cls")


def _classes(meta: Any) -> list[str] | None:
    if not isinstance(meta, dict):
        return None
    described = meta.get("dataset_meta")
    found = meta.get("CLASSES") or (
        described.get("classes") or described.get("CLASSES") if isinstance(described, dict) else None
    )
    return [str(name) for name in found] if isinstance(found, list | tuple) else None


Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern of MMRotate's names, and ours


def _names(detector: Detector, keys: Sequence[str]) -> Callable[[str], str | None]:
    """From a name of MMRotate's to ours, or None."""
    laterals = len(detector.neck.lateral)  # type: ignore[arg-type]
    convs = len({key.split(".")[2] for key in keys if key.startswith("bbox_head.cls_convs.")})
    normed = any(".gn." in key for key in keys)

    def pyramid(match: re.Match[str]) -> str:
        index = int(match[1])
        return f"neck.output.{index}." if index < laterals else f"neck.extra.{index - laterals}."

    def tower(match: re.Match[str]) -> str:
        kind = "classification" if match[1] == "cls" else "regression"
        if normed:  # convolution, norm, ReLU
            return f"head.{kind}_tower.{3 * int(match[2]) + (match[3] == 'gn')}."
        return f"head.{kind}.{2 * int(match[2])}."  # convolution, ReLU

    rules: list[Rule] = [
        *_RESNET,
        *_SWIN,
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral.\1."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", pyramid),
        (r"^bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.", tower),
        (r"^bbox_head\.retina_cls\.", f"head.classification.{2 * convs}."),
        (r"^bbox_head\.retina_reg\.", f"head.regression.{2 * convs}."),
        (r"^bbox_head\.conv_cls\.", "head.classification."),
        (r"^bbox_head\.conv_reg\.", "head.distances."),
        (r"^bbox_head\.conv_(angle|centerness)\.", r"head.\1."),
        (r"^bbox_head\.scales\.(\d+)\.scale$", r"head.distance_scales.\1"),
        (r"^bbox_head\.scale_angle\.scale$", "head.angle_scale"),
        (r"^rpn_head\.rpn_conv\.", "rpn.head.tower.0."),
        (r"^rpn_head\.rpn_cls\.", "rpn.head.objectness."),
        (r"^rpn_head\.rpn_reg\.", "rpn.head.deltas."),
        (r"^roi_head\.bbox_head\.shared_fcs\.(\d+)\.", r"head.shared.\1."),
        (r"^roi_head\.bbox_head\.fc_cls\.", "head.classification."),
        (r"^roi_head\.bbox_head\.fc_reg\.", "head.regression."),
    ]
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def translate(name: str) -> str | None:
        for pattern, replacement in compiled:
            if pattern.search(name):
                return pattern.sub(replacement, name)
        return None

    return translate


def _layer(match: re.Match[str]) -> str:
    layer = int(match[1])
    return "backbone.stages.0.4." if layer == 1 else f"backbone.stages.{layer - 1}."


def _block(match: re.Match[str]) -> str:
    stage = int(match[1])
    return f"backbone.stages.{stage}.body.{2 if stage == 0 else 1}.{match[2]}.{_PARTS[match[3]]}."


_PARTS = {
    **{name: name for name in ("norm1", "norm2")},
    **{f"attn.w_msa.{name}": f"attn.{name}" for name in ("qkv", "proj")},
    "ffn.layers.0.0": "mlp.0",
    "ffn.layers.1": "mlp.3",
}
_RESNET: list[Rule] = [
    (r"^backbone\.conv1\.", "backbone.stages.0.0."),
    (r"^backbone\.bn1\.", "backbone.stages.0.1."),
    (r"^backbone\.layer([1-4])\.", _layer),
]
_SWIN: list[Rule] = [
    (r"^backbone\.patch_embed\.projection\.", "backbone.stages.0.body.1.0."),
    (r"^backbone\.patch_embed\.norm\.", "backbone.stages.0.body.1.2."),
    (
        r"^backbone\.stages\.(\d)\.blocks\.(\d+)\.(norm[12]|attn\.w_msa\.(?:qkv|proj)|ffn\.layers\.(?:0\.0|1))\.",
        _block,
    ),
    (
        r"^backbone\.stages\.(\d)\.blocks\.(\d+)\.attn\.w_msa\.relative_position_bias_table$",
        lambda m: (
            f"backbone.stages.{m[1]}.body.{2 if m[1] == '0' else 1}.{m[2]}.attn.relative_position_bias_table"
        ),
    ),
    (
        r"^backbone\.stages\.(\d)\.downsample\.(norm|reduction)\.",
        lambda m: f"backbone.stages.{int(m[1]) + 1}.body.0.{m[2]}.",
    ),
    (r"^backbone\.norm([0-3])\.", r"backbone.stages.\1.norm.0."),
]


def _reordered(name: str, value: Tensor) -> Tensor:
    """Patch merging: mmdet's inputs are ordered [channel, y, x], torchvision's [x, y, channel]."""
    if ".downsample." not in name or not name.startswith("backbone.stages."):
        return value
    lead = value.shape[:-1]
    return value.reshape(*lead, -1, 2, 2).movedim(-3, -1).transpose(-3, -2).reshape(*lead, -1)


def _some(items: Sequence[str], count: int = 5) -> str:
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")
