"""The one place where configuration becomes objects.

:func:`prepare` checks everything that can be known before work starts and says what the run will cost;
:func:`build_training` makes the parts that train.
"""

from dbf_ray.build.detector import resolved
from dbf_ray.build.scored import check_scored
from dbf_ray.build.spec import RunSpec, prepare
from dbf_ray.build.training import build_training

__all__ = ["RunSpec", "build_training", "check_scored", "prepare", "resolved"]
