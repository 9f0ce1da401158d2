"""Training runs on the workers of a Ray cluster, or of a local Ray."""

from dbf_ray.cluster.ray_runtime import Resources, available_resources, connected_ray, require
from dbf_ray.cluster.train import train_on_ray

__all__ = ["Resources", "available_resources", "connected_ray", "require", "train_on_ray"]
