"""What training costs: nominal FLOPs known before (flops, schedule), and what really ran (ledger)."""

from dbf_ray.cost.flops import FlopTable, StepFlops, flop_counter, meta_copy
from dbf_ray.cost.ledger import Ledger
from dbf_ray.cost.schedule import Stretch, analytic_ratio, compute_ratio, stretches

__all__ = [
    "FlopTable",
    "Ledger",
    "StepFlops",
    "Stretch",
    "analytic_ratio",
    "compute_ratio",
    "flop_counter",
    "meta_copy",
    "stretches",
]
