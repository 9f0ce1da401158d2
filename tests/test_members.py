"""Members from outside: a dotted path stands where a name of a table does, and is what records keep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dbf_ray.build import prepare, resolved
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.data.readers import find_reader
from dbf_ray.detectors import make_detector
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import config_of, load_detector
from dbf_ray.freezing import make_policy, policy_from_dict, policy_to_dict
from dbf_ray.run import find_resume, run, run_directory, run_name

ROOT = Path(__file__).resolve().parents[1]
RULES = '''
from dbf_ray.freezing import Decision, Horizon, Policy, Schedule


class EveryOther(Schedule):
    """Trained in every other epoch."""

    name = "every_other"

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        return 0 if t % 2 == 0 else horizon.num_stages


class Patient(Policy):
    """Frozen for ever once map50 is above a limit."""

    needs_signals = ("map50",)
    above: float = 0.5

    def decide(self, t, horizon, signals, state):
        done = state.get("done", False) or (signals["map50"] or 0) > self.above
        return Decision(horizon.num_stages if done else 0), {"done": done}


class Rule:
    pass


class Misspelt(Schedule):
    name = "misspelt"

    def num_frozne(self, t, horizon):
        return 0
'''
NETS = """
from torch import nn
from dbf_ray.detectors.retinanet import RotatedRetinaNet


class Small(RotatedRetinaNet):
    "A RetinaNet with an option of its own."

    def __init__(self, backbone, num_classes, *, fpn_channels=8, head_convs=0, candidates: int = 100):
        super().__init__(
            backbone,
            num_classes,
            fpn_channels=fpn_channels,
            head_convs=head_convs,
            topk_candidates=candidates,
        )


class Headless(RotatedRetinaNet):
    def __init__(self, backbone, num_classes, *, fpn_channels=8):
        super().__init__(backbone, num_classes, fpn_channels=fpn_channels)


class Network(nn.Module):
    def __init__(self, weights=None):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(i, 8, k, stride=k) for i, k in ((3, 4), (8, 2), (8, 2), (8, 2))
        )


def cut(network):
    return list(network.stages), [8] * 4, (4, 8, 16, 32)


tiny = (Network, cut)
half = (Network,)
"""
LABELS = '''
from dbf_ray.data.readers import Item, LabelledObject, Labels, Listing


class Middle:
    """Every image has one ship, in its middle."""

    layout = "SPLIT/*.png"
    classes = ["ship"]

    def recognises(self, root):
        return False

    def splits(self, root):
        return ["train", "val"]

    def class_names(self, root):
        return None

    def listing(self, root, split):
        return Listing([Item(file, None, 1) for file in sorted((root / split).glob("*.png"))])

    def read(self, item):
        return Labels([LabelledObject((16, 16, 48, 16, 48, 32, 16, 32), "ship")])


class Half:
    layout = "nothing"
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A package ``outside`` of a person's own, importable; calling it forgets what was imported, as a new
    process would.
    """
    folder = tmp_path / "home" / "outside"
    folder.mkdir(parents=True)
    files = {
        "__init__": "",
        "rules": RULES,
        "nets": NETS,
        "labels": LABELS,
        "broken": "1 / 0",
        "needy": "import nowhere",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder.parent)

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "outside"]:
            del sys.modules[name]

    forget()
    yield forget
    forget()


@pytest.fixture
def config(package: Callable[[], None], tmp_path: Path) -> Config:
    """All four kinds of members from outside, in one tiny training, from YAML."""
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for name in "abcd":
            Image.new("RGB", (64, 64), "grey").save(tmp_path / "data" / split / f"{name}.png")
    file = tmp_path / "config.yaml"
    file.write_text(
        f"""
runs_dir: {tmp_path / "runs"}
data: {{name: outside.labels:Middle, root: {tmp_path / "data"}, image_size: 64}}
detector: {{name: outside.nets:Small, backbone: outside.nets:tiny, fpn_channels: 8, candidates: 7}}
freezing: {{policy: outside.rules:EveryOther}}
training: {{epochs: 2, batch_size: 4, threads: 1}}
tracking: {{mlflow: false}}
"""
    )
    return load_config(file)


def test_a_run_of_members_from_outside_keeps_their_paths(config: Config, package: Callable[[], None]) -> None:
    assert run_name(config) == "outside.rules_EveryOther-outside.nets_tiny-outside.labels_Middle-seed0"
    first = run(config, on_epoch=lambda *_: False)
    assert first["stopped_early"]
    package()  # another process goes on
    resume = find_resume(config, run_directory(config))
    assert resume is not None
    summary = run(config, resume=resume)
    assert (summary["policy"], summary["frozen_prefixes"]) == ("outside.rules:EveryOther", [0, 4])
    package()
    kept = config_of(Path(summary["checkpoint"]))
    detector, classes = load_detector(Path(summary["checkpoint"]), kept)
    assert (kept.detector.name, kept.detector.backbone) == ("outside.nets:Small", "outside.nets:tiny")
    assert (kept.data.name, classes) == ("outside.labels:Middle", ["ship"])
    assert (type(detector).__module__, type(detector).__name__) == ("outside.nets", "Small")


def test_paths_are_checked_with_everything_else_before_a_run(config: Config) -> None:
    spec = prepare(config)
    assert spec.frozen_prefixes == [0, 4]
    assert [spec.train_set.classes, len(spec.train_set)] == [["ship"], 4]


def test_a_policy_goes_through_its_record(package: Callable[[], None]) -> None:
    policy = make_policy("outside.rules:Patient", above=0.25)
    assert policy.name == "outside.rules:Patient"
    assert policy_to_dict(policy) == {"name": "outside.rules:Patient", "parameters": {"above": 0.25}}
    assert policy_from_dict(policy_to_dict(policy)) == policy
    assert policy.needs_signals == ("map50",)
    with pytest.raises(ConfigError, match=r"outside\.rules:Patient decides by map50"):
        policy.decisions(3, 4)


def test_a_policy_from_outside_under_a_budget(package: Callable[[], None]) -> None:
    policy = make_policy("budget", limit=0.7, inner={"name": "outside.rules:EveryOther"})
    assert policy.decisions(6, 2, costs=(10, 8, 5)) == [0, 2, 0, 2, 2, 2]
    assert policy_from_dict(policy_to_dict(policy)) == policy
    assert policy.parameters()["inner"] == {"name": "outside.rules:EveryOther"}
    assert make_policy("budget", limit=0.7, inner={"name": "outside.rules:Patient"}).needs_signals == (
        "map50",
    )


def detector_of(name: str) -> Any:
    return make_detector(name, backbone="outside.nets:tiny", num_classes=1, fpn_channels=8, head_convs=0)


def backbone_of(name: str) -> Any:
    return make_detector("rotated_fcos", backbone=name, num_classes=1, fpn_channels=8, head_convs=0)


KINDS: dict[str, tuple[Callable[[str], Any], str, str, str, str]] = {
    # makes one; what exists; a slip of it; no such member; the rule
    "freezing policy": (
        make_policy,
        "outside.rules",
        "EveryOther",
        "Rule",
        "derived from dbf_ray.freezing.Schedule",
    ),
    "detector": (
        detector_of,
        "outside.nets",
        "Small",
        "Network",
        "class derived from dbf_ray.detectors.Detector",
    ),
    "backbone": (backbone_of, "outside.nets", "tiny", "half", r"a pair \(build, cut\)"),
    "data format": (find_reader, "outside.labels", "Middle", "Half", "layout, classes, recognises"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_path_does_not_lead_to_is_refused_with_the_rule(
    kind: str, package: Callable[[], None]
) -> None:
    make, module, good, wrong, rule = KINDS[kind]
    make(f"{module}:{good}")
    refused = {
        f"{module}:{wrong}": f"{module}:{wrong}' must be .*{rule}.*, it is ",
        f"{module}:{good}s": rf"module {module} must have {good}s, it has none; did you mean {good}\?",
        "outside.nothing:A": "there must be a module outside.nothing to import, there is none; install",
        "nowhere.at.all:A": r"there must be a module nowhere.at.all to import, there is none \(No module",
        "outside.needy:A": "module outside.needy must be one that can be imported.*Error: No module named",
        "outside.broken:A": "module outside.broken must be one that can be imported.*ZeroDivisionError",
        f"{module}.{good}": f"unknown {kind} '{module}.{good}'; known: .*or a dotted path package.module",
        f"{module}:": "a dotted path package.module:Name; correct the path",
        ":A": "a dotted path package.module:Name; correct the path",
    }
    for path, message in refused.items():
        with pytest.raises(ConfigError, match=message) as error:
            make(path)
        assert kind in str(error.value)
        assert "\n" not in str(error.value)


def test_a_class_that_leaves_what_must_be_written_out_is_refused(package: Callable[[], None]) -> None:
    with pytest.raises(ConfigError, match=r"it is class Misspelt, which lacks num_frozen$"):
        make_policy("outside.rules:Misspelt")


def test_wrong_parameters_are_refused_as_those_of_built_in_members(package: Callable[[], None]) -> None:
    with pytest.raises(ConfigError, match=r"above must be a number, got 'x'"):
        make_policy("outside.rules:Patient", above="x")
    with pytest.raises(ConfigError, match=r"does not know rho=2; it is every_other, which takes no"):
        make_policy("outside.rules:EveryOther", rho=2)
    with pytest.raises(
        ConfigError, match=r"unknown option `angles` of outside\.nets:Small; known: candidates"
    ):
        make_detector("outside.nets:Small", backbone="outside.nets:tiny", num_classes=1, angles=3)


def test_a_detector_must_take_what_all_detectors_take(config: Config) -> None:
    lacking = with_overrides(config, {"detector.name": "outside.nets:Headless"})
    with pytest.raises(ConfigError, match=r"must take fpn_channels and head_convs .* not take head_convs so"):
        prepare(lacking)
    with pytest.raises(ConfigError, match=r"detector 'outside\.nets:Headless' must take"):
        resolved(lacking)


def test_a_path_on_the_command_line_is_found_in_the_folder_where_it_is_typed(tmp_path: Path) -> None:
    (tmp_path / "my_rules.py").write_text(RULES)
    options = [
        "--freezing.policy",
        "my_rules:EveryOther",
        "--training.epochs",
        "4",
        "--data.train_images",
        "8",
    ]
    command = [sys.executable, "-m", "jobs.train", *options, "--data.image_size", "64", "--dry-run"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "policy my_rules:EveryOther" in done.stdout
    assert "budget 2 of 4 epochs" in done.stdout
