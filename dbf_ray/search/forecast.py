"""What a search would train and need, before it begins: ``dbf search --dry-run``. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.cluster.address import cluster_address
from dbf_ray.config import Config
from dbf_ray.errors import DbfRayError
from dbf_ray.plan.costs import gigabytes
from dbf_ray.progress import duration
from dbf_ray.run.summary import versions
from dbf_ray.search.ahead import Ahead
from dbf_ray.search.ceiling import ceiling
from dbf_ray.search.checked import CheckedBegin, check_name, check_trials_known, code_versions
from dbf_ray.search.compared import check_measured
from dbf_ray.search.controls import controls_of
from dbf_ray.search.cost import Costs
from dbf_ray.search.pool import Pool
from dbf_ray.search.same_study import draws_to_come
from dbf_ray.search.settings import Begin, Setting, Settings
from dbf_ray.search.sharing import Sharing
from dbf_ray.search.spaces import load_space
from dbf_ray.search.states import deepest
from dbf_ray.search.store import Store
from dbf_ray.search.timing import Timer, kinds, measured_briefly, needs_timing
from dbf_ray.search.wanted import trials_by_default


def forecast_search(
    config: Config,
    space_file: str | Path,
    *,
    study_name: str,
    trials: int | None = None,
    begin: Begin | None = None,
    timer: Timer | None = measured_briefly,
) -> dict[str, Any]:
    """What the trials that a study still lacks would train. Which settings a sampler will choose is not known
    before, so they are the baselines and random ones, the same each time.

    Args:
        config: what all trials share.
        space_file: the space, or the name of a shipped one.
        study_name: the study, which need not be there.
        trials: complete trials to have in the end; None: as ``config.search`` says.
        begin: replaces the check of the detector, for tests.
        timer: times real steps that the study has not timed itself; None: nothing does.

    Returns:
        ``trials`` to do, ``settings`` that the space has (``settings_are_all``: no more), ``epochs`` of all
        these trials, ``epochs_trained`` of them, ``checkpoint_bytes`` of one, ``disk_bytes`` at most in the
        end, ``seconds`` of one trial at a time, without its start, and ``memory_bytes`` of tensors in one, at
        most; None where nothing was timed.

    Raises:
        DbfRayError: the configuration, data or space cannot be used.
    """
    check_name(study_name)
    folder = config.search.studies_dir / study_name
    check_trials_known(folder)
    space, settings = load_space(space_file), Settings(config, begin or CheckedBegin())
    draws = draws_to_come(folder, config, space)
    pool = Pool(draws, settings, config.seed, ceiling(config, Costs(settings)))
    pool.check(space.file)
    every = {made.key: made for made in [*map(settings.make, space.baselines), *pool.settings]}
    if needs_timing(config):
        kinds(space, settings, study_name)  # refuses too many
    if cluster_address(config.cluster.address) is None:
        check_measured(config)
    known = _complete(folder, settings)
    controls = {made.key: made for made in map(settings.make, controls_of(config))}
    wanted = trials or config.search.trials or trials_by_default(config, space, len(every))
    left = [setting for key, setting in every.items() if key not in known and key not in controls]
    missing = max(0, wanted - len(known - controls.keys()))
    chosen = [*left[:missing], *(setting for key, setting in controls.items() if key not in known)]
    left = [*chosen, *left[missing:]]
    store = Store(folder / "states", code_versions(versions()))
    epochs = sum(len(setting.states) - 1 for setting in chosen)
    sharing = Sharing(config.search.kept_states, every=config.search.keep == "all")
    begun = _trained(chosen, left[len(chosen) :], store.names(), sharing)
    trained = epochs - sum(begun)
    ahead = Ahead(settings, folder, timer)
    size = settings.beginning(config).checkpoint_bytes
    kept = {"front": 0, "states": config.search.kept_states, "all": epochs}[config.search.keep]
    each = 1 if config.search.keep == "front" else config.training.keep_checkpoints
    return {
        "trials": len(chosen),
        "settings": len(every),
        "settings_are_all": pool.complete,
        "epochs": epochs,
        "epochs_trained": trained,
        "checkpoint_bytes": size,
        "disk_bytes": size * (kept + each * (len(known) + len(chosen))),
        "seconds": ahead.seconds(chosen, begun),
        "memory_bytes": ahead.memory(chosen),
    }


def forecast_text(study: str, found: dict[str, Any]) -> str:
    """The forecast in words."""
    more = "" if found["settings_are_all"] else "at least "
    lines = [
        f"study {study}: {found['trials']} trials to do, of a space with {more}{found['settings']} settings: "
        f"{found['epochs']} epochs, of which about {found['epochs_trained']} are to be trained",
        f"disk: up to {found['disk_bytes'] / 1e9:.2f} GB in checkpoints of "
        f"{found['checkpoint_bytes'] / 1e9:.3f} GB (search.keep, search.kept_states)",
    ]
    if found["memory_bytes"] is not None:
        lines.append(
            f"time: about {duration(found['seconds'])} with one trial at a time, by real steps that were "
            f"timed; memory: up to {gigabytes(found['memory_bytes'])} of tensors in a trial"
        )
    return "\n".join(lines)


def _trained(
    chosen: Sequence[Setting], others: Sequence[Setting], have: set[str], sharing: Sharing
) -> list[int]:
    """The epochs at which the settings begin if they come one after the other."""
    begun = list[int]()
    open_ = [setting.states for setting in (*chosen, *others)]
    for number, setting in enumerate(chosen):
        open_.pop(0)
        begun.append(deepest(setting.states, have))
        have = have | {*sharing.begin(number, setting.states, open_, have).keep.values()}
        sharing.end(number)
        have &= sharing.needed(open_, have)
    return begun


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The study's trials as its pareto.json has them; none where it cannot be read."""
    try:
        rows = json.loads((folder / "pareto.json").read_text(encoding="utf-8"))["trials"]
        return [row for row in rows if row["state"] == "COMPLETE"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _complete(folder: Path, settings: Settings) -> set[str]:
    """Keys of the settings that the study has trained."""
    keys = set()
    for row in _rows(folder):
        try:
            keys.add(settings.make(row["overrides"]).key)
        except DbfRayError:  # of another configuration, which the search itself will refuse
            continue
    return keys
