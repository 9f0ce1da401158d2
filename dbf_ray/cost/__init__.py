"""What training costs: nominal FLOPs known before (flops, schedule), and what really ran (ledger)."""

from dbf_ray.cost.flops import (
    FlopTable,
    StepFlops,
    backbone_share,
    flop_counter,
    forward_flops,
    meta_copy,
    training_flops,
)
from dbf_ray.cost.ledger import Ledger
from dbf_ray.cost.schedule import analytic_ratio, analytic_saving, compute_ratio, lowest_ratio

__all__ = [
    "FlopTable",
    "Ledger",
    "StepFlops",
    "analytic_ratio",
    "analytic_saving",
    "backbone_share",
    "compute_ratio",
    "flop_counter",
    "forward_flops",
    "lowest_ratio",
    "meta_copy",
    "training_flops",
]
