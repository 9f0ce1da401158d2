"""The section of a configuration that says where workers run, and on what."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from dbf_ray.config.base import Section
from dbf_ray.config.roles import Place, Resource


class ClusterConfig(Section):
    """Ray Train workers."""

    workers: Resource[int] = Field(1, ge=1, description="data-parallel training workers (DDP ranks)")
    cpus_per_worker: Resource[int] = Field(1, ge=1, description="CPUs that each worker reserves")
    gpu: Resource[bool | float] = Field(
        False,
        description="true: a GPU for each worker; 0.5: half of one, so that two trials of one worker share "
        "it and its memory",
    )
    use_ray: Resource[bool | None] = Field(
        None, description="run under Ray Train; null: where there are several workers, or a cluster"
    )
    address: Place[str | None] = Field(
        None, description="Ray cluster address; null: the running job's, or a local one"
    )
    storage: Place[str | None] = Field(
        None, description="folder or URI all nodes share, for checkpoints; null: the runs folder"
    )
    max_failures: Resource[int] = Field(3, ge=0, description="worker failures to recover from")
    wait_minutes: Resource[float] = Field(
        10.0, gt=0, description="minutes to wait for CPUs and GPUs of the cluster while nothing runs"
    )

    @field_validator("gpu")
    @classmethod
    def _is_a_share(cls, value: bool | float) -> bool | float:
        if value in (0, 1):
            return bool(value)
        if not 0 < value < 1:
            raise ValueError("should be true, false, or a share of one GPU between 0 and 1")
        return value

    @model_validator(mode="after")
    def _one_worker_to_a_share(self) -> ClusterConfig:
        if self.workers > 1 and not isinstance(self.gpu, bool):
            raise ValueError(
                f"workers {self.workers} with gpu {self.gpu}: a share of a GPU is for one worker, since nccl "
                "takes no two ranks of a training on one GPU; set workers 1, or gpu true"
            )
        return self
