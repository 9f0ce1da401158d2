"""A process that is killed, and whose newest checkpoint is spoilt before the same command is given again."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from dbf_ray.training.manifest import fault_of, seal
from tests.faults.place import Place, epochs_of, trained
from tests.faults.processes import finished
from tests.faults.proofs import every_epoch_once
from tests.faults.rows import Cost, fault
from tests.training.damage import cut


def killed_after_three(place: Place, name: str) -> tuple[dict[str, Any], Path]:
    """A run whose process was killed; its keys, and its newest checkpoint that is whole."""
    keys = place.training(name)
    started = place.train(keys)
    trained(place.run_folder(name), 3, started)
    started.killed()
    started.leaves_nothing()
    found = sorted((place.run_folder(name) / "checkpoints").glob("epoch-*"))
    return keys, next(path for path in reversed(found) if fault_of(path) is None)


@fault("torn", "the newest checkpoint cut in half (process killed before)", "after 3 of 8 epochs")
def tear_the_newest(place: Place) -> Cost:
    keys, newest = killed_after_three(place, "torn")
    known = epochs_of(place.run_folder("torn"))
    cut("checkpoint.pt")(newest)
    cost = finished(place, keys, known)
    assert f"{newest.name} (checkpoint.pt has" in place.begun[-1].said()
    assert cost.lost.startswith("nothing ("), cost.lost
    return cost


class Hostile:
    """Unpickled without care it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


@fault(
    "hostile",
    "the newest checkpoint is one that runs code when unpickled, sealed anew",
    "after 3 of 8 epochs",
)
def plant_a_hostile_one(place: Place) -> Cost:
    keys, newest = killed_after_three(place, "hostile")
    folder, ran = place.run_folder("hostile"), place.folder / "it-ran"
    known = epochs_of(folder)
    stream = io.BytesIO()
    torch.save({"model": Hostile(ran)}, stream)
    (newest / "checkpoint.pt").write_bytes(stream.getvalue())
    seal(newest)
    refused = place.train(keys)
    refused.ends(2)
    line = refused.said().strip().splitlines()[-1]
    assert line.startswith("error: "), line
    assert str(newest) in line
    assert not ran.exists()
    assert "remove it to go on from one before it" in line
    shutil.rmtree(newest)
    cost = finished(place, keys, known)
    assert not ran.exists()
    every_epoch_once(folder, keys["training.epochs"])
    return cost
