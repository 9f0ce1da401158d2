from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.cluster.ray_runtime import connected_ray
from dbf_ray.cluster.split import split_on_ray
from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, run_task
from dbf_ray.data.patches.split import prepare_out, split_work
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.errors import DataError


@pytest.mark.ray
@pytest.mark.usefixtures("two_cpus")
def test_ray_data_cuts_what_one_process_cuts(tmp_path: Path) -> None:
    for name in ("images", "labelTxt"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{number}.png")
        (tmp_path / "data" / "labelTxt" / f"{number}.txt").write_text("10 10 30 10 30 20 10 20 ship 0\n")
    settings = SplitSettings(size=32, overlap=8)
    works = {}
    for name in ("here", "there"):
        works[name] = split_work(DotaReader(), tmp_path / "data", tmp_path / name, settings)
        prepare_out(works[name], tmp_path / "data", tmp_path / name, settings)
    here = sum((run_task(task) for task in works["here"].tasks), SplitCounts())
    tasks = works["there"].tasks
    broken = tmp_path / "data" / "images" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    with connected_ray():
        done = list(split_on_ray(tasks))
        [error] = [one for one in done if isinstance(one, DataError)]
        assert "3.png: images must be decodable" in str(error)
        broken.write_bytes(whole)
        counts = sum((one for one in split_on_ray(tasks) if isinstance(one, SplitCounts)), SplitCounts())
    assert counts.written == here.written // 5
    assert counts.written + counts.kept == here.written
    for file in (tmp_path / "here" / "images").iterdir():
        assert (tmp_path / "there" / "images" / file.name).read_bytes() == file.read_bytes()
