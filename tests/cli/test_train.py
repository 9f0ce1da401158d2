"""``dbf train``: what it prints and leaves, and how it refuses bad input before any work
starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from dbf_ray.cli import timeline, train
from dbf_ray.cli.options import run_command
from dbf_ray.cluster.ray_runtime import Resources

Refused = Callable[..., str]


def test_a_run_prints_one_json_object_on_the_last_line(trained: tuple[Path, list[str], str]) -> None:
    folder, _, printed = trained
    assert json.loads(printed.splitlines()[-1]) == json.loads((folder / "summary.json").read_text())
    assert {file.name for file in folder.iterdir()} >= {
        "config.yaml",
        "epochs.jsonl",
        "summary.json",
        "checkpoints",
    }


def test_a_finished_run_is_not_trained_again(trained: tuple[Path, list[str], str], refused: Refused) -> None:
    _, arguments, _ = trained
    line = refused(train.command, arguments)
    for words in ("'5'", "is finished", "another --name"):
        assert words in line


def test_an_image_without_objects_is_legal(tiny: list[str], root: Path) -> None:
    (root / "train" / "labelTxt" / "000.txt").write_text("")
    assert run_command(train.command, tiny) == 0


def test_a_dry_run_shows_timeline_and_cost_and_leaves_nothing(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *tiny,
        "--freezing.policy",
        "step",
        "--freezing.rho=3",
        "--training.epochs",
        "7",
        "--dry-run",
        "--json",
    ]
    assert run_command(train.command, arguments) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["frozen_prefixes"] == [0, 4, 4, 0, 4, 4, 0]
    assert printed.count("#..#..#") == 4
    assert f"budget 3 of 7 epochs, compute_ratio {result['compute_ratio']:.10g} " in printed
    flops = result["flops_per_prefix"]
    assert result["compute_ratio"] == pytest.approx((3 * flops[0] + 4 * flops[4]) / (7 * flops[0]))
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_shows_what_a_prefix_costs_and_the_analytic_ceiling(
    tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *tiny,
        "--freezing.policy",
        "gradual_unfreeze",
        "--freezing.every",
        "2",
        "--training.epochs",
        "8",
        "--dry-run",
        "--json",
    ]
    assert run_command(train.command, arguments) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("stage ")] == [
        "########",
        "..######",
        "....####",
        "......##",
    ]
    for n in range(5):
        forward, backward = (result[f"{kind}_flops_per_prefix"][n] for kind in ("forward", "backward"))
        assert forward + backward == result["flops_per_prefix"][n]
        ratio = result["flops_per_prefix"][n] / result["flops_per_prefix"][0]
        assert re.search(rf"^ +{n} +{forward / 1e9:.3f} +{backward / 1e9:.3f} +{ratio:.4f}$", printed, re.M)
    assert f"(if backward were 2 x forward everywhere: {result['analytic_ratio']:.4f})" in printed
    ceiling = 1 - 2 * result["backbone_share"] / 3
    assert f"(analytic {ceiling:.4f}: a speed-up of at most {1 / ceiling:.2f} by FLOPs)" in printed


def test_a_dry_run_of_blocks_of_factors_and_of_what_nobody_knows(
    tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*options: str) -> str:
        assert run_command(train.command, [*tiny, "--dry-run", *options]) == 0
        return capsys.readouterr().out

    blocks = ["--freezing.interval.unit", "steps", "--freezing.interval.every", "1", "--training.epochs"]
    few = shown("--freezing.policy", "step", "--freezing.rho", "2", *blocks, "3")
    count = int(re.search(r"of (\d+) blocks of 1 optimizer steps", few)[1])  # type: ignore[index]
    assert "#." * (count // 2) in few
    many = shown("--freezing.policy", "step", "--freezing.rho", "2", *blocks, str(3 * 130))
    columns = [line.split()[2] for line in many.splitlines() if line.startswith("stage ")]
    assert all(len(line) <= timeline.COLUMNS and set(line) <= set("+#.") and "+" in line for line in columns)
    assert "+ both" in many
    assert "learning rate of stages 1..4 times 0.125, 0.25, 0.5, 1" in shown(
        "--freezing.policy", "layer_decay", "--freezing.xi", "0.5"
    )
    adaptive = shown(
        "--freezing.policy", "plateau", "--freezing.patience", "2", "--freezing.min_delta", "0.01"
    )
    assert "decides while training" in adaptive
    assert "lowest possible compute_ratio" in adaptive


BAD_OPTIONS = {
    "a budget that nobody can keep": (
        ["--freezing.policy", "budget", "--freezing.limit", "0.01", "--freezing.inner.name", "full"],
        ["limit must be >= 0.", "never trained", "got 0.01"],
    ),
    "more random epochs than there are": (
        ["--freezing.policy", "random_budget", "--freezing.budget", "99"],
        ["at most", "got 99"],
    ),
    "an interval of nothing": (
        ["--freezing.interval.every", "0"],
        ["freezing.interval.every", "greater than or equal to 1", "got 0"],
    ),
    "an average that stands still": (["--training.ema", "1"], ["training.ema", "less than 1", "got 1"]),
    "a rule's parameter that is no list": (
        ["--freezing.policy", "epochs", "--freezing.epochs", "3"],
        ["must be a list", "got 3"],
    ),
    "unknown option": (["--trainin.epochs", "3"], ["--trainin.epochs", "did you mean --training.epochs?"]),
    "unknown option, nothing near": (["--zzz", "3"], ["unknown option --zzz", "--help"]),
    "stray word": (["hello"], ["hello", "--help"]),
    "option without a value": (["--training.epochs"], ["--training.epochs", "expected one argument"]),
    "member's option without a value": (["--freezing.rho"], ["--freezing.rho", "needs a value"]),
    "missing configuration file": (
        ["--config", "nowhere.yaml"],
        ["nowhere.yaml does not exist", "give an existing", "demo, hrsc_mobilenet_v2"],
    ),
    "value out of range": (
        ["--training.epochs", "0"],
        ["training.epochs", "greater than or equal to 1", "got 0"],
    ),
    "not a number": (["--training.lr", "fast"], ["training.lr", "number", "got 'fast'"]),
    "not a choice": (
        ["--training.schedule", "triangle"],
        ["training.schedule", "'cosine'", "got 'triangle'"],
    ),
    "neither of two types": (
        ["--detector.norm_eval", "maybe"],
        ["detector.norm_eval: ", "boolean", "or", "'sync'", "got 'maybe'"],
    ),
    "not a list": (["--training.milestones", "3"], ["training.milestones", "written [a, b]", "got 3"]),
    "milestones that fall": (
        ["--training.milestones", "[3, 2]"],
        ["training.milestones", "increasing", "got [3, 2]"],
    ),
    "batch that cannot be shared": (["--training.accumulation", "3"], ["divisible", "1 x 3", "got 4"]),
    "name that is a path": (["--name", "../elsewhere"], ["name", "without slashes", "got '../elsewhere'"]),
    "rho 0": (["--freezing.policy", "step", "--freezing.rho", "0"], ["rho must be an integer >= 1", "got 0"]),
    "negative rho": (
        ["--freezing.policy", "step", "--freezing.rho", "-3"],
        ["rho must be an integer >= 1", "got -3"],
    ),
    "broken rho": (
        ["--freezing.policy", "step", "--freezing.rho", "2.5"],
        ["rho must be an integer >= 1", "got 2.5"],
    ),
    "rho in words": (
        ["--freezing.policy", "step", "--freezing.rho", "two"],
        ["rho must be an integer >= 1", "got 'two'"],
    ),
    "no rho": (["--freezing.policy", "step"], ["policy step needs rho"]),
    "rho without step": (["--freezing.rho", "3"], ["policy full does not know rho=3"]),
    "unknown policy": (["--freezing.policy", "stpe"], ["'stpe'", "full, frozen, step", "did you mean step?"]),
    "misspelt policy key": (["--freezing.polcy", "step"], ["unknown key polcy", "did you mean policy?"]),
    "unknown detector": (["--detector.name", "yolo"], ["unknown detector 'yolo'", "rotated_retinanet"]),
    "unknown backbone": (["--detector.backbone", "vgg"], ["unknown backbone 'vgg'", "resnet18"]),
    "unknown option of the detector": (["--detector.anchors", "3"], ["detector.anchors", "anchor_ratios"]),
    "detector option that is no number": (
        ["--detector.positive_iou", "high"],
        ["detector.positive_iou", "number", "got 'high'"],
    ),
    "detector option that is no list": (
        ["--detector.anchor_angles", "45"],
        ["detector.anchor_angles", "written [a, b]", "got 45"],
    ),
    "more frozen stages than stages": (
        ["--detector.frozen_stages", "5"],
        ["detector.frozen_stages", "0..4", "got 5"],
    ),
    "unknown data set": (
        ["--data.name", "pascal"],
        ["unknown data set 'pascal'", "synthetic, dior", "or a dotted path"],
    ),
    "missing data folder": (["--data.root", "nowhere"], ["nowhere is not there", "give an existing folder"]),
    "no data folder": (["--data.root", "null"], ["needs data.root", "give the folder"]),
    "class that nobody named": (
        ["--data.classes", "[plane]"],
        ["000.txt, line 3", "got 'ship'", "data.classes"],
    ),
    "fewer images than a batch": (
        ["--training.batch_size", "16"],
        ["batch of 16 images", "got 8", "lower training.batch_size"],
    ),
    "missing weights": (
        ["--detector.weights_backbone", "nowhere.pth"],
        ["nowhere.pth does not exist", "give the path"],
    ),
    "workers without Ray": (
        ["--cluster.workers", "2", "--cluster.use_ray", "false"],
        ["more than one worker needs Ray", "cluster.workers 2", "change one"],
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["train", "dry-run"])
def test_bad_options(case: str, dry: list[str], tiny: list[str], refused: Refused) -> None:
    options, wanted = BAD_OPTIONS[case]
    line = refused(train.command, [*tiny, *dry, *options])
    for words in wanted:
        assert words in line


SQUARE = "1 1 9 1 9 9 1 9"
BAD_LABELS = {
    "malformed line": ("1 2 3 ship 0\n", ["line 1", "x1 y1 x2 y2", "got 5 fields"]),
    "coordinate in words": (
        f"imagesource:x\n{SQUARE[:-1]}nine ship 0\n",
        ["line 2", "must be numbers", "'nine'"],
    ),
    "infinite coordinate": (f"{SQUARE[:-1]}inf ship 0\n", ["line 1", "finite", "'inf'"]),
    "difficult flag": (f"{SQUARE} ship 0\n{SQUARE} ship 3\n", ["line 2", "0 or 1", "'3'"]),
    "polygon with zero area": (
        f"{SQUARE} ship 0\n5 5 20 5 30 5 40 5 ship 0\n",
        ["line 2", "must have an area", "5 5 20 5 30 5 40 5"],
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(case: str, tiny: list[str], root: Path, refused: Refused) -> None:
    text, wanted = BAD_LABELS[case]
    file = root / "train" / "labelTxt" / "003.txt"
    file.write_text(text)
    line = refused(train.command, tiny)
    for words in [str(file), *wanted]:
        assert words in line


def test_an_unknown_class_in_val(tiny: list[str], root: Path, refused: Refused) -> None:
    file = root / "val" / "labelTxt" / "001.txt"
    file.write_text(f"{SQUARE} submarine 0\n")
    line = refused(train.command, tiny)
    assert f"{file}, line 1" in line
    assert "(ship)" in line
    assert "got 'submarine'" in line


def test_unreadable_label_files(tiny: list[str], root: Path, refused: Refused) -> None:
    file = root / "train" / "labelTxt" / "003.txt"
    file.write_bytes(b"\xff\xfe\x00ship")
    line = refused(train.command, tiny)
    assert str(file) in line
    assert "UTF-8" in line
    file.unlink()
    assert "this one is missing" in refused(train.command, tiny)
    file.mkdir()
    assert "must be readable" in refused(train.command, tiny)


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
def test_images_that_cannot_be_decoded(
    content: bytes | None, tiny: list[str], root: Path, refused: Refused
) -> None:
    file = root / "train" / "images" / "003.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:2000] if content is None else content)
    line = refused(train.command, tiny)
    assert str(file) in line
    assert "must be decodable" in line
    assert "replace the file" in line


def test_a_data_folder_without_images_or_without_val(tiny: list[str], root: Path, refused: Refused) -> None:
    (root / "val").rename(root / "test")
    line = refused(train.command, tiny)
    assert str(root / "val" / "images") in line
    assert "is not there" in line
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "labelTxt").mkdir()
    assert "found none" in refused(train.command, tiny)


def test_weights_that_do_not_fit(tiny: list[str], tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "weights.pth"
    tiny = [*tiny, "--detector.backbone", "resnet18"]
    state = resnet18().state_dict()
    torch.save({**state, "layer1.0.conv1.weight": torch.zeros(3)}, file)
    line = refused(train.command, [*tiny, "--detector.weights_backbone", str(file)])
    assert f"{file} does not fit resnet18" in line
    assert "layer1.0.conv1.weight (3,)" in line
    torch.save({key: value for key, value in state.items() if not key.startswith("layer4")}, file)
    assert "25 tensors missing, first layer4" in refused(
        train.command, [*tiny, "--detector.weights_backbone", str(file)]
    )
    torch.save([1, 2], file)
    assert "state_dict" in refused(train.command, [*tiny, "--detector.weights_backbone", str(file)])
    file.write_text("not a state_dict")
    assert "cannot read weights file" in refused(
        train.command, [*tiny, "--detector.weights_backbone", str(file)]
    )


BAD_FILES = {
    "no mapping": ("- 1\n- 2\n", ["must hold a mapping", "found list"]),
    "a word": ("hello", ["must hold a mapping", "found str"]),
    "no YAML": ("training: [1", ["not valid YAML", "line 1"]),
    "unknown section": ("trainin: {epochs: 3}\n", ["unknown key trainin", "did you mean training?"]),
    "unknown key": ("training:\n  epoch: 3\n", ["unknown key training.epoch", "did you mean epochs?"]),
    "unknown key, nothing near": (
        "evaluation:\n  zzz: 3\n",
        ["unknown key evaluation.zzz", "known here: every, batch_size"],
    ),
    "section that is a value": ("training: 3\n", ["training", "dictionary", "got 3"]),
    "two problems": (
        "training: {epochs: 0, lr: -1}\n",
        ["training.epochs", "got 0", "training.lr", "got -1"],
    ),
    "keys that are numbers": ("training:\n  1: 2\n", ["training.1"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_configuration_files(case: str, tmp_path: Path, refused: Refused) -> None:
    text, wanted = BAD_FILES[case]
    file = tmp_path / "config.yaml"
    file.write_text(text)
    line = refused(train.command, ["--config", str(file)])
    for words in [str(file), *wanted]:
        assert words in line


def test_a_runs_folder_that_cannot_be_written(tiny: list[str], tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    line = refused(train.command, [*tiny, "--runs_dir", str(tmp_path / "file")])
    assert str(tmp_path / "file") in line
    assert "writable" in line


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", started)
    monkeypatch.setattr(
        "dbf_ray.cluster.ray_runtime.local_resources", lambda: Resources(2, 0, "this machine")
    )


@pytest.mark.usefixtures("no_ray")
def test_more_workers_than_cpus_are_refused_before_ray_starts(tiny: list[str], refused: Refused) -> None:
    line = refused(train.command, [*tiny, "--cluster.workers", "4"])
    for words in ("4 workers with 1 CPUs each need 4 CPUs", "this machine has 2", "lower --cluster.workers"):
        assert words in line


@pytest.mark.usefixtures("no_ray")
def test_bad_data_are_refused_before_ray_starts(tiny: list[str], root: Path, refused: Refused) -> None:
    (root / "train" / "labelTxt" / "003.txt").write_text("1 2 3\n")
    assert "003.txt, line 1" in refused(train.command, [*tiny, "--cluster.workers", "2"])
