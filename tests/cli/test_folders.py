"""Images of one name in different folders, from labels to merged detections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbf_ray.cli import prepare_data, train
from dbf_ray.cli.options import run_command
from dbf_ray.cli.predict import main as predict


@pytest.fixture
def sites(root: Path) -> Path:
    """The images of each split in two folders, counted from 000 in each."""
    for folder in [folder for folder in root.glob("*/*") if folder.is_dir()]:
        files = sorted(folder.iterdir())
        for site, part in (("siteA", files[::2]), ("siteB", files[1::2])):
            (folder / site).mkdir()
            for number, file in enumerate(part):
                file.rename(folder / site / f"{number:03d}{file.suffix}")
    return root


def result_of(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_training_on_images_and_patches_in_folders(
    sites: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_data.main(["check", str(sites), "--workers", "0"])
    printed = capsys.readouterr().out
    assert "DOTA's server does not know" in printed
    assert printed.splitlines()[0].startswith("leak (error, 2)")  # the drawn ships of val are two of train's
    assert "a training refuses errors, but not leak" in printed
    assert printed.splitlines()[-1].startswith("2 errors, 0 warnings")
    patches = tmp_path / "patches"
    split = ["split", str(sites), str(patches), "--size", "48", "--overlap", "16", "--workers", "0"]
    assert prepare_data.main(split) == 0
    assert (patches / "val" / "labelTxt" / "siteB" / "000__48__16___16.txt").is_file()
    for root in (sites, patches):
        tiny[tiny.index("--data.root") + 1] = str(root)
        assert run_command(train.command, [*tiny, "--name", root.name, "--json"]) == 0
    assert "merged/map50" in result_of(capsys)


def test_detections_in_folders(
    sites: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = tmp_path / "out", sites / "val" / "images"
    assert predict(["--checkpoint", str(checkpoint), "--images", str(images), "--out", str(out)]) == 0
    assert "will have paths (siteA/000, siteB/000)" in capsys.readouterr().err
    for folder, suffix in (("labels", "txt"), ("geojson", "geojson"), ("overlays", "jpg")):
        assert len(list((out / folder).rglob(f"site?/000.{suffix}"))) == 2
    merge = ["merge", str(out), str(tmp_path / "merged"), "--labels", str(sites), "--json"]
    assert prepare_data.main(merge) == 0
    result = result_of(capsys)
    assert result["images"] == 2
    assert result["merged/map50"] > 0.3
    for file in (out / "Task1").glob("*.txt"):
        file.write_text(file.read_text().replace("siteA/", "").replace("siteB/", ""))
    merge[2] = str(tmp_path / "other")
    assert prepare_data.main(merge) == 2
    assert "000 may be of siteA/000 or siteB/000" in capsys.readouterr().err
