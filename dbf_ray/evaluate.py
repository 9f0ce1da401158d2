"""Evaluation of a checkpoint on a data set, without training."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.build import build_detector, build_eval_loader, choose_device, make_split
from dbf_ray.config import Config, with_overrides
from dbf_ray.detectors import Detector
from dbf_ray.training.checkpoint import load_checkpoint
from dbf_ray.training.loop import evaluate


def load_detector(checkpoint: Path, config: Config) -> tuple[Detector, list[str]]:
    """The trained detector of a checkpoint folder, on its device and in eval mode, and its classes.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """
    device = choose_device(config)
    state, record = load_checkpoint(checkpoint, device)
    detector = build_detector(with_overrides(config, {"detector.weights_backbone": None}), record["classes"]).to(device)
    detector.load_state_dict(state["model"])
    return detector.eval(), record["classes"]


def evaluate_checkpoint(checkpoint: Path, config: Config, split: str = "val") -> dict[str, float]:
    """Metrics of a checkpoint folder on ``split`` of ``config``'s data set, as :func:`dbf_ray.training.loop.evaluate` gives them."""
    detector, classes = load_detector(checkpoint, config)
    loader = build_eval_loader(config, make_split(config, split, classes))
    return evaluate(detector, loader, classes, config.training.precision)
