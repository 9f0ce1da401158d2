"""Draws timeline_rho4.png, the picture of the README: step(4) over the 20 epochs of its table.

Run from the repository's root: ``python docs/pictures/draw_timeline.py``
"""

from __future__ import annotations

from pathlib import Path

from dbf_ray.freezing import make_policy
from dbf_ray.reports.timeline import timeline, timeline_png

# Training FLOPs by number of frozen stages over those of full, of configuration hrsc_mobilenet_v2:
# docs/results/frozen_steps.md, cost.md.
COST_OF = (1.0, 0.899, 0.853, 0.720, 0.6327)

if __name__ == "__main__":
    data = timeline(make_policy("step", rho=4).decisions(20, 4), COST_OF)
    png = timeline_png(data, "step(4): the backbone is trained in every fourth epoch")
    Path(__file__).with_name("timeline_rho4.png").write_bytes(png)
