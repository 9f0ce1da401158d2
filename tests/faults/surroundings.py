"""What a training needs and loses: its MLflow server, an image, room on its disk, a loss that is a number."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from dbf_ray.training.checkpoint import list_checkpoints
from dbf_ray.training.manifest import fault_of
from tests.faults.place import Place, Started, epochs_of, trained
from tests.faults.processes import finished
from tests.faults.proofs import every_epoch_once, in_mlflow, same_weights, undisturbed
from tests.faults.rows import Cost, NotHereError, fault
from tests.tiny import write_image
from tests.tracking.servers import mlflow_server


def told(place: Place, name: str, started: Started, *words: str) -> str:
    """A run that stopped with a reason says it in its last line, in failure.json and in MLflow."""
    started.ends(2)
    line = started.said().strip().splitlines()[-1]
    assert line.startswith("error: "), line
    assert [word for word in words if word not in line] == [], line
    reason = json.loads((place.run_folder(name) / "failure.json").read_text())["reason"]
    assert [word for word in words if word not in reason] == [], reason
    run = in_mlflow(place, place.run_folder(name), "FAILED")
    assert words[0] in run.data.tags["failure"]
    return line


@fault(
    "nan", "a learning rate at which the loss is no longer finite", "in epoch 0", "--resume-from, lower rate"
)
def lose_the_loss(place: Place) -> Cost:
    keys = place.training("nan")
    started = place.train(keys | {"training.lr": 1e-3, "training.epochs": 2})
    started.ends()
    begin = str(list_checkpoints(place.run_folder("nan") / "checkpoints")[-1])
    wild = {"name": "wild", "training.optimizer": "sgd", "training.lr": 1e9, "training.clip_norm": 1e9}
    told(
        place,
        "wild",
        place.train(keys | wild, "--resume-from", begin),
        "finite",
        "detector.weights_checkpoint",
    )
    since = time.monotonic()
    lower = place.train(keys | {"name": "lower", "training.lr": 1e-4}, "--resume-from", begin)
    trained(place.run_folder("lower"), 1, lower)
    seconds = time.monotonic() - since
    lower.ends()
    every_epoch_once(place.run_folder("lower"), keys["training.epochs"])
    in_mlflow(place, place.run_folder("lower"))
    return Cost(seconds, "nothing")


@fault(
    "tracking",
    "the MLflow server: ended, started again after the run",
    "after 2 of 8 epochs",
    "dbf compare --sync",
)
def end_the_server(place: Place) -> Cost:
    store, files = place.uri, str(place.folder / "artifacts")
    with mlflow_server(place.folder, store, files) as (address, _):
        keys = place.training("tracking", tracking__uri=address)
        started = place.train(keys)
        trained(place.run_folder("tracking"), 2, started)
    started.ends()
    folder = place.run_folder("tracking")
    every_epoch_once(folder, keys["training.epochs"])
    same_weights(folder, undisturbed(place, keys))
    assert "wait in" in started.said()
    with mlflow_server(place.folder, store, files) as (address, _):
        begin = time.monotonic()
        place.start(
            "jobs.compare", "--sync", "--runs_dir", str(folder.parent), "--tracking.uri", address
        ).ends()
        seconds = time.monotonic() - begin
        in_mlflow(replace(place, uri=address), folder)
    return Cost(seconds, "nothing")


def drawn(root: Path) -> None:
    """A data root of 16 training and 2 validation images."""
    for split, count in (("train", 16), ("val", 2)):
        for number in range(count):
            left, top = 4 + number, 8 + 2 * (number % 5)
            image = Image.new("RGB", (64, 64))
            ImageDraw.Draw(image).rectangle((left, top, left + 32, top + 16), fill=(240, 240, 240))
            write_image(root / split, f"{number:03d}", image, (left, top, left + 32, top + 16))


@fault("data", "an image: removed, and put back for the same command", "after 2 of 8 epochs")
def remove_an_image(place: Place) -> Cost:
    root = place.folder / "data"
    drawn(root)
    keys = place.training("data", data__name="dota", data__root=str(root), data__decoded_gb=0)
    folder, image = place.run_folder("data"), root / "train" / "images" / "007.png"
    started = place.train(keys)
    trained(folder, 2, started)
    kept = image.read_bytes()
    image.unlink()
    told(place, "data", started, str(image))
    known = epochs_of(folder)
    image.write_bytes(kept)
    return finished(place, keys, known)


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory."""
    place.mkdir(parents=True)
    size = f"size={megabytes}m"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "none", str(place)], capture_output=True
    ).returncode:
        raise NotHereError("no tmpfs can be mounted here: it takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@fault("disk", "the disk of the run: full, and room made for the same command", "after 2 of 8 epochs")
def fill_the_disk(place: Place) -> Cost:
    with small_disk(place.folder / "runs", 200) as disk:
        keys = place.training("disk")
        folder, ballast = place.run_folder("disk"), disk / "ballast"
        started = place.train(keys)
        trained(folder, 2, started)
        with ballast.open("wb") as stream:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            os.posix_fallocate(stream.fileno(), 0, max(1, free - 300_000))
        told(place, "disk", started, "the disk of", "is full")
        checkpoints = folder / "checkpoints"
        assert {path.name for path in checkpoints.iterdir()} == {
            p.name for p in list_checkpoints(checkpoints)
        }
        assert [path for path in checkpoints.iterdir() if fault_of(path) is not None] == []
        known = epochs_of(folder)
        ballast.unlink()
        return finished(place, keys, known)
