"""Ray's TorchTrainer, of which nothing is left where its driver is killed.

Ray Train starts an actor beside each training that outlives it, frees its placement group and ends
(``PlacementGroupCleaner``). Seen with ray 2.60, it does not, and 200 MB stay on the head: it asks the
dashboard, if there is one, of the cluster that it finds on its machine, if there is but one; and
``ray.actor.exit_actor`` in a thread of its own ends that thread alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import ray
from ray._private.state import actors
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner


def lives(actor_id: str, timeout: float) -> bool:
    """Whether an actor of this cluster does, by the cluster's own table; the arguments are Ray's."""
    return actors(actor_id).get("State", "DEAD") != "DEAD"


ABORT_SECONDS = 30.0


class Cleaner(PlacementGroupCleaner):
    """One that ends when it is done."""

    def start_monitoring(self) -> bool:
        """In a process of its own."""
        placement_group_cleaner.is_actor_alive = lives
        started: bool = super().start_monitoring()
        return started

    def _exit(self) -> None:
        if threading.current_thread() is self._monitor_thread:
            os._exit(0)
        super()._exit()


class CleanerCallback(PlacementGroupCleanerCallback):
    """Starts that one."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """In the controller's process, which is this training's alone."""
        placement_group_callback.PlacementGroupCleaner = Cleaner
        super().after_controller_start(train_run_context)


class Trainer(TorchTrainer):
    """Ray's, with the actor that ends, and without handlers of its own for signals."""

    _controller: Any = None

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [
            CleanerCallback() if isinstance(one, PlacementGroupCleanerCallback) else one for one in callbacks
        ]

    def _register_sigint_handler(self, controller: Any) -> None:
        """Signals are the command's (:mod:`dbf_ray.stopping`); called where the main thread waits."""
        self._controller = controller

    def abort(self) -> None:
        """End the training wherever it is, from another thread; only where the main one waits for it."""
        if self._controller is not None:
            with contextlib.suppress(ray.exceptions.RayError):  # it ends itself
                ray.get(self._controller.abort.remote(), timeout=ABORT_SECONDS)
