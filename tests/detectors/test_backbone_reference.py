"""ResNet-50 and Swin against the reference: parameters, and whole forward passes with weights by formula from
its names.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dbf_ray.detectors.backbones import StagedBackbone, make_backbone
from dbf_ray.freezing import Freezer


def formula_tensor(name: str, shape: torch.Size) -> Tensor:
    """A tensor of the reference, for names of backbones alone; the rule is in the README beside the
    figures.
    """
    count = math.prod(shape)
    phase = (zlib.crc32(name.encode()) % 100003) / 100003 * 2 * math.pi
    s = np.sin(12.9898 * np.arange(count) + phase) * 43758.5453
    u = 2 * (s - np.floor(s)) - 1
    if name.endswith("running_mean"):
        u = 0.05 * u
    elif name.endswith("running_var"):
        u = 1 + 0.1 * u
    elif name.endswith("weight"):
        u = u * math.sqrt(3 * shape[0] / count) if len(shape) > 1 else ("bn3" not in name) / 2 + 0.5 + 0.1 * u
    else:
        u = 0.02 * u
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def formula_image() -> Tensor:
    """[1, 3, 256, 256]."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(256), np.arange(256), indexing="ij")
    return torch.from_numpy(
        np.sin(0.07 * x + c) * np.cos(0.05 * y - c) + 0.3 * np.sin(0.31 * (c + 1) * (x + y))
    ).float()[None]


def test_parameters_equal_the_references(shared: Path) -> None:
    facts = json.loads((shared / "reference" / "model_facts.json").read_text())
    for name, model, frozen in (("resnet50", "r50", 1), ("swin_t", "swin_t", 0), ("swin_s", "swin_s", 0)):
        with torch.device("meta"):
            backbone = make_backbone(name, always_frozen=frozen)
        Freezer(backbone).apply(0)
        wanted = facts[f"rotated_retinanet__{model}"]["parts"]["backbone"]
        assert sum(p.numel() for p in backbone.parameters()) == wanted["params"]
        assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == wanted["trainable"]


@pytest.mark.parametrize(
    ("name", "model"), [("resnet50", "rotated_retinanet__r50"), ("swin_t", "rotated_retinanet__swin_t")]
)
def test_maps_equal_the_references(shared: Path, name: str, model: str) -> None:
    """The reference's own forward pass, with its weights by formula from its names."""
    backbone = make_backbone(name).eval()
    with torch.no_grad():
        for tensor, key in (resnet_names if name == "resnet50" else swin_names)(backbone):
            values = formula_tensor(key, tensor.shape)
            tensor.copy_(
                merged_as_torchvision(values) if ".downsample." in key and name == "swin_t" else values
            )
        outputs = backbone(formula_image())
    for out, wanted in zip(
        outputs,
        json.loads((shared / "reference" / "forward_formula_weights.json").read_text())[model]["backbone"],
        strict=True,
    ):
        assert list(out.shape) == wanted["shape"]
        torch.testing.assert_close(
            out.flatten()[wanted["sample_idx"]], torch.tensor(wanted["sample"]), rtol=1e-5, atol=1e-5
        )
        assert out.double().abs().sum().item() == pytest.approx(wanted["abs_sum"], rel=1e-6)
        assert (out.min().item(), out.max().item()) == pytest.approx(
            (wanted["min"], wanted["max"]), rel=1e-5, abs=1e-5
        )


def resnet_names(backbone: StagedBackbone) -> Iterator[tuple[Tensor, str]]:
    """Each tensor with its name in the reference, which has them in the same order."""
    layers = [dict(zip(("conv1", "bn1", "", "", "layer1"), backbone.stages[0], strict=True))]
    layers += [{f"layer{k}": stage} for k, stage in enumerate(list(backbone.stages)[1:], start=2)]
    for layer in layers:
        for prefix, module in layer.items():
            for key, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    yield tensor, f"backbone.{prefix}.{key}"


def swin_names(backbone: StagedBackbone) -> Iterator[tuple[Tensor, str]]:
    for k, stage in enumerate(backbone.stages):
        *lead, blocks = stage.body
        if k == 0:
            parts = {"patch_embed.projection": lead[1][0], "patch_embed.norm": lead[1][2]}
        else:
            parts = {f"stages.{k - 1}.downsample": lead[0]}
        for b, block in enumerate(blocks):
            own = {"norm1": block.norm1, "norm2": block.norm2, "attn.w_msa": block.attn}
            own |= {"ffn.layers.0.0": block.mlp[0], "ffn.layers.1": block.mlp[3]}
            parts |= {f"stages.{k}.blocks.{b}.{key}": module for key, module in own.items()}
        parts[f"norm{k}"] = stage.norm[0]
        for prefix, module in parts.items():
            for key, parameter in module.named_parameters():
                yield parameter, f"backbone.{prefix}.{key}"


def merged_as_torchvision(values: Tensor) -> Tensor:
    """The reference joins four neighbours by channel, row, column; torchvision takes all channels of (0, 0),
    (1, 0), (0, 1), (1, 1).
    """
    channels = values.shape[-1] // 4
    order = [
        4 * c + 2 * row + column for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)) for c in range(channels)
    ]
    return values[..., order]
