"""Detect objects in images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.predict import FORMATS, Options, predict
from dbf_ray.remote import at_hand

ABOUT = """Detect objects in an image, or in all images of a folder and its sub-folders, of any size.

Windows slide over an image; each is resized to what the network was trained on (data.image_size), and
what is found in several windows is kept once. GeoTIFF files are read window by window, other files are
decoded as a whole. The folder --out gets, for each image:
  labels/NAME.txt       x1 y1 x2 y2 x3 y3 x4 y4 class score (pixels)                         format dota
  geojson/NAME.geojson  polygons; longitude and latitude where the image is georeferenced,
                        else pixels, y down                                                  format geojson
  overlays/NAME.jpg     the image, made smaller, with what was found                         format overlay
and for all together Task1/Task1_CLASS.txt and Task1/submission.zip, as DOTA's server and dbf prepare-data
merge take them (format dota)."""
EPILOG = """examples:
  dbf predict --checkpoint runs/NAME/checkpoints/epoch-00012 --images DIR --out predictions
  objects that are twice as large in these images as in those of the training; confident detections only:
    dbf predict --checkpoint ... --images scene.tif --out predictions --window 2048 --score 0.3 \\
        --formats geojson,overlay

The same command resumes after an interruption, within an image too, and takes new images of the folder.
An image that cannot be read is named, the others are done, and the exit status is 1."""

TRACKING = (
    ("mlflow", "true|false", "log this prediction to MLflow (default: as the checkpoint's training)"),
    ("uri", "TEXT", "MLflow tracking URI (default: as the checkpoint's training)"),
    ("experiment", "TEXT", "MLflow experiment (default: as the checkpoint's training)"),
)


def main(arguments: Sequence[str] | None = None, prog: str = "dbf predict") -> int:
    """Run the command and return its exit status: 1 where images could not be read."""
    results: list[dict[str, Any]] = []
    status = run_command(lambda given: results.append(command(given, prog)), arguments)
    return status or int(bool(results[0]["failed"]))


def command(arguments: Sequence[str] | None = None, prog: str = "dbf predict") -> dict[str, Any]:
    """Detect, and say what was found."""
    parser = make_parser(prog, ABOUT, EPILOG)
    parser.usage = (
        "%(prog)s --checkpoint DIR --images DIR --out DIR [--window PIXELS] [--score S] [--json] "
        "[--OPTION VALUE ...]"
    )
    default = Options()
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a folder like runs/NAME/checkpoints/epoch-00012, or the URI of one in a storage (s3://...)",
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="a folder of images, or an image"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="a new folder, or one in which the same prediction was begun",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="PIXELS",
        help="side of a window; smaller ones enlarge what the network sees (default: the long side of the "
        "images it was trained on)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="PIXELS",
        help="what neighbouring windows share (default: 200/1024 of a window)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="windows at once (default: the checkpoint's evaluation.batch_size)",
    )
    parser.add_argument(
        "--score",
        type=float,
        metavar="S",
        help="drop detections up to this score (default: the detector's score_threshold)",
    )
    parser.add_argument(
        "--nms",
        type=float,
        default=default.nms,
        metavar="IOU",
        help="of two detections of a class that overlap by this much, found in an image of several windows, "
        "keep the better (default: %(default)s)",
    )
    parser.add_argument(
        "--formats", default=",".join(FORMATS), metavar="A,B", help="what to write (default: %(default)s)"
    )
    parser.add_argument(
        "--overlay-size",
        type=int,
        default=default.overlay_size,
        metavar="PIXELS",
        help="long side of an overlay (default: %(default)s)",
    )
    parser.add_argument(
        "--overlay-score",
        type=float,
        default=default.overlay_score,
        metavar="S",
        help="draw from this score on (default: %(default)s)",
    )
    for key, metavar, words in TRACKING:
        parser.add_argument(f"--tracking.{key}", metavar=metavar, help=words)
    options, tracking = parse(parser, arguments)
    asked = Options(
        window=options.window,
        overlap=options.overlap,
        batch=options.batch,
        score=options.score,
        nms=options.nms,
        formats=tuple(name.strip() for name in options.formats.split(",")),
        overlay_size=options.overlay_size,
        overlay_score=options.overlay_score,
    )
    result = predict(at_hand(options.checkpoint), options.images, options.out, asked, tracking=tracking)
    print(report(result))
    if options.json:
        print_json(result)
    return result


def report(result: dict[str, Any]) -> str:
    """What a finished prediction says."""
    before = f", {result['skipped']} of them done before" if result["skipped"] else ""
    failed = f", {len(result['failed'])} could not be read" if result["failed"] else ""
    return (
        f"{result['images']} images{before}{failed}; {result['detections']:,} detections; "
        f"{result['windows']} windows in {result['seconds']:.1f} s, {result['windows_per_second']:.1f}/s. "
        f"They are in {result['out']}"
    )
