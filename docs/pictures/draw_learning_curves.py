"""Draws the learning curves of several runs in one picture, by epoch and by training time.

Run from the repository's root:
``python -m docs.pictures.draw_learning_curves OUT.png NAME=runs/FOLDER ... --title TEXT``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dbf_ray.reports.curves import learning_curves, learning_png
from dbf_ray.tracking import read_epochs, read_summary

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--title", default="Learning curves")
    options = parser.parse_args()
    folders = {name: Path(folder) for name, folder in (run.split("=", 1) for run in options.runs)}
    stages = {name: (read_summary(folder) or {}).get("num_stages", 4) for name, folder in folders.items()}
    curves = learning_curves({name: read_epochs(folder) for name, folder in folders.items()}, stages)
    options.out.write_bytes(learning_png(curves, options.title))
