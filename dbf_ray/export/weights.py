"""A checkpoint cut down to what predicts: the weights that were evaluated, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dbf_ray.training.checkpoint import load_checkpoint
from dbf_ray.training.manifest import seal
from dbf_ray.values import finite

KEPT = ("config", "window", "classes", "facts", "epochs")


def write_weights(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Write ``folder`` as a whole checkpoint that can be evaluated and predict, and not be trained on.

    Its ``checkpoint.pt`` is a state dict that ``weights_only=True`` reads, of the average where one was kept.
    Where its runs were tracked (which may name a password) is left out of its configuration.

    Returns:
        Its record.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """
    state, record = load_checkpoint(checkpoint)
    record = {name: record[name] for name in KEPT if name in record}
    record["config"] = {**record["config"], "tracking": {**record["config"]["tracking"], "uri": None}}
    folder.mkdir(parents=True)
    torch.save({"model": state.get("ema", state)["model"], "epoch": state["epoch"]}, folder / "checkpoint.pt")
    (folder / "record.json").write_text(json.dumps(finite(record)), encoding="utf-8")
    seal(folder)
    return record
