"""The section of a configuration that a search alone reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dbf_ray.config.roles import Place, Resource
from dbf_ray.config.sections import Section


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
