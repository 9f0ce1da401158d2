"""``dbf prepare-data merge``: detections of patches brought back to the images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import metric_lines
from dbf_ray.evaluation.merge import NMS_THRESHOLD
from dbf_ray.member_help import member_help
from dbf_ray.merge import counts_of, judge, merge_files

ABOUT = """Bring detections of patches back to the images these were cut from, and make the archive that
DOTA's evaluation server takes.

DETECTIONS is a folder (or zip) of DOTA Task 1 files, Task1_CLASS.txt with lines: patch score x1 y1 ... x4
y4, as dbf predict, MMRotate and the DOTA devkit write them; patches are named IMAGE__SIZE__X___Y. In
overlaps the best of several detections of an object is kept, by rotated suppression within each class.
OUT gets the same files by image, and submission.zip."""
EPILOG = """examples:
  dbf prepare-data merge predictions/Task1 merged
  and how good they are on the uncut images:
    dbf prepare-data merge predictions/Task1 merged --labels DOTA --split val"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the merge."""
    parser.add_argument(
        "detections", type=Path, metavar="DETECTIONS", help="folder or zip of Task1_CLASS.txt"
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder for the merged files and submission.zip"
    )
    parser.add_argument(
        "--nms",
        type=float,
        default=NMS_THRESHOLD,
        metavar="IOU",
        help="from this IoU on, two are one object (default: %(default)s)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="ROOT",
        help="data of the uncut images: print merged/map50 and the other metrics",
    )
    parser.add_argument("--split", default="val", metavar="SPLIT", help="of ROOT (default: %(default)s)")
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"format of ROOT{member_help('format')} (default: found out)"
    )


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Merge, judge if asked, and say what was done."""
    merged = merge_files(options.detections, options.out, nms_threshold=options.nms)
    counts = counts_of(merged)
    print(
        f"{counts['detections_of_patches']} detections of {counts['patches']} patches are "
        f"{counts['detections']} of {counts['images']} images. They are in {options.out}, with submission.zip"
    )
    result: dict[str, Any] = {**counts, "classes": merged.classes, "out": str(options.out)}
    if options.labels is not None:
        judged = judge(merged, options.labels, options.split, options.format)
        if judged.only_labels:
            print(
                f"note: {judged.only_labels} images with labels have no detections, {judged.both} have",
                file=sys.stderr,
            )
        if judged.only_detections:
            first = judged.only_detections[0]
            print(
                f"note: {len(judged.only_detections)} images with detections have no labels and do not "
                f"count, the first is {first}",
                file=sys.stderr,
            )
        if judged.nothing_counts is not None:
            print(
                f"warning: merged/map50 is none, since in {options.labels} ({options.split}) "
                f"{judged.nothing_counts}",
                file=sys.stderr,
            )
        print(metric_lines(judged.metrics, 24))
        result |= judged.metrics
    return result
