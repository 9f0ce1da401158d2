"""The section of a configuration that a search alone reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from dbf_ray.config.base import Section
from dbf_ray.config.roles import Place, Resource

ACCURACIES = ("map50", "map50_95", "map75", "merged/map50")
OF_FUNCTION = "accuracy"  # of one's own training function


class SearchConfig(Section):
    """A study: how many trials, how many at once, and what is kept of them."""

    trials: Resource[int | None] = Field(
        None,
        ge=1,
        description="complete trials that the study shall have, baselines included; null: 20, or with "
        "search.epochs or search.hours as many as they allow, and with the sampler grid all settings",
    )
    sampler: Resource[Literal["cost", "grid", "tpe", "random"] | None] = Field(
        None,
        description="what is tried next: cost: the largest expected gain for its epochs; grid: all settings; "
        "tpe: Optuna's, for policies that decide while they train; random; null: the space's own, else cost "
        "where costs are known before training, else tpe",
    )
    epochs: Resource[int | None] = Field(
        None, ge=1, description="epochs that the study may train, all calls together; null: no bound"
    )
    hours: Resource[float | None] = Field(
        None,
        gt=0,
        description="hours that the study may be searched, all calls together; null: no bound",
    )
    max_compute_ratio: Resource[float | None] = Field(
        None, gt=0, description="settings that cost more are not tried, baselines are; null: no bound"
    )
    known: Place[Path | None] = Field(
        None,
        description="folder of an earlier study of the same configuration and data, whose results and states "
        "are used; null: none",
    )
    concurrent: Resource[int | None] = Field(
        None, ge=1, description="trials at once; null: as many as the resources hold"
    )
    accuracy: Resource[str] = Field(
        "map50",
        description="what the front is most accurate in, after the last epoch: map50, map50_95, map75, "
        "merged/map50 (where images are patches), or ap50/CLASS",
    )
    cost: Resource[
        Literal["compute_ratio", "seconds_ratio", "device_seconds", "energy_joules", "peak_memory_bytes"]
    ] = Field(
        "compute_ratio",
        description="what the front is cheapest in; of the base configuration's full training, known before "
        "a trial trains: compute_ratio (FLOPs), seconds_ratio (steps timed once per study); measured, known "
        "only afterwards: device_seconds, energy_joules, peak_memory_bytes",
    )
    studies_dir: Place[Path] = Field(Path("studies"), description="folder of the studies")
    kept_states: Resource[int] = Field(
        16,
        ge=0,
        description="checkpoints kept at once for further trials that begin as a trained one did, those that "
        "save most epochs; 0: every trial is trained from its first epoch",
    )
    keep: Resource[Literal["states", "front", "all"]] = Field(
        "states",
        description="checkpoints that stay when a search ends: states: those kept for further trials, and "
        "each trial's last; front: the last of baselines and front alone, without optimizer state; all: of "
        "every epoch",
    )
    controls: Resource[list[float]] = Field(
        [0.75, 0.5],
        description="shares of training.epochs for which policy full is trained too, on top of the trials, "
        "its learning-rate schedule shortened in proportion: what a schedule has to beat; []: none",
    )
    seeds_on_front: Resource[int] = Field(
        1,
        ge=1,
        description="seeds with which the front, baselines and controls are trained in the end, the trials' "
        "own included",
    )
    tolerance: Resource[float] = Field(
        0.005,
        ge=0,
        description="a loss of accuracy that does not matter: the answer names the cheapest "
        "setting within it",
    )

    @field_validator("accuracy")
    @classmethod
    def _is_evaluated(cls, value: str) -> str:
        if value not in (*ACCURACIES, OF_FUNCTION) and not (value.startswith("ap50/") and value != "ap50/"):
            raise ValueError(f"should be {', '.join(ACCURACIES)} or ap50/CLASS")
        return value

    @field_validator("controls")
    @classmethod
    def _shares(cls, value: list[float]) -> list[float]:
        if not all(0 < share < 1 for share in value):
            raise ValueError(
                f"controls must be shares of training.epochs above 0 and below 1, as 0.5, got {value}"
            )
        return value
