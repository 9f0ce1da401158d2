"""``dbf prepare-data split``: images cut into patches."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import class_option
from dbf_ray.data.patches.cut_folder import cut_folder
from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, SplitTask, cut_all
from dbf_ray.data.patches.split import split_work
from dbf_ray.data.readers import find_reader, recognise
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.machine import usable_cpus
from dbf_ray.member_help import member_help

ABOUT = """Cut the images of a data set into patches, as detectors of aerial images are trained on, with
the objects of each.

Windows, and which objects belong to them, follow MMRotate's splitter: neighbours overlap; an object is
labelled where at least 70 % of its area is inside; one that is cut is marked difficult (2), so that
evaluation ignores it. What is left of it is what is labelled (--keep-whole: all of it).

OUT is in DOTA's format whatever ROOT is in: OUT/SPLIT/images and labelTxt, and originals with the labels
of the uncut images, by which merged detections are judged. Started again after a kill, it resumes where
it was."""
EPILOG = """examples:
  dbf prepare-data split DOTA patches --size 1024 --overlap 200
  at three scales, over a Ray cluster (or all cores of this machine) whose nodes see the same folders:
    dbf prepare-data split DOTA patches --size 1024 --overlap 500 --rates 0.5 1.0 1.5 --ray
  then: dbf train --data.name dota --data.root patches --data.image_size 1024"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the split."""
    default = SplitSettings()
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="new folder for the patches, or one that a split was ended in"
    )
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"format of ROOT{member_help('format')} (default: found out)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=default.size,
        metavar="PIXELS",
        help="side of a patch (default: %(default)s)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=default.overlap,
        metavar="PIXELS",
        help="what neighbours share (default: %(default)s)",
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=list(default.rates),
        metavar="RATE",
        help="also cut windows of size/RATE and overlap/RATE pixels: the same objects, RATE times as large "
        "once patches are resized (default: 1.0)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=default.share,
        metavar="SHARE",
        help="an object is labelled where this share of its area is inside (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-whole", action="store_true", help="label all of an object that is cut, as MMRotate does"
    )
    parser.add_argument(
        "--no-padding", action="store_true", help="patches of images smaller than a window end with the image"
    )
    parser.add_argument(
        "--classes",
        metavar="A,B|LIST",
        help="refuse other classes than these, or than those of a public list (dota-v1.0)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one for each CPU; 0: none, cut in this one)",
    )
    parser.add_argument("--ray", action="store_true", help="spread the work over a cluster by Ray Data")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of the Ray cluster (default: RAY_ADDRESS, or a local Ray)"
    )


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Cut, and say what was done.

    Raises:
        DataError: an image could not be cut; all others are.
    """
    if options.workers is not None and options.workers < 0:
        raise ConfigError(f"--workers must be >= 0, got {options.workers}; correct it")
    reader = find_reader(options.format or recognise(options.root))
    settings = SplitSettings(
        options.size,
        options.overlap,
        tuple(options.rates),
        options.share,
        clip=not options.keep_whole,
        padding=None if options.no_padding else SplitSettings.padding,
    )
    classes = class_option(options.classes)
    if options.ray:
        from dbf_ray.cluster.reach import require_ray

        require_ray(options.address, "--address")
    work = split_work(reader, options.root, options.out, settings, classes)
    with _ray(options):
        cut = cut_folder(
            work,
            options.root,
            options.out,
            settings,
            classes,
            run=lambda tasks: _run(options, tasks),
            say=_say,
        )
    counts = cut.counts
    speed = counts.written / max(cut.seconds, 1e-9)
    print(
        f"{counts.written} patches written, {counts.kept} found done; {counts.objects} objects, {counts.cut} "
        f"of them cut; {cut.seconds:.1f} s, {speed:.1f} patches/s. They are in {options.out}"
    )
    result = {
        **dataclasses.asdict(counts),
        "objects_in_no_patch": len(work.lost),
        "seconds": cut.seconds,
        "patches_per_second": speed,
    }
    return {**result, "out": str(options.out)}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _ray(options: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """Ray where it is wanted, before anything is written."""
    if not options.ray:
        return contextlib.nullcontext()
    from dbf_ray.cluster import connected_ray

    return connected_ray(options.address, option="--address")


def _run(options: argparse.Namespace, tasks: list[SplitTask]) -> Iterator[SplitCounts | DataError]:
    if not options.ray:
        return cut_all(tasks, usable_cpus() if options.workers is None else options.workers)
    from dbf_ray.cluster.split import split_on_ray

    here = [
        dataclasses.replace(task, image=task.image.absolute(), folder=task.folder.absolute())
        for task in tasks
    ]
    return split_on_ray(here, options.address)
