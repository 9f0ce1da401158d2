"""Checkpoints of MMRotate 0.3 and 1.x: reading them safely, and placing every weight, or saying which not."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dbf_ray.detectors import make_detector
from dbf_ray.detectors.mmrotate import (
    load_mmrotate_checkpoint,
    load_mmrotate_state_dict,
    read_mmrotate_checkpoint,
)
from dbf_ray.errors import WeightsError
from tests.detectors.formula_weights import formula_state_dict

STATE = {"bbox_head.retina_cls.weight": torch.ones(2, 3)}


class CodeRunner:
    """Pickles as a call that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


def history_buffer() -> Any:
    """An object that pickles as mmengine's log of losses, without mmengine."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    kind = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = kind  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[module.__name__] = module
    buffer = kind()
    buffer._log_history, buffer._count_history, buffer.max_length = (
        np.array([0.5, 0.25]),
        np.array([1, 1]),
        1000000,
    )
    return buffer


def save(file: Path, content: dict[str, Any]) -> Path:
    torch.save(content, file)
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[name]
    return file


def test_metadata_of_version_0_3(tmp_path: Path) -> None:
    meta = {
        "CLASSES": ("plane", "ship"),
        "seed": np.int64(3),
        "lr": np.float64(0.1),
        "PALETTE": [(1, 2, 3)],
        "hook_msgs": {},
    }
    file = save(
        tmp_path / "epoch_12.pth",
        {"meta": meta, "state_dict": OrderedDict(STATE), "optimizer": {"state": {}, "param_groups": []}},
    )
    state, classes = read_mmrotate_checkpoint(file)
    assert classes == ["plane", "ship"]
    assert torch.equal(state["bbox_head.retina_cls.weight"], STATE["bbox_head.retina_cls.weight"])


def test_metadata_of_version_1(tmp_path: Path) -> None:
    hub = {
        "log_scalars": OrderedDict({"train/loss": history_buffer()}),
        "runtime_info": OrderedDict(epoch=12),
    }
    meta = {"dataset_meta": {"classes": ("plane", "ship"), "palette": [(1, 2, 3)]}, "cfg": "model = dict()"}
    file = save(
        tmp_path / "epoch_12.pth", {"meta": meta, "state_dict": OrderedDict(STATE), "message_hub": hub}
    )
    state, classes = read_mmrotate_checkpoint(file)
    assert classes == ["plane", "ship"]
    assert list(state) == list(STATE)


def test_a_plain_state_dict(tmp_path: Path) -> None:
    state, classes = read_mmrotate_checkpoint(save(tmp_path / "weights.pth", dict(STATE)))
    assert list(state) == list(STATE)
    assert classes is None


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    file = save(tmp_path / "evil.pth", {"meta": CodeRunner(made), "state_dict": STATE})
    with pytest.raises(
        WeightsError,
        match=r"must hold tensors and plain values.*found \w+\.mkdir, which could run code; save its state",
    ):
        read_mmrotate_checkpoint(file)
    assert not made.exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere.pth does not exist; give the path"):
        read_mmrotate_checkpoint(tmp_path / "nowhere.pth")
    torn = tmp_path / "torn.pth"
    torn.write_bytes(pickle.dumps([1, 2])[:-3])
    with pytest.raises(WeightsError, match="cannot read MMRotate checkpoint"):
        read_mmrotate_checkpoint(torn)
    with pytest.raises(WeightsError, match="must hold a MMRotate checkpoint with a state_dict"):
        read_mmrotate_checkpoint(save(tmp_path / "other.pth", {"meta": {}, "state_dict": {}}))


@pytest.fixture(scope="module")
def retinanet(shared: Path) -> dict[str, Tensor]:
    return formula_state_dict(shared, "rotated_retinanet__r50")


def test_a_file_by_the_reference_names_fills_the_whole_detector(
    retinanet: dict[str, Tensor], tmp_path: Path
) -> None:
    detector = make_detector("rotated_retinanet", backbone="resnet50", num_classes=15)
    noise = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}  # version 1.x keeps it
    file = save(tmp_path / "epoch_12.pth", {"meta": {}, "state_dict": {**retinanet, **noise}})
    placement = load_mmrotate_checkpoint(detector, file)
    assert (placement.unplaced, placement.missing) == ({}, [])
    assert len(placement.placed) == len(detector.state_dict())
    own = detector.state_dict()
    assert torch.equal(
        own["backbone.stages.0.4.2.bn3.running_var"], retinanet["backbone.layer1.2.bn3.running_var"]
    )
    assert torch.equal(own["neck.extra.0.weight"], retinanet["neck.fpn_convs.3.conv.weight"])
    assert torch.equal(own["head.classification.8.bias"], retinanet["bbox_head.retina_cls.bias"])


def test_other_classes_keep_their_own_logits(retinanet: dict[str, Tensor]) -> None:
    detector = make_detector("rotated_retinanet", backbone="resnet50", num_classes=3)
    before = detector.state_dict()["head.classification.8.weight"].clone()
    placement = load_mmrotate_state_dict(detector, retinanet)
    assert list(placement.unplaced) == ["bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"]
    assert placement.missing == ["head.classification.8.weight", "head.classification.8.bias"]
    assert (
        "could not place bbox_head.retina_cls.weight (shape (135, 256, 3, 3), the detector's is (27, 256, 3, "
        "3))" in str(placement)
    )
    assert torch.equal(detector.state_dict()["head.classification.8.weight"], before)
    assert torch.equal(
        detector.state_dict()["head.classification.0.bias"], retinanet["bbox_head.cls_convs.0.conv.bias"]
    )


def test_unknown_names_are_told(retinanet: dict[str, Tensor]) -> None:
    detector = make_detector("rotated_retinanet", backbone="resnet50", num_classes=15)
    placement = load_mmrotate_state_dict(detector, {**retinanet, "mask_head.conv.weight": torch.zeros(1)})
    assert placement.unplaced == {"mask_head.conv.weight": "no place in the detector"}


@pytest.mark.parametrize(
    ("name", "options"), [("rotated_fcos", {}), ("rotated_retinanet", {"fpn_channels": 64})]
)
def test_another_detector_is_refused(
    name: str, options: dict[str, Any], retinanet: dict[str, Tensor]
) -> None:
    detector = make_detector(name, backbone="resnet50", num_classes=15, **options)
    with pytest.raises(
        WeightsError, match=r"do not fit Rotated.*choose the detector, backbone and widths of the checkpoint"
    ):
        load_mmrotate_state_dict(detector, retinanet)


def test_another_backbone_is_refused(retinanet: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="do not fit RotatedRetinaNet"):
        load_mmrotate_state_dict(
            make_detector("rotated_retinanet", backbone="resnet18", num_classes=15), retinanet
        )


def test_patch_merging_takes_its_neighbours_in_torchvision_order(shared: Path) -> None:
    """mmdet unfolds [channel, y, x]; torchvision stacks the pixels (0, 0), (1, 0), (0, 1), (1, 1) as (y, x),
    each with all channels.
    """
    detector = make_detector("rotated_retinanet", backbone="swin_t", num_classes=15)
    state = formula_state_dict(shared, "rotated_retinanet__swin_t")
    placement = load_mmrotate_state_dict(detector, state)
    assert (placement.unplaced, placement.missing) == ({}, [])
    theirs = state["backbone.stages.0.downsample.reduction.weight"]
    ours = detector.state_dict()["backbone.stages.1.body.0.reduction.weight"]
    image = torch.randn(1, 96, 4, 6)
    unfolded = torch.nn.functional.unfold(image, 2, stride=2).transpose(1, 2) @ theirs.T
    rows = image.permute(0, 2, 3, 1)
    stacked = (
        torch.cat([rows[:, 0::2, 0::2], rows[:, 1::2, 0::2], rows[:, 0::2, 1::2], rows[:, 1::2, 1::2]], -1)
        @ ours.T
    )
    torch.testing.assert_close(stacked.flatten(1, 2), unfolded, atol=1e-4, rtol=1e-4)
