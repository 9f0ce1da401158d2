"""A search: Ray Tune runs the trials, the study says which, and the study's folder tells how far it came.

``studies/<name>/`` holds study.db (Optuna), trials/<number>/ (each a complete run folder), trials.csv,
pareto.json, pareto.html and pareto.png. The same name again trains what is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbf_ray.cluster.address import cluster_address
from dbf_ray.cluster.ray_runtime import available_resources, connected_ray
from dbf_ray.cluster.reach import require_ray
from dbf_ray.cluster.storage import require_storage
from dbf_ray.cluster.train import RunFunction, absolute_paths
from dbf_ray.config import Config, save_config
from dbf_ray.locks import only_writer
from dbf_ray.reports.objectives import Objectives
from dbf_ray.room import enough_room
from dbf_ray.run import mlflow_target
from dbf_ray.run.same_data import DataRecord
from dbf_ray.run.summary import versions
from dbf_ray.search.checked import CheckedBegin, check_name, check_trials_known, code_versions, is_done
from dbf_ray.search.compared import check_measured
from dbf_ray.search.controls import controls_of
from dbf_ray.search.cost import Costs
from dbf_ray.search.known import Known
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.searching import Asked, Searching, concurrency
from dbf_ray.search.settings import Begin, Record, Setting, Settings, StudyBegin
from dbf_ray.search.sharing import Sharing
from dbf_ray.search.spaces import SearchSpace, load_space
from dbf_ray.search.store import Store
from dbf_ray.search.study import Study, rehearse
from dbf_ray.search.timing import (
    Timer,
    Timings,
    check_measured_by_ray,
    kinds,
    measured_by_ray,
    needs_timing,
)
from dbf_ray.search.trial import Evaluate, leave, read_result
from dbf_ray.search.wanted import SECONDS, TRIALS, budget_of, check_budget, options_of, trials_by_default
from dbf_ray.training.checkpoint import newest_epoch

SELECTED_ON_VAL = (
    "warning: trials are compared on val, and the same figures are reported, which is too kind to the best "
    "of them; --data.selection_fraction 0.2 compares them on images held out of train, and val is seen once"
)


def search(
    config: Config,
    space_file: str | Path,
    *,
    study_name: str,
    trials: int | None = None,
    concurrent: int | None = None,
    studies_dir: Path = Path("studies"),
    progress: Callable[[str], None] = print,
    run: RunFunction | None = None,
    begin: Begin | None = None,
    evaluate: Evaluate | None = None,
    timer: Timer = measured_by_ray,
) -> dict[str, Any]:
    """Search the space for the best trade-off of ``search.accuracy`` (of the last epoch) against
    ``search.cost``.

    Args:
        config: what all trials share.
        space_file: see :mod:`dbf_ray.search.spaces`; or the name of a shipped one.
        study_name: names the folder, the Optuna study and the MLflow experiment.
        trials: complete trials that the study shall have in the end; None: as ``config.search`` says. Failed
            ones are made up for, within bounds (:class:`StudySearcher`).
        concurrent: trials at once, at most as many as the resources hold; None: ``config.search.concurrent``,
            else as many as fit.
        studies_dir: where the study's folder is.
        progress: called with each line for the person.
        run, begin: replace :func:`dbf_ray.run.run` and the check of the detector (:mod:`dbf_ray.search.own`).
        evaluate, timer: replace the evaluation on val, and what times steps for ``search.cost
            seconds_ratio``, for tests.

    Returns:
        The content of pareto.json.

    Raises:
        ConfigError: the configuration, the space or the study's name cannot be used.
        DataError: the data cannot be, map50 would tell nothing on them, or they have changed since the study
            began.
        ResourceError: a trial can never fit, or there is no Ray.
        TrainingError: not one trial ended well.
    """
    check_name(study_name)
    config, wanted = absolute_paths(config), trials or config.search.trials
    mlflow_target(config)  # refuses a URI that is none before anything is written
    space, folder = load_space(space_file), studies_dir / study_name
    check_trials_known(folder)
    if wanted is None or not is_done(folder, wanted, config):
        require_ray(config.cluster.address)
    if cluster_address(config.cluster.address) is None:
        concurrency(config, concurrent, available_resources())
        check_measured(config)
    prepared = _prepare(config, space, folder, begin or CheckedBegin())
    require_storage(config.cluster.storage)
    with contextlib.ExitStack() as held:
        if not folder.exists():
            held.enter_context(connected_ray(config.cluster.address))  # nothing is left where there is no Ray
            if cluster_address(config.cluster.address) is not None:
                check_measured_by_ray(config)
        held.enter_context(only_writer(folder, "searching the study", "give another --study"))
        held.enter_context(enough_room(folder, "the study"))
        for abandoned in folder.glob(".*.partial"):  # what a killed process was writing
            abandoned.unlink()
        study, store = _open(config, prepared, folder, wanted, timer, progress)
        wanted = wanted or trials_by_default(config, space, study.known_settings())
        save_config(config, folder / "config.yaml")
        for note in prepared.notes(config, left=len(study.complete()) < wanted, folder=folder):
            progress(f"study {study_name}: {note}")
        asked = Asked(wanted, concurrent, progress, run, evaluate, space.file, prepared.controls)
        return Searching(config, folder, study, store, asked).execute()


@dataclass(frozen=True)
class _Prepared:
    """A search whose input has been checked.

    Attributes:
        data: what has to stay the same while the study goes on; None: not known.
        untimed: configurations whose steps are to be timed.
    """

    space: SearchSpace
    settings: Settings
    controls: list[Setting]
    begin: Begin
    data: Record | None
    known: Known | None
    untimed: list[Config]

    def notes(self, config: Config, *, left: bool, folder: Path) -> list[str]:
        """Write down the study's data, and give what the person should know of them; ``left``: trials are
        still to be trained.
        """
        if self.data is None or not isinstance(self.begin, StudyBegin):
            return []
        self.data.write(folder)
        new = self.begin.uncovered() if left else []
        if left and isinstance(self.begin, CheckedBegin) and config.data.selection_fraction == 0:
            new.append(SELECTED_ON_VAL)
        return [*self.data.notes, *self.begin.warnings, *new]


def _prepare(config: Config, space: SearchSpace, folder: Path, begin: Begin) -> _Prepared:
    """Check what the study in ``folder`` begins or goes on with; nothing is written."""
    settings = Settings(config, begin)
    baselines = [settings.make(baseline) for baseline in space.baselines]
    controls = [settings.make(overrides) for overrides in controls_of(config)]
    data = begin.study_data(config, folder) if isinstance(begin, StudyBegin) else None
    check_budget(config, space, [*baselines, *controls])
    known = None if config.search.known is None else _known(config.search.known, folder, config, begin, data)
    if not (folder / "study.db").exists():  # seconds, once they are timed, are known where FLOPs are
        in_flops = Costs(settings, "compute_ratio" if needs_timing(config) else config.search.cost)
        rehearse(space, settings, **options_of(config, in_flops))
    untimed = Timings(folder).missing(kinds(space, settings, folder.name)) if needs_timing(config) else []
    return _Prepared(space, settings, controls, begin, data, known, untimed)


def _open(
    config: Config,
    prepared: _Prepared,
    folder: Path,
    wanted: int | None,
    timer: Timer,
    progress: Callable[[str], None],
) -> tuple[Study, Store]:
    """The study in ``folder`` as it stands, and its store."""
    optuna_study = open_study(
        folder.absolute() / "study.db", folder.name, trials=wanted or TRIALS, seed=config.seed
    )
    store = Store(folder.absolute() / "states", code_versions(versions()))
    store.tidy()
    timings, trials = Timings(folder), folder.absolute() / "trials"
    if prepared.untimed:
        with connected_ray(config.cluster.address):
            timings.time(prepared.untimed, timer, progress)
    costs, known = Costs(prepared.settings, config.search.cost, timings.seconds), prepared.known
    study = Study(
        optuna_study,
        prepared.space,
        prepared.settings,
        **options_of(config, costs),
        recover=lambda number: read_result(trials / str(number)),
        store=store,
        sharing=Sharing(config.search.kept_states, every=config.search.keep == "all"),
        done=lambda number: newest_epoch(trials / str(number) / "checkpoints"),
        objectives=Objectives(config.search.accuracy, config.search.cost),
        values=costs.values,
        extras=prepared.controls,
        bring=lambda book, pool: None if known is None else known.bring(book, pool, store, trials),
        leave=lambda number, names: leave(store, trials / str(number), names),
    )
    study.budget = budget_of(config, study.rows(trials), optuna_study.user_attrs.get(SECONDS, 0.0))
    return study, store


def _known(earlier: Path, folder: Path, config: Config, begin: Begin, data: Record | None) -> Known:
    """The earlier study, which must have trained the same on the same."""
    if isinstance(data, DataRecord):
        return Known(earlier, folder, config, data)
    if isinstance(begin, StudyBegin):
        begin.study_data(config, earlier)
    return Known(earlier, folder, config)
