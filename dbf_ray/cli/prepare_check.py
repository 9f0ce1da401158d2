"""``dbf prepare-data check``: everything that is wrong with a data set, what it consists of, and
samples to look at.
"""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dbf_ray.cli import prepare_coverage
from dbf_ray.cli.columns import in_columns
from dbf_ray.cli.options import class_option
from dbf_ray.data import CLASS_LISTS
from dbf_ray.data.check import KINDS, Report, Sample, check_dataset, choose_samples, is_only_told
from dbf_ray.data.readers import find_reader, recognise
from dbf_ray.errors import ConfigError
from dbf_ray.files import write_text
from dbf_ray.machine import usable_cpus
from dbf_ray.member_help import member_help
from dbf_ray.progress import Counter
from dbf_ray.values import plain_text

ABOUT = """Find everything that is wrong with a data set before a training does.

All images are decoded and all labels read, whatever is broken among them: files that miss their twin,
lines that cannot be read, unknown classes, polygons without area, objects off the image or labelled
twice, images that cannot be decoded, and images of one split that another shows too, also encoded again,
resized, brightened, cropped a little, mirrored or turned. Each problem is printed with its file and line."""
EPILOG = f"""classes: without --classes those that the data or their format declare are the ones allowed.
Where none are declared, a rare name is taken for a slip if it is close to a frequent one, or not in the
public list that most objects are of. Public lists:
{", ".join(CLASS_LISTS)}.

examples:
  dbf prepare-data check DOTA
  dbf prepare-data check DIOR-R --format dior --report check --classes dior-r

{prepare_coverage.EPILOG}

--report leaves report.json, problems.txt, statistics.png, samples.png, and index.html that shows them
all. Exit status: 0 no errors (there may be warnings), 1 errors, 2 the check cannot be done."""
MOST_PRINTED = 20  # problems of a kind
CELL = 560  # pixels: longer side of a drawn sample
MOST_NAMED = 12  # objects in a sample, each with its name
COLUMNS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the check."""
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data")
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"of the data{member_help('format')} (default: found out)"
    )
    parser.add_argument(
        "--classes", metavar="A,B|LIST", help="all class names, or the name of a public list (dota-v1.0)"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write the report, pictures and all problems into this folder",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=12,
        metavar="N",
        help="images to draw with their labels (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes (default: one for each CPU; 0: none, one that crashes ends the check)",
    )
    prepare_coverage.add_arguments(parser)


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Check, print what was found, and write the report.

    Raises:
        DataError: there is no data set that could be checked.
    """
    workers = usable_cpus() if options.workers is None else options.workers
    if workers < 0 or options.samples < 0:
        raise ConfigError(
            f"--workers and --samples must be >= 0, got {workers} and {options.samples}; correct them"
        )
    settings = prepare_coverage.settings(options)
    name = options.format or recognise(options.root)
    if options.report is not None:
        options.report.mkdir(parents=True, exist_ok=True)
    report = check_dataset(
        options.root, find_reader(name), class_option(options.classes), workers, _progress()
    )
    matched = None if settings is None else prepare_coverage.look(settings, options.root, name, report.notes)
    result: dict[str, Any] = {"root": str(options.root), "format": name} | report.as_dict()
    print("\n".join([*problem_lines(result["problems"]), *table_lines(result["statistics"])]))
    if settings is not None:
        result["coverage"] = None if matched is None else matched.as_dict()
    if matched is not None:
        print("\n".join(["", *prepare_coverage.lines(matched), ""]))
    for note in report.notes:
        print(f"note: {note}")
    if taken := sorted({one.kind for one in report.problems if is_only_told(one.kind)}):
        print(f"note: a training refuses errors, but not {', '.join(taken)}: these are for you to judge")
    if options.report is not None:
        coverage = "" if matched is None else prepare_coverage.section(matched)
        write_report(options.report, report, result, options.samples, coverage)
        print(f"report in {options.report / 'index.html'}")
    print(summary(result))
    return result


def _progress() -> Any:
    counters: list[Counter] = []

    def show(done: int, total: int) -> None:
        if not counters:
            counters.append(Counter(total, "images"))
        counters[0].add(done - counters[0].done)

    return show


def problem_lines(problems: Sequence[Mapping[str, Any]], most: int | None = MOST_PRINTED) -> list[str]:
    """Problems by kind, errors first, each with its place; of a kind at most so many."""
    kinds: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for problem in problems:
        kinds[problem["kind"]].append(problem)
    lines = []
    for kind, found in sorted(kinds.items(), key=lambda pair: (pair[1][0]["severity"], pair[0])):
        meaning = KINDS[kind].meaning if kind in KINDS else ""
        lines.append(f"{kind} ({found[0]['severity']}, {len(found)}): {meaning}".rstrip(": "))
        for problem in found[:most]:
            line = "" if problem["line"] is None else f", line {problem['line']}"
            lines.append(f"  {problem['file']}{line}: {problem['message']}")
        if most is not None and len(found) > most:
            lines.append(f"  and {len(found) - most} more; --report DIR lists all")
        lines.append("")
    return lines


def table_lines(statistics: Mapping[str, Any]) -> list[str]:
    """Splits, classes and sizes as tables."""
    columns = ("images", "images_without_objects", "objects", "difficult")
    lines = in_columns(
        ["split", "images", "without objects", "objects", "difficult"],
        [[name, *(str(row[key]) for key in columns)] for name, row in statistics["splits"].items()],
    )
    classes = statistics["classes"]
    rows = [
        [name, str(row["objects"]), str(row["images"]), str(row["difficult"])]
        for name, row in list(classes.items())[:MOST_PRINTED]
    ]
    lines += ["", *in_columns(["class", "objects", "images", "difficult"], rows)] if rows else []
    if len(classes) > MOST_PRINTED:
        lines.append(f"and {len(classes) - MOST_PRINTED} more classes")
    measures = {
        "size": "sqrt(area), px",
        "long_side": "long side, px",
        "short_side": "short side, px",
        "aspect_ratio": "aspect ratio",
    }
    measures |= {"angle": "angle, degrees", "objects_per_image": "objects an image"}
    shares = {"0": "least", "0.05": "5 %", "0.5": "median", "0.95": "95 %", "1": "most"}
    if rows:
        body = [
            [label, *(f"{statistics[key]['quantiles'][share]:.4g}" for share in shares)]
            for key, label in measures.items()
        ]
        lines += ["", *in_columns(["", *shares.values()], body), ""]
        lines.append(f"{statistics['past_border']['objects']} objects reach past the border of their image")
    return lines


def summary(result: Mapping[str, Any]) -> str:
    """The last line: how much is wrong, and with how much."""
    from dbf_ray.reports.data_page import summary

    return f"{summary(result)} (format {result['format']})"


def write_report(
    folder: Path, report: Report, result: Mapping[str, Any], samples: int, coverage: str = ""
) -> None:
    """Write report.json, problems.txt, statistics.png, samples.png and index.html; samples.png only if
    something can be drawn. ``coverage`` is that part of the page.
    """
    from dbf_ray.reports.data_page import data_page
    from dbf_ray.reports.data_statistics import statistics_png

    write_text(folder / "report.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_text(folder / "problems.txt", "\n".join(problem_lines(result["problems"], None)))
    picture = statistics_png(result["statistics"], plain_text(Path(result["root"]).resolve().name))
    (folder / "statistics.png").write_bytes(picture)
    drawn = draw_samples(report, samples)
    (folder / "samples.png").unlink(missing_ok=True)
    if drawn is not None:
        drawn.save(folder / "samples.png")
    png = None if drawn is None else (folder / "samples.png").read_bytes()
    page = data_page(result, {name: kind.meaning for name, kind in KINDS.items()}, picture, png, coverage)
    write_text(folder / "index.html", page)


def draw_samples(report: Report, count: int) -> Image.Image | None:
    """Images with their labels in the colours of the classes, None where there is nothing to draw."""
    from dbf_ray.reports.scenes import scene_grid

    samples = choose_samples(report.records, count)
    classes = sorted({name for record in report.records for name in record.objects.names})
    titles = [
        plain_text(sample.record.item.shown)
        + (f", from ({sample.window[0]}, {sample.window[1]})" if sample.is_part else "")
        for sample in samples
    ]
    return scene_grid([_drawn(sample, classes) for sample in samples], COLUMNS, titles) if samples else None


def _drawn(sample: Sample, classes: Sequence[str]) -> Image.Image:
    """One sample; where many objects are, only the largest of each class has its name beside it, or names
    would hide the others.
    """
    from dbf_ray.reports.scenes import draw_scene, outlines

    pixels, objects = sample.read(), sample.record.objects
    scale = CELL / max(pixels.shape[:2])
    labels = np.array([classes.index(name) for name in objects.names])
    corners = sample.corners()
    centers = corners.reshape(-1, 4, 2).mean(1)
    shown = ((centers >= 0) & (centers < pixels.shape[1::-1])).all(1)
    named = shown
    if shown.sum() > MOST_NAMED:
        areas = objects.boxes[:, 2] * objects.boxes[:, 3] * shown
        named = np.isin(
            np.arange(len(labels)),
            [np.argmax(areas * (labels == label)) for label in np.unique(labels[shown])],
        )
    picture = draw_scene(pixels, outlines(corners[shown], labels[shown]), scale=scale, captions=False)
    return draw_scene(np.asarray(picture), outlines(corners[named] * scale, labels[named]), classes=classes)
