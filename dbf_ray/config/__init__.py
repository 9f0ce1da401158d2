"""What a run is: strict sections of keys, read from YAML and dotted overrides, and what each key means."""

from dbf_ray.config.cluster_section import ClusterConfig
from dbf_ray.config.keys import at, dotted
from dbf_ray.config.loading import (
    RENAMED,
    Config,
    apply_overrides,
    load_config,
    make_config,
    save_config,
    to_dict,
    with_overrides,
)
from dbf_ray.config.roles import differences, elsewhere, identity, key_of, paths, role_of
from dbf_ray.config.search_section import SearchConfig
from dbf_ray.config.sections import (
    DataConfig,
    DetectorConfig,
    EvaluationConfig,
    FreezingConfig,
    IntervalConfig,
    TrackingConfig,
    TrainingConfig,
)

__all__ = [
    "RENAMED",
    "ClusterConfig",
    "Config",
    "DataConfig",
    "DetectorConfig",
    "EvaluationConfig",
    "FreezingConfig",
    "IntervalConfig",
    "SearchConfig",
    "TrackingConfig",
    "TrainingConfig",
    "apply_overrides",
    "at",
    "differences",
    "dotted",
    "elsewhere",
    "identity",
    "key_of",
    "load_config",
    "make_config",
    "paths",
    "role_of",
    "save_config",
    "to_dict",
    "with_overrides",
]
