"""Whether two commits train the same: a refactoring must not change what trainings compute.

Four tiny configurations are trained at both commits, and the losses of every epoch and the final weights
compared by their bits. Each training is `python -m jobs.train` in an extracted copy of the commit, on a CPU
with one thread for each rank, with the interpreter and libraries of this process. A commit is given as git
knows it; "." is this checkout as it is, with what is not committed. Runs of a commit are kept in
.cache/loss_compare, those of "." are not; "." against "." says whether trainings here repeat themselves at
all.

With step(2) alone a frozen span is one epoch, in which no image comes twice, so the configurations with a
feature cache hold each decision for longer: Oriented R-CNN for two epochs, of which the second is served from
the cache, RetinaNet for six of four steps an epoch, so that a span begins within an epoch and steps in the
next mix images that are known with others that are not. So short trainings find no object yet: map50 is 0,
and evaluation is run but hardly compared.

The exit status is 1 if anything differs.

python -m benchmarks.loss_compare main HEAD
python -m benchmarks.loss_compare HEAD . --only retinanet gradnorm --json
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.errors import ConfigError, TrainingError
from dbf_ray.run.summary import machine, versions
from dbf_ray.tracking import read_epochs, read_summary

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".cache" / "loss_compare"
SMALL = {
    **{"data.name": "synthetic", "data.train_images": "16", "data.val_images": "8", "data.image_size": "64"},
    **{
        "detector.backbone": "mobilenet_v2",
        "detector.fpn_channels": "16",
        "detector.head_convs": "1",
        "training.epochs": "4",
    },
    **{
        "training.batch_size": "4",
        "training.lr": "1e-3",
        "training.warmup_steps": "4",
        "training.milestones": "[3]",
    },
    **{"training.threads": "1", "training.device": "cpu", "evaluation.every": "4"},
    **{"training.keep_checkpoints": "1", "tracking.mlflow": "false"},
}
STEP = {**SMALL, "freezing.policy": "step", "freezing.rho": "2"}
CACHED = {**STEP, "freezing.cache": "ram", "data.pad_to": "square", "data.orientation_per": "span"}
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "retinanet": {
        **{**CACHED, "detector.name": "rotated_retinanet", "data.flips": "[horizontal]"},
        **{"freezing.interval.unit": "steps", "freezing.interval.every": "6"},
    },
    "oriented_rcnn": {**CACHED, "detector.name": "oriented_rcnn", "freezing.interval.every": "2"},
    "gradnorm": {
        **{**SMALL, "detector.name": "rotated_fcos", "freezing.policy": "gradnorm"},
        **{"freezing.percentile": "75", "freezing.window": "1", "freezing.recheck": "2"},
    },
    "two_ranks": {**STEP, "detector.name": "rotated_retinanet", "cluster.workers": "2"},
}
# A key as it is called now: how it was called before, and values that had another name.
RENAMED: dict[str, tuple[str, dict[str, str]]] = {
    "data.pad_to": ("data.canvas", {}),
    "data.orientation_per": ("data.view_per", {"span": "stretch"}),
}
FIGURES = ("loss", "gradient_norm", "map50")  # of an epoch, beside its losses


def command(arguments: Sequence[str] | None = None) -> Row:
    """Train what is not known at two commits, and print what differs."""
    parser = make_parser("python -m benchmarks.loss_compare", __doc__ or "")
    parser.add_argument("base", metavar="BASE", help="commit to compare with")
    parser.add_argument("head", metavar="HEAD", help='commit that is compared, "." for the files as they are')
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(CONFIGURATIONS),
        choices=list(CONFIGURATIONS),
        help="configurations (default: all)",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the runs to DIR/base and DIR/head")
    options, _ = parse(parser, arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="loss_compare-") as scratch:
        commits = {
            side: (revision, commit_of(revision))
            for side, revision in (("base", options.base), ("head", options.head))
        }
        runs = {
            side: train_at(*commit, options.only, Path(scratch) / side) for side, commit in commits.items()
        }
        for name in options.only:
            pair = [folder / name for folder in runs.values()]
            hits = [sum(record.get("cache_hits") or 0 for record in read_epochs(run)) for run in pair]
            rows.append({"configuration": name, "differences": differences(*pair), "cache_hits": hits})
            print(
                f"{name:14} {'; '.join(rows[-1]['differences']) or 'same bits'}"
                + f"  (cache hits {hits[0]}, {hits[1]})" * any(hits)
            )
        for side, folder in runs.items() if options.keep else ():
            for name in options.only:
                shutil.copytree(folder / name, options.keep / side / name, dirs_exist_ok=True)
    result = {
        "base": options.base,
        "head": options.head,
        "rows": rows,
        "same": not any(row["differences"] for row in rows),
    }
    if options.json:
        print_json({**result, "machine": machine(), "versions": versions()})
    return result


def train_at(revision: str, commit: str | None, names: Sequence[str], scratch: Path) -> Path:
    """The folder of a commit's runs, each in a folder of its configuration's name; those that are not known
    are trained.

    Raises:
        TrainingError: it cannot be trained.
    """
    depends = json.dumps([CONFIGURATIONS, versions(), machine()])  # what bits depend on beside the commit
    runs = (
        scratch / "runs"
        if commit is None
        else KEPT / f"{commit}-{hashlib.sha256(depends.encode()).hexdigest()[:12]}"
    )
    missing = [name for name in names if read_summary(runs / name) is None]
    if not missing:
        return runs
    code = ROOT if commit is None else extract(commit, scratch / "code")
    imported = Path(python(code, "-c", "import dbf_ray; print(dbf_ray.__file__)").strip())
    print(
        f"{revision}: {commit or 'files as they are'}, imported from {imported}", file=sys.stderr, flush=True
    )
    if code not in imported.parents:
        raise TrainingError(
            f"the code of {revision} must be what runs, but {imported} is not within {code}; is dbf_ray "
            "there?"
        )
    known = re.findall(r"^ +--([\w.]+)", python(code, "-m", "jobs.train", "--help"), re.MULTILINE)
    for name in missing:
        shutil.rmtree(runs / name, ignore_errors=True)  # of a training that was stopped
        settings = spelled({"runs_dir": str(runs), "name": name, **CONFIGURATIONS[name]}, known)
        begun = time.perf_counter()
        python(
            code,
            "-m",
            "jobs.train",
            "--json",
            *(part for key, value in settings.items() for part in (f"--{key}", value)),
        )
        # without the optimizer's state, which takes more room
        torch.save({"model": weights(runs / name)}, checkpoint(runs / name))
        print(
            f"{revision}: {name} trained in {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True
        )
    return runs


def commit_of(revision: str) -> str | None:
    """The hash of a commit; None for "."

    Raises:
        ConfigError: there is no such commit.
    """
    if revision == ".":
        return None
    command = [
        "git",
        "-C",
        str(ROOT),
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ConfigError(
            f'a commit must be one that git knows in {ROOT}, got {revision!r}; see git log, or give "." for '
            f"the files as they are"
        )
    return found.stdout.strip()


def extract(commit: str, folder: Path) -> Path:
    """A commit's files, in ``folder``."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", commit], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder.resolve()


def python(code: Path, *arguments: str) -> str:
    """What Python prints, with the packages in ``code`` before installed ones, in this process, in Ray's
    workers and wherever else.

    Raises:
        TrainingError: it fails.
    """
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "PYTHONPATH": str(code)
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=code, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise TrainingError(
            f"python {' '.join(arguments)} ended with status {done.returncode} in {code}; it said: {last}"
        )
    return done.stdout


def spelled(settings: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Settings as a commit calls them, which knows the keys ``known`` (and those that no help lists:
    parameters of policies).
    """
    result = {}
    for key, value in settings.items():
        if key in RENAMED and key not in known:
            key, values = RENAMED[key]
            value = values.get(value, value)
        result[key] = value
    return result


def differences(base: Path, head: Path) -> list[str]:
    """What differs between two runs: the first figure of an epoch that does, and the first weight; nothing if
    all have the same bits.
    """
    return [
        found
        for found in (of_figures(figures(base), figures(head)), of_weights(weights(base), weights(head)))
        if found
    ]


def figures(run: Path) -> dict[tuple[int, str], Any]:
    """What is compared of epochs, by epoch and name, an epoch's losses first."""
    named = {
        record["epoch"]: {**record["losses"], **{name: record.get(name) for name in FIGURES}}
        for record in read_epochs(run)
    }
    return {(epoch, name): value for epoch, values in named.items() for name, value in values.items()}


def checkpoint(run: Path) -> Path:
    """The file of a run's last checkpoint, of any version: what is whole each tells in its own way."""
    return max((run / "checkpoints").glob("epoch-*")) / "checkpoint.pt"


def weights(run: Path) -> dict[str, Tensor]:
    """Weights and buffers at the end of a run."""
    model: dict[str, Tensor] = torch.load(checkpoint(run), map_location="cpu", weights_only=True)["model"]
    return model


def of_figures(base: Mapping[tuple[int, str], Any], head: Mapping[tuple[int, str], Any]) -> str | None:
    """The first figure that differs; all digits of a number are written, so that different ones are written
    differently.
    """
    for key in sorted({**base, **head}, key=lambda key: key[0]):
        was, now = (repr(side[key]) if key in side else "missing" for side in (base, head))
        if was != now:
            return f"epoch {key[0]}: {key[1]} was {was}, is {now}"
    return None


def of_weights(base: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> str | None:
    """The first weight that differs, by how much, and how many do."""
    names = list({**base, **head})
    off = [name for name in names if not same_bits(base.get(name), head.get(name))]
    if not off:
        return None
    was, now = base.get(off[0]), head.get(off[0])
    how = f"was {kind(was)}, is {kind(now)}"
    if was is not None and now is not None and kind(was) == kind(now):
        how = f"differs by up to {(was.double() - now.double()).abs().max():.3g}"
    return f"weight {off[0]} {how} ({len(off)} of {len(names)} differ)"


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors have the same bits, so that NaN equals itself and 0 not -0."""
    if one is None or other is None or kind(one) != kind(other):
        return False
    return torch.equal(
        one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )


def kind(tensor: Tensor | None) -> str:
    """Type and shape."""
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def check(arguments: Sequence[str] | None = None) -> Row:
    """As :func:`command`, with exit status 1 where something differs."""
    result = command(arguments)
    if not result["same"]:
        raise SystemExit(1)
    return result


if __name__ == "__main__":
    sys.exit(run_command(check))
