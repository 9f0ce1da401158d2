"""The same training run, on the workers of Ray Train.

Each worker calls :func:`dbf_ray.run.run` inside the process group that Ray has made. After every epoch all of
them report, rank 0 with its checkpoint folder. When a worker dies, Ray starts all of them anew; each begins
at the last reported checkpoint that is whole (:mod:`.resume`), which also holds the record so far
(record.json), so that in the end every epoch is in it once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from dbf_ray import stopping
from dbf_ray.cluster.address import cluster_address
from dbf_ray.cluster.logs import quiet_logging
from dbf_ray.cluster.ray_runtime import available_resources, connected_ray, require
from dbf_ray.cluster.relay import error_of, listening, make_relay, notice_of, pin, pinned, speaking
from dbf_ray.cluster.resume import checkpoint_to_resume
from dbf_ray.cluster.stop import heeding, passing_on
from dbf_ray.cluster.storage import require_storage
from dbf_ray.cluster.stored import fetch_run, put_record
from dbf_ray.cluster.trainer import Trainer
from dbf_ray.cluster.waiting import START_SECONDS, GiveUp, Patience, gave_up
from dbf_ray.config import Config, paths, to_dict, with_overrides
from dbf_ray.errors import DbfRayError, TrainingError, WeightsError
from dbf_ray.files import write_json
from dbf_ray.progress import print_line
from dbf_ray.remote import joined
from dbf_ray.run import find_resume, mlflow_target, run_directory
from dbf_ray.run import run as run_here
from dbf_ray.tracking import MlflowTarget, make_trackers, read_epochs, write_epochs
from dbf_ray.tracking.jsonl import SUMMARY
from dbf_ray.training.checkpoint import read_record

RunFunction = Callable[..., dict[str, Any]]
FOR_EVER = 7 * 24 * 3600.0  # seconds: who started the training watches what waits


@dataclass(frozen=True)
class Job:
    """What a worker needs, in values that can be sent: the configuration as a plain tree, the run's folder,
    where MLflow is; its own checkpoint to resume from, or another run's to begin at; what is to be done with
    each epoch's record and checkpoint on rank 0; whether objects that cannot be matched are told
    (:func:`dbf_ray.run.run`); whether this process watches how long workers wait for resources.
    """

    config: dict[str, Any]
    directory: str
    mlflow: MlflowTarget | None = None
    resume: str | None = None
    begin: str | None = None
    after_epoch: Callable[[dict[str, Any], Path | None], None] | None = None
    run: RunFunction | None = field(default=None, repr=False)
    coverage: bool = True
    watch: bool = True


def train_on_ray(
    config: Config, *, directory: Path | None = None, run: RunFunction | None = None
) -> dict[str, Any]:
    """Train on ``config.cluster.workers`` Ray workers and wait for the end.

    The same ``directory`` given again continues an unfinished run from its last checkpoint.

    Args:
        config: the run; its paths are made absolute, since workers have other working directories.
        directory: the run's folder; None: ``runs_dir/name``. On a cluster of several nodes
            ``config.cluster.storage`` must name a place that all of them share.
        run: function to call instead of :func:`dbf_ray.run.run`, for tests.

    Returns:
        The content of summary.json.

    Raises:
        ConfigError: the run is finished already, or was begun with another configuration.
        ResourceError: the workers can never fit, or did not in ``config.cluster.wait_minutes``.
        TrainingError: training failed, or more workers died than ``config.cluster.max_failures`` allows.
    """
    config = absolute_paths(config)
    directory = (directory or run_directory(config)).absolute()
    cluster = config.cluster
    if cluster.storage is not None:
        fetch_run(stored_at(config, directory), directory)
    resume = find_resume(config, directory)
    require_storage(cluster.storage)
    if not ray.is_initialized() and cluster_address(cluster.address) is None:
        require(cluster.workers, cluster.cpus_per_worker, cluster.gpu, available_resources())
    resumed = str(resume) if resume else None
    job = Job(to_dict(config), str(directory), mlflow_target(config), resumed, run=run)
    with connected_ray(cluster.address) as resources:
        require(cluster.workers, cluster.cpus_per_worker, cluster.gpu, resources)
        summary = fit(job)
    if cluster.storage is not None:
        put_record(stored_at(config, directory), directory)
    return summary


def fit(job: Job) -> dict[str, Any]:
    """Run ``job`` on a new worker group of the connected Ray, wait, and complete the run's folder on this
    machine.

    Raises:
        DbfRayError: what a worker raised, or TrainingError when Ray Train gives up.
    """
    config = Config.model_validate(job.config)
    if (job.resume or job.begin) and config.cluster.storage is None:
        # the checkpoint that it goes on from is as new or newer
        shutil.rmtree(Path(job.directory) / "ray", ignore_errors=True)
    relay = make_relay()
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job, "relay": relay},
        scaling_config=ScalingConfig(
            num_workers=config.cluster.workers,
            use_gpu=bool(config.cluster.gpu),
            resources_per_worker={
                "CPU": config.cluster.cpus_per_worker,
                **({"GPU": float(config.cluster.gpu)} if config.cluster.gpu else {}),
            },
        ),
        torch_config=TorchConfig(backend="nccl" if config.cluster.gpu else "gloo"),
        run_config=RunConfig(
            **_storage(config, Path(job.directory)),
            failure_config=FailureConfig(
                max_failures=config.cluster.max_failures,
                controller_failure_limit=-1,  # GiveUp counts them
            ),
            callbacks=[GiveUp()],
            checkpoint_config=CheckpointConfig(num_to_keep=config.training.keep_checkpoints),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    patience = Patience(config.cluster.wait_minutes, print_line)
    watching = patience.watching() if job.watch else contextlib.nullcontext()
    # read in this process by what places the workers
    os.environ[START_SECONDS] = str(config.cluster.wait_minutes * 60 if job.watch else FOR_EVER)
    try:
        with passing_on(relay, trainer.abort), listening(relay), watching:
            result = trainer.fit()
    except ray.exceptions.RayError:
        stopping.check()  # it was given up
        raise
    except ray.train.TrainingFailedError as error:
        stopping.check()
        if gave_up(error):
            raise patience.over() from error
        notice = pinned(relay)
        raise (
            error_of(notice)
            if notice
            else TrainingError(_why(error, config.cluster.max_failures, job.directory))
        ) from error
    answer = result.return_value or {}
    if "notice" in answer:
        raise error_of(answer["notice"])
    if "stopped" in answer:
        raise stopping.Stopped(answer["stopped"])
    return _complete(Path(job.directory), answer, result)


def _worker(loop: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker does; rank 0's return value reaches the driver."""
    job: Job = loop["job"]
    relay = loop["relay"]
    notice = pinned(relay)
    if notice is not None:  # an earlier attempt met an error that would only come again
        return {"notice": notice}
    quiet_logging()
    rank_0 = ray.train.get_context().get_world_rank() == 0
    try:
        with contextlib.ExitStack() as held:
            if rank_0:  # ranks agree on each step
                held.enter_context(heeding(relay))
                held.enter_context(speaking(relay))
            return _train(job)
    except stopping.Stopped as stopped:
        return {"stopped": stopped.number}
    except DbfRayError as error:
        notice = notice_of(error)
        pin(relay, notice)
        if ray.train.get_context().get_world_size() == 1:
            return {"notice": notice}
        raise  # the other ranks may be waiting for this one: only an error ends them


def _train(job: Job) -> dict[str, Any]:
    config = Config.model_validate(job.config)
    run = job.run or run_here
    directory = Path(job.directory)
    rank = ray.train.get_context().get_world_rank()
    torch.set_num_threads(config.training.threads or config.cluster.cpus_per_worker)
    own = directory / "checkpoints" if config.cluster.storage is None else None
    with checkpoint_to_resume(job.resume, own) as checkpoint:
        if checkpoint is not None and rank == 0:
            records = record_of(checkpoint)
            write_epochs(directory, records)  # this may be another machine than the one the run began on
            if job.after_epoch is not None:  # it may have been killed before that
                job.after_epoch(records[-1], checkpoint)
        summary = run(
            config,
            directory=directory,
            trackers=make_trackers(directory, job.mlflow) if rank == 0 else [],
            on_epoch=partial(_report, before=job.after_epoch if rank == 0 else None),
            resume=checkpoint,
            begin=Path(job.begin) if job.begin and checkpoint is None else None,
            coverage=job.coverage,
        )
    return {"summary": summary, "records": read_epochs(directory)} if rank == 0 else {}


def _report(
    record: dict[str, Any],
    checkpoint: Path | None,
    before: Callable[[dict[str, Any], Path | None], None] | None = None,
) -> bool:
    if before is not None:
        before(record, checkpoint)
    metrics = {name: record.get(name) for name in ("epoch", "map50", "loss", "frozen_stages")}
    ray.train.report(
        metrics, checkpoint=ray.train.Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
    )
    return True


def record_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The epoch records that a checkpoint folder holds.

    Raises:
        TrainingError: record.json is missing or damaged.
    """
    try:
        records: list[dict[str, Any]] = read_record(checkpoint)["epochs"]
    except (WeightsError, KeyError) as error:
        raise TrainingError(
            f"a checkpoint must hold its run's record, but {checkpoint / 'record.json'} cannot be read "
            f"({error}); start anew"
        ) from error
    return records


def absolute_paths(config: Config) -> Config:
    """``config`` with folders and files made absolute, so that it means the same in every process of this
    machine.
    """
    found = {key: str(path.expanduser().absolute()) for key, path in paths(config).items()}
    if (storage := config.cluster.storage) and "://" not in storage:  # else a URI
        found["cluster.storage"] = str(Path(storage).expanduser().absolute())
    return with_overrides(config, found)


def _storage(config: Config, directory: Path) -> dict[str, str]:
    """Where Ray keeps its own copy of the newest checkpoints: in the run's folder, or in the storage that all
    nodes share.
    """
    if config.cluster.storage:
        is_trial = directory.parent.name == "trials"  # studies/<study>/trials/<number>
        return {
            "storage_path": config.cluster.storage,
            "name": "-".join(directory.parts[-3:] if is_trial else directory.parts[-1:]),
        }
    return {"storage_path": str(directory), "name": "ray"}


def stored_at(config: Config, directory: Path) -> str:
    """Where the run of a folder is in ``cluster.storage``."""
    found = _storage(config, directory)
    return joined(found["storage_path"], found["name"])


def _complete(directory: Path, answer: dict[str, Any], result: Any) -> dict[str, Any]:
    """Make the run's folder on this machine whole, wherever rank 0 ran, and drop Ray's working copy of local
    checkpoints.
    """
    summary: dict[str, Any] = answer["summary"]
    if not (directory / SUMMARY).exists():
        if result.checkpoint is not None and not Path(str(summary.get("checkpoint"))).exists():
            summary = {**summary, "checkpoint": result.checkpoint.path}
        write_epochs(directory, answer["records"])
        write_json(directory / SUMMARY, summary)
    checkpoint = summary.get("checkpoint")
    if checkpoint and Path(checkpoint).exists() and directory / "ray" not in Path(checkpoint).parents:
        shutil.rmtree(directory / "ray", ignore_errors=True)
    return summary


def _why(error: Exception, max_failures: int, directory: str) -> str:
    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", error)}
    last = [line for line in str(next(iter(failures.values()))).strip().splitlines() if line.strip()]
    return (
        f"training stopped after more than {max_failures} failures of its workers; the last one said: "
        f"{last[-1].strip() if last else error}; the same command continues from the last checkpoint in "
        f"{directory}"
    )
