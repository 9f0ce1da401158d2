"""The examples of docs/extending.md work as they stand there: one file, one row in a table, and everything
else finds them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torchvision import models

from dbf_ray.build.detector import build_detector, detector_options
from dbf_ray.config import load_config
from dbf_ray.cost import FlopTable
from dbf_ray.data import LabelledDataset
from dbf_ray.detectors import BACKBONES, DETECTORS, make_detector
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import POLICIES, Freezer, make_policy
from tests.cost.prefixes import per_prefix

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def example(section: str, name: str, number: int = 0) -> ModuleType:
    """A block of Python of a section, the first unless said otherwise, as a module that can be imported."""
    text = PAGE.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > number, f"no example {number} in {section}"
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(blocks[number], f"{PAGE.name}, {section}", "exec"), module.__dict__)
    return module


def test_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = example("A backbone", "shufflenet").cut_shufflenet_v2
    monkeypatch.setitem(BACKBONES, "shufflenet_v2_x1_0", (models.shufflenet_v2_x1_0, cut))
    detector = make_detector(
        "rotated_retinanet", backbone="shufflenet_v2_x1_0", num_classes=2, fpn_channels=16, head_convs=1
    )
    outputs = detector.backbone(torch.rand(1, 3, 64, 96))
    for output, channels, stride in zip(
        outputs, detector.backbone.out_channels, detector.backbone.strides, strict=True
    ):
        assert output.shape == (1, channels, 64 // stride, 96 // stride)
    freezer = Freezer(detector.backbone)
    freezer.apply(2)
    detector.train()
    target = {"boxes": torch.tensor([[30.0, 30, 40, 20, 20]]), "labels": torch.tensor([1])}
    torch.stack(list(detector([torch.rand(3, 64, 64)], [target]).values())).sum().backward()
    trained = {name for name, p in detector.backbone.named_parameters() if p.grad is not None}
    assert trained == {
        name
        for name, _ in detector.backbone.named_parameters()
        if name.startswith(("stages.2.", "stages.3."))
    }
    flops = per_prefix(FlopTable(detector), 64, 64)
    assert flops == sorted(flops, reverse=True)


def test_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "rotated_atss", example("A detector", "atss").RotatedATSS)
    options = {
        "detector.name": "rotated_atss",
        "detector.backbone": "resnet18",
        "detector.fpn_channels": 16,
        "detector.head_convs": 1,
    }
    config = load_config(None, {**options, "detector.candidates": "5"})
    own = detector_options(config.detector)
    assert own["candidates"] == 5
    detector = build_detector(config.detector, own, ["ship", "plane"], seed=0)
    slim = {"boxes": torch.tensor([[60.0, 64, 70, 9, 33]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0, dtype=torch.int64)}
    images = [torch.rand(3, 128, 128), torch.rand(3, 96, 128)]
    batch = detector.prepare(images, [slim, nothing])
    positives = batch.assignment.positive
    assert len(positives) > 0
    assert batch.normalizers.item() == len(positives) + 1
    losses = detector.train()(images, [slim, nothing])
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []
    assert len(detector.eval()(images)) == 2


def test_the_policy_from_outside() -> None:
    example("A policy", "policies_of_mine")
    assert make_policy("policies_of_mine:EveryOther").decisions(6, 3, seed=0) == [0, 3, 0, 3, 0, 3]


def test_the_policy_with_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "thaw", example("A policy", "thaw", 1).Thaw)
    assert make_policy("thaw", start=2).decisions(6, 3, seed=0) == [3, 3, 2, 1, 0, 0]
    with pytest.raises(ConfigError):
        make_policy("thaw", start=-1)


def test_the_labelling_format(tmp_path: Path) -> None:
    reader = example("A labelling format", "csv_reader").CsvReader()
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "train.csv").write_text("a,5,5,25,5,25,15,5,15,ship\na,1,1,4,1,4,3,1,3,boat\nb\n")
    dataset = LabelledDataset(reader, tmp_path)
    assert (dataset.image_ids, dataset.classes) == (["a", "b"], ["boat", "ship"])
    assert dataset.target(0)["boxes"].tolist() == [[15, 10, 20, 10, 0], [2.5, 2, 3, 2, 0]]
    assert len(dataset.target(1)["labels"]) == 0
    assert reader.recognises(tmp_path)
    with (tmp_path / "train.csv").open("a") as file:
        file.write("a,1,1,4,1,4,3,1,x,boat\nb,1,2\nc\n")
    listing = reader.listing(tmp_path, "train")
    assert [problem.line for problem in listing.problems] == [6]
    assert [problem.line for item in listing.items for problem in reader.read(item).problems] == [4, 5]
