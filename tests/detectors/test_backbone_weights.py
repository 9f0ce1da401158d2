"""Pretrained weights of backbones: torchvision's by name, state_dict files by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision import models
from torchvision.models import get_model_weights

from dbf_ray.detectors.backbones import BACKBONES, is_weights_name, make_backbone
from dbf_ray.detectors.backbones.weights import find_weights
from dbf_ray.errors import WeightsError

NAMED = {
    "DEFAULT": True,
    "IMAGENET1K_V1": True,
    "ResNet18_Weights.IMAGENET1K_V1": True,
    "ResNet18_Weights.V9": True,
    "V2": True,
}
FILES = {
    "weights/r18.pth": False,
    "r18.pth": False,
    "/DEFAULT": False,
    "weights": False,
    "my_Weights.pth": False,
    "default": False,
    "A.pth": False,
    "resnet18": False,
}


@pytest.mark.parametrize(("weights", "named"), (NAMED | FILES).items())
def test_what_is_a_name_and_what_a_file(weights: str, named: bool) -> None:
    assert is_weights_name(weights) is is_weights_name(Path(weights)) is named


@pytest.mark.parametrize("name", BACKBONES)
def test_torchvisions_weights_are_found_by_name_and_others_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads")
    )
    build = BACKBONES[name][0]
    known = get_model_weights(build)
    for member in ("DEFAULT", "IMAGENET1K_V1"):
        assert (
            find_weights(build, member, name)
            is find_weights(build, f"{known.__name__}.{member}", name)
            is known[member]
        )
    for wrong in ("IMAGENET1K_V9", f"{known.__name__}.V9", "VGG11_Weights.IMAGENET1K_V1"):
        with pytest.raises(
            WeightsError,
            match=f"unknown weights '{wrong}' of {name}; known: IMAGENET1K_V1, .*DEFAULT .of "
            f"{known.__name__}.*file",
        ):
            make_backbone(name, wrong)


def test_named_weights_are_downloaded_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    state, asked = models.resnet18(weights=None).state_dict(), []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append((url, options["check_hash"]))
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for weights in ("DEFAULT", "ResNet18_Weights.IMAGENET1K_V1", Path("IMAGENET1K_V1")):
        assert torch.equal(make_backbone("resnet18", weights).stages[0][0].weight, state["conv1.weight"])
    assert asked == [(models.ResNet18_Weights.IMAGENET1K_V1.url, True)] * 3
    state = {"conv1.weight": state["conv1.weight"]}
    with pytest.raises(
        WeightsError,
        match=r"torchvision's ResNet18_Weights.IMAGENET1K_V1 does not fit resnet18: \d+ tensors missing, "
        r"first bn1",
    ):
        make_backbone("resnet18", "DEFAULT")


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError('invalid hash value (expected "a", got "b")')]
)
def test_a_failed_download_is_said_clearly(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    message = (
        "cannot download torchvision's weights ResNet18_Weights.IMAGENET1K_V1 of resnet18: .*(no "
        "route|invalid hash).*; give a state_dict file"
    )
    with pytest.raises(WeightsError, match=message):
        make_backbone("resnet18", "DEFAULT")


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(
        WeightsError,
        match="does not exist; give the path of a state_dict for torchvision's resnet18, or the name",
    ):
        make_backbone("resnet18", file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="cannot read weights file"):
        make_backbone("resnet18", file)
    torch.save([1, 2], file)
    with pytest.raises(WeightsError, match=r"must hold a state_dict \(names to tensors\), found list"):
        make_backbone("resnet18", file)
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match=r"conv1.weight \(1,\), expected \(64, 3, 7, 7\)"):
        make_backbone("resnet18", file)
    torch.save(make_backbone("resnet18").state_dict(), file)
    with pytest.raises(WeightsError, match="that the model lacks"):
        make_backbone("resnet18", file)


def test_a_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    state = models.mobilenet_v3_small(weights=None, num_classes=3).state_dict()  # another classifier
    torch.save(state, tmp_path / "small.pth")
    backbone = make_backbone("mobilenet_v3_small", "~/small.pth")
    assert torch.equal(backbone.stages[0][0][0].weight, state["features.0.0.weight"])


def test_pretrained_weights_are_loaded(shared: Path) -> None:
    file = shared / "weights" / "mobilenet_v2_features_torchvision.pth"
    backbone = make_backbone("mobilenet_v2", str(file))
    expected = torch.load(file, weights_only=True)["features.0.0.weight"]
    torch.testing.assert_close(backbone.stages[0][0][0].weight, expected, rtol=0, atol=0)
