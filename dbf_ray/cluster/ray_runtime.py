"""Starting or joining Ray, quietly, and saying at once when something cannot fit.

Ray itself waits without end for resources that will never come. Here every request is compared with what the
machine or cluster has, in numbers, before anything is started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

import dbf_ray
from dbf_ray import stopping
from dbf_ray.cluster.address import cluster_address
from dbf_ray.cluster.largest import largest
from dbf_ray.cluster.local_ray import remove_session, session_folder, shut_in
from dbf_ray.cluster.logs import quiet_logging, quiet_raylet
from dbf_ray.cluster.reach import in_short, require_ray, why_no_ray
from dbf_ray.errors import ResourceError
from dbf_ray.machine import usable_cpus

# Ray reads these in the process that starts it. A report would otherwise cost two seconds an epoch (the
# health-check interval).
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
SILENT = logging.CRITICAL + 1  # while Ray starts: what goes wrong is said in one line
OBJECT_STORE_BYTES = 256 * 1024**2  # data does not travel through it: every worker reads its own images


@dataclass(frozen=True)
class Resources:
    """What a machine or cluster has for us.

    Attributes:
        nodes: (CPUs, GPUs) of each of its nodes; empty where one node has it all.
        most: the same of those that it may have once it has scaled up; empty where it cannot, or nobody says.
    """

    cpus: int
    gpus: int
    place: str
    nodes: tuple[tuple[int, int], ...] = ()
    most: tuple[tuple[int, int], ...] = ()

    def slots(self, cpus_per_worker: int, gpu: float) -> int:
        """How many workers can be placed, each one whole on a node, with this share of a GPU."""
        nodes = self.nodes or ((self.cpus, self.gpus),)
        each = int(1 / gpu + 1e-9) if gpu else 0  # on one GPU: a share is of one alone
        return sum(
            min(cpus // cpus_per_worker, gpus * each) if gpu else cpus // cpus_per_worker
            for cpus, gpus in nodes
        )

    def at_largest(self) -> Resources:
        """What there is once it has scaled up."""
        if not self.most:
            return self
        cpus, gpus = (sum(node[kind] for node in self.most) for kind in (0, 1))
        return Resources(cpus, gpus, f"{self.place} at its largest", self.most)


def local_resources() -> Resources:
    """CPUs that this process may use and GPUs that torch sees."""
    return Resources(
        usable_cpus(), torch.cuda.device_count() if torch.cuda.is_available() else 0, "this machine"
    )


def available_resources() -> Resources:
    """What a run started now would find: the connected cluster's resources, or this machine's."""
    if ray.is_initialized():
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = tuple((int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in alive)
        cpus, gpus = sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes)
        return Resources(cpus, gpus, "the Ray cluster", nodes, largest())
    return local_resources()


def require(workers: int, cpus_per_worker: int, gpu: float, resources: Resources) -> None:
    """Refuse workers that can never be placed, also once the cluster has scaled up.

    Args:
        workers: how many.
        cpus_per_worker: CPUs of each.
        gpu: the share of a GPU that each has: 0, 1, or for one worker between them.
        resources: what there is.

    Raises:
        ResourceError: with what was asked for and what there is.
    """
    if resources.slots(cpus_per_worker, gpu) < workers:
        resources = resources.at_largest()
    asked, place = workers * cpus_per_worker, resources.place
    if asked > resources.cpus:
        raise ResourceError(
            f"{_needing(workers, 'CPU', cpus_per_worker)}, but {place} has {resources.cpus}; "
            f"{_fewer(workers, 'lower --cluster.cpus_per_worker')}"
        )
    if gpu and workers > resources.gpus:
        raise ResourceError(
            f"{_needing(workers, 'GPU', float(gpu))}, but {place} has {resources.gpus}; "
            f"{_fewer(workers, 'set --cluster.gpu false')}"
        )
    if (slots := resources.slots(cpus_per_worker, gpu)) < workers:
        has = ", ".join(
            sorted(
                {f"{cpus} CPUs and {gpus} GPUs" if gpu else f"{cpus} CPUs" for cpus, gpus in resources.nodes}
            )
        )
        raise ResourceError(
            f"each worker needs {cpus_per_worker} CPUs{' and a GPU' if gpu else ''} of one node, but the "
            f"nodes of {place} ({has}) hold {slots} of {workers} {'worker' if workers == 1 else 'workers'}; "
            f"{_fewer(workers, 'lower --cluster.cpus_per_worker')}"
        )


def _needing(workers: int, kind: str, each: float) -> str:
    """ "2 workers with 3 CPUs each need 6 CPUs"."""
    if workers == 1:
        return f"1 worker needs {each:g} {kind}{'s' if each > 1 else ''}"
    one = f"a {kind}" if kind == "GPU" else f"{each} {kind}s"
    return f"{workers} workers with {one} each need {workers * each:g} {kind}s"


def _fewer(workers: int, otherwise: str) -> str:
    """What to do where they do not fit."""
    return otherwise if workers == 1 else f"lower --cluster.workers or {otherwise}"


def set_environment() -> None:
    """Set Ray's switches for this process and those it starts; what a person has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def connected_ray(
    address: str | None = None, *, log_to_driver: bool = False, option: str = "--cluster.address"
) -> Iterator[Resources]:
    """Join the cluster, or start a local Ray and end it afterwards; a Ray that is connected already is used
    and left alone.

    Args:
        address: see :func:`cluster_address`.
        log_to_driver: show what Ray's processes print, with much of Ray's own log.
        option: how the address was given, for a message.

    Yields:
        The resources there are.

    Raises:
        ResourceError: the cluster cannot be reached, a local Ray does not start, or Ray ends meanwhile.
    """
    set_environment()
    if ray.is_initialized():
        yield available_resources()
        return
    require_ray(address, option)
    joined = cluster_address(address)
    options: dict[str, Any] = {
        "logging_level": SILENT,
        "log_to_driver": log_to_driver,
        "configure_logging": True,
    }
    if joined:
        options |= {"address": joined}
        # a submitted job has shipped its working directory
        if address and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            # this package and nothing else
            options |= {"runtime_env": {"py_modules": [str(Path(dbf_ray.__file__).parent)]}}
    else:
        here = local_resources()
        options |= {
            "address": "local",
            "num_cpus": here.cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    logging.getLogger("ray").setLevel(SILENT)
    held = contextlib.ExitStack()
    held.enter_context(quiet_raylet())
    if not joined:
        held.enter_context(shut_in())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(**options)
    except Exception as error:  # Ray raises what comes to hand, also a bare Exception
        with contextlib.suppress(Exception):
            ray.shutdown()  # what has started
        held.close()
        raise ResourceError(why_no_ray(error, address, option)) from error
    stopping.heed_again()  # Ray has set a handler of its own
    quiet_logging()
    session, well = None if joined else session_folder(), True
    try:
        yield available_resources()
    except Exception as error:
        well = False
        if not isinstance(error, ray.exceptions.RayError | ConnectionError):
            raise
        raise ResourceError(
            f"Ray ended: {in_short(error)}; what is done is kept, the same command goes on from there"
        ) from error
    finally:
        ray.shutdown()
        held.close()
        if well:
            remove_session(session)
