"""One training run, without Ray: configuration in, record out."""

from dbf_ray.run.naming import mlflow_target, run_directory, run_name, tracking_uri
from dbf_ray.run.resume import find_resume
from dbf_ray.run.runner import OnEpoch, run

__all__ = ["OnEpoch", "find_resume", "mlflow_target", "run", "run_directory", "run_name", "tracking_uri"]
