"""A real detector as an ONNX file: what it finds on images is what the detector finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dbf_ray.data import EvalView, make_dataset
from dbf_ray.detectors import Detector, make_detector
from dbf_ray.errors import ConfigError, DataError, ResourceError, TrainingError
from dbf_ray.evaluate import config_of, load_detector
from dbf_ray.export import Exported
from dbf_ray.export import onnx_file as under_test
from dbf_ray.export.onnx_file import Candidates, compare, write_onnx
from dbf_ray.run import run
from tests.tiny import tiny_config

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module", params=["rotated_retinanet", "rotated_fcos"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, narrow: None
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny_config(detector__name=request.param, training__epochs=1, runs_dir=str(folder))
    return Path(run(config, quiet=True, coverage=False)["checkpoint"])


def pictures(count: int = 10) -> list[NDArray[np.uint8]]:
    """Scenes of which some are wide or tall."""
    dataset = make_dataset("synthetic", "val", images=count, image_size=96)
    images = [dataset.load(index)[0].permute(1, 2, 0).numpy() for index in range(count)]
    return [
        np.ascontiguousarray(image[: 96 - 8 * (i % 3), : 96 - 16 * (i % 2)]) for i, image in enumerate(images)
    ]


def torch_finds(detector: Detector, model: Exported, image: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """What the detector finds in an image as it is prepared for the file."""
    prepared = model.prepare(image)
    height, width = prepared.size
    batch = detector.prepare([torch.zeros(3, height, width)], pad_to=(model.side, model.side))
    batch.images.copy_(torch.from_numpy(prepared.pixels))
    with torch.no_grad():
        (found,) = detector.detect(batch)
    return found | {"boxes": found["boxes"] / torch.tensor([*[prepared.scale] * 4, 1.0])}


def test_it_finds_on_ten_images_what_the_detector_finds(checkpoint: Path, tmp_path: Path) -> None:
    file, config = tmp_path / "model.onnx", config_of(checkpoint)
    result = write_onnx(checkpoint, config, file)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert result["difference_of_scores"] < 1e-5
    session = onnxruntime.InferenceSession(str(file))
    model = Exported(session.get_modelmeta().custom_metadata_map)
    detector, classes = load_detector(checkpoint, config)
    assert (model.classes, model.image_size, model.side) == (classes, 64, 64)
    count = 0
    for image in pictures():
        prepared = model.prepare(image)
        outputs = session.run(
            None, {"images": np.concatenate([np.zeros_like(prepared.pixels), prepared.pixels])}
        )
        detector.score_threshold = 0.0  # an untrained one is sure of nothing
        found = model.detections(outputs, prepared, score=0.0, index=1)
        wanted = torch_finds(detector, model, image)
        assert found.scores == pytest.approx(wanted["scores"].numpy(), abs=1e-5)
        # of nearly equal scores either may be first
        assert sorted(found.labels) == sorted(wanted["labels"].tolist())
        places = [
            sorted(np.round(np.asarray(boxes)[:, :2].sum(1), 1)) for boxes in (found.boxes, wanted["boxes"])
        ]
        assert places[0] == pytest.approx(places[1], abs=0.2)
        count += len(found.scores)
    assert count > 100
    assert len(model.detections(outputs, prepared, score=0.99).scores) == 0


def test_an_image_is_prepared_as_an_evaluation_does_it() -> None:
    about = {"classes": ["a"], "image_size": 60, "side": 64, "mean": [0.485, 0.456, 0.406]}
    about |= {"std": [0.229, 0.224, 0.225], "candidates_per_level": [3], "topk_candidates": 2}
    about |= {
        "score_threshold": 0.05,
        "nms_threshold": 0.1,
        "detections_per_image": 5,
        "keep_centers_inside": 1,
    }
    import json

    model = Exported({"dbf_ray": json.dumps(about)})
    dataset = make_dataset("synthetic", "val", images=1, image_size=96)
    image, _ = dataset.load(0)
    detector = make_detector(backbone="narrow", num_classes=1, fpn_channels=8, head_convs=0)
    wanted = detector.prepare([EvalView(dataset, 60)[0][0]], pad_to=(64, 64)).images
    prepared = model.prepare(image.permute(1, 2, 0).numpy())
    assert (prepared.size, prepared.scale) == ((60, 60), 60 / 96)
    assert prepared.pixels == pytest.approx(wanted.numpy(), abs=2.01 / 255 / 0.22)
    for wrong in (image.numpy(), image.permute(1, 2, 0).float().numpy(), np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(DataError, match=r"an image must be uint8 \[H, W, 3\]"):
            model.prepare(wrong)
    with pytest.raises(DataError, match="must have 'dbf_ray', JSON that dbf export wrote, got"):
        Exported({"producer": "another"})


def test_a_file_that_differs_is_not_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "fcos" in str(checkpoint):
        pytest.skip("one detector is enough")

    def spoiled(candidates: Candidates, side: int, batch: int | None, outputs: list[str], file: Path) -> None:
        export(candidates, side, batch, outputs, file)
        with torch.no_grad():
            next(candidates.parameters()).add_(0.5)

    export = under_test._export
    monkeypatch.setattr(under_test, "_export", spoiled)
    (tmp_path / "model.onnx").write_text("the one before")
    with pytest.raises(
        TrainingError, match=r"must give what the detector gives, on 10 images it differs: scores"
    ):
        write_onnx(checkpoint, config_of(checkpoint), tmp_path / "model.onnx", batch=4)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("model.onnx", "the one before")
    ]


def test_corners_are_compared_whatever_a_box_is_called() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, boxes: torch.Tensor) -> None:
            super().__init__()
            self.boxes = boxes

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.boxes[None], torch.zeros(1, len(self.boxes), 1)

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, *_: Any) -> list[NDArray[Any]]:
            return [got[None].numpy(), np.zeros((1, len(got), 1), np.float32)]

    boxes = torch.tensor([[50.0, 50, 20, 10, 30], [50, 50, 10, 10, -45], [50, 50, 20, 10, -90]])
    got = torch.tensor([[50.0, 50, 10, 20, -60], [50, 50, 10, 10, 45], [50, 50, 20, 10, 89.9999]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", Session)
        assert compare(Fixed(boxes), Path("x"), torch.zeros(1, 3, 32, 32)).box < 1e-5
        got[0, 0] += 2
        assert compare(Fixed(boxes), Path("x"), torch.zeros(1, 3, 32, 32)).box == pytest.approx(0.1)
        got[0, 0] = torch.nan
        assert compare(Fixed(boxes), Path("x"), torch.zeros(1, 3, 32, 32)).box == np.inf


def test_what_cannot_be_exported_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = config_of(checkpoint), tmp_path / "out" / "model.onnx"
    for changes, words in (
        ({"image_size": 16}, r"--image-size must be in 32\.\.8192 pixels, got 16"),
        ({"batch": 0}, "--batch must be >= 1 or dynamic, got 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_onnx(checkpoint, config, file, **changes)
    with pytest.raises(ConfigError, match=r"--out must be a file, .* is a folder; give"):
        write_onnx(checkpoint, config, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ResourceError, match=r"an export needs onnxscript.*pip install 'dbf-ray\[export\]'"):
        write_onnx(checkpoint, config, file)
    assert list(tmp_path.iterdir()) == []
