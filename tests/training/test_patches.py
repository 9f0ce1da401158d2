"""Training on patches: it is also known how good the detections are on the images that were cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dbf_ray.config import Config
from dbf_ray.data.patches.cutting import SplitSettings, run_task
from dbf_ray.data.patches.split import prepare_out, split_work
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.evaluate import config_of, metrics_of
from dbf_ray.run import run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.tracking.metrics import epoch_metrics


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Patches of 64 px of six black images of 100 px, each with one white ship in their middle, which all
    four patches of an image show.
    """
    for split, count in (("train", 4), ("val", 2)):
        for name in ("images", "labelTxt"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (100, 100))
            ImageDraw.Draw(image).rectangle((38, 44, 62, 56), fill="white")
            image.save(tmp_path / "data" / split / "images" / f"{number}.png")
            (tmp_path / "data" / split / "labelTxt" / f"{number}.txt").write_text(
                "38 44 62 44 62 56 38 56 ship 0\n"
            )
    settings = SplitSettings(64, 28)
    spec = split_work(DotaReader(), tmp_path / "data", tmp_path / "patches", settings)
    prepare_out(spec, tmp_path / "data", tmp_path / "patches", settings)
    for task in spec.tasks:
        run_task(task)
    return tmp_path / "patches"


def test_merged_metrics_are_in_the_record_and_those_of_the_checkpoint(
    tiny: Callable[..., Config], patches: Path
) -> None:
    config = tiny(data__name="dota", data__root=str(patches), data__image_size=64, training__epochs=2)
    summary = run(config, quiet=True)
    epochs = read_epochs(run_directory(config))
    assert "merged/map50" not in epochs[0]
    assert summary["merged/map50"] == epochs[1]["merged/map50"]
    assert {"merged/map50_voc07", "merged/map75", "merged/map50_95", "merged/ap50/ship"} <= epochs[1].keys()
    assert epoch_metrics(epochs)[1][2]["merged/map50"] == summary["merged/map50"]
    written = json.loads((run_directory(config) / "summary.json").read_text())
    checkpoint = Path(written["checkpoint"])
    metrics = metrics_of(checkpoint, config_of(checkpoint))
    assert metrics["merged/map50_95"] == pytest.approx(summary["merged/map50_95"], abs=1e-6)


def test_held_out_scenes_are_judged_on_their_own_images(tiny: Callable[..., Config], patches: Path) -> None:
    config = tiny(
        data__name="dota",
        data__root=str(patches),
        data__image_size=64,
        training__epochs=1,
        data__selection_fraction=0.25,
    )
    assert 0 <= run(config, quiet=True)["merged/map50"] <= 1


def test_images_that_are_no_patches_have_no_merged_metrics(tiny: Callable[..., Config]) -> None:
    assert not any(key.startswith("merged/") for key in run(tiny(training__epochs=1), quiet=True))
