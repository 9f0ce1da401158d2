"""Changed data on two ranks: rank 0 compares, and all ranks stop alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from dbf_ray.config import Config
from dbf_ray.errors import DataError
from dbf_ray.run import find_resume, run, run_directory
from tests.tiny import add_narrow, on_ranks, tiny_config, write_image


def config_of(folder: Path, root: Path, **changes: Any) -> Config:
    return tiny_config(
        data__name="dota",
        data__root=str(root),
        runs_dir=str(folder / "runs"),
        name="pair",
        training__epochs=2,
        cluster__workers=2,
        **changes,
    )


def write_data(root: Path, ship: int = 8) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            write_image(root / split, f"{number}", Image.new("RGB", (64, 64)), (ship, ship, 40, 24))
    return root


def tried(config: Config, resume: Path | None, **more: Any) -> str:
    try:
        run(config, resume=resume, quiet=True, **more)
    except DataError as error:
        return str(error)
    return "trained"


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    add_narrow()
    place = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    config = config_of(place, place / "data")
    said = {"split": tried(config_of(place, place / ("data", "other")[rank]), None)}
    run(config, quiet=True, on_epoch=lambda *_: False)
    resume = find_resume(config, run_directory(config))
    dist.barrier()
    if rank == 0:
        write_data(place / "data", 10)
    dist.barrier()
    said["refused"] = tried(config, resume)
    said["accepted"] = tried(config_of(place, place / "data", data__changed="accept"), resume)
    (place / f"said-{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


def test_all_ranks_stop_alike(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_data(tmp_path / "other", 12)
    on_ranks(worker, str(tmp_path))
    one, two = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(2))
    assert one == two
    assert "all workers must see the same data" in one["split"]
    assert "train: labels changed of 4 images (the first is 0)" in one["refused"]
    assert one["accepted"] == "trained"
    summary = json.loads((tmp_path / "runs" / "pair" / "summary.json").read_text())
    assert [change["after"] for change in summary["data_changes"]] == ["epoch 1"]
