"""Compiled detectors: the same numbers as eager ones, one graph for each frozen set and mode, and no other
difference.
"""

from __future__ import annotations

import copy
import gc
import json
import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dbf_ray.build import build_training, prepare
from dbf_ray.config import load_config
from dbf_ray.cost import FlopTable
from dbf_ray.detectors import BACKBONES, DETECTORS, Detector, make_detector
from dbf_ray.detectors.compiled import check_compiler
from dbf_ray.detectors.two_stage import TwoStageDetector
from dbf_ray.errors import ResourceError, TrainingError
from dbf_ray.freezing import Freezer, make_policy
from dbf_ray.training.loop import LoopState, run_epoch
from tests import tiny
from tests.cost.prefixes import per_prefix
from tests.detectors.narrow import NARROW
from tests.tiny import add_narrow, on_ranks


class Counting:
    """A backend of ``torch.compile`` that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, row in NARROW.items():
        monkeypatch.setitem(BACKBONES, name, row)
    # under pytest dynamo would log every tensor it sees
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name: str = "rotated_retinanet", backbone: str = "narrow", **options: Any) -> Detector:
    torch.manual_seed(0)
    if issubclass(DETECTORS[name], TwoStageDetector):
        options = {"roi_channels": 32, **options}
    return make_detector(
        name, backbone=backbone, num_classes=2, fpn_channels=8, **{"head_convs": 0, **options}
    )


def pair(name: str, backbone: str = "narrow", **options: Any) -> tuple[Detector, Detector, Counting]:
    """Twice the same detector, the second compiled."""
    count, eager, fast = Counting(), small(name, backbone, **options), small(name, backbone, **options)
    fast.compile(count)
    return eager, fast, count


def images(count: int = 2, height: int = 64, width: int = 64) -> list[Tensor]:
    return list(torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count)))


def targets(count: int = 2) -> list[dict[str, Any]]:
    boxes = torch.tensor([[30.0, 30.0, 40.0, 16.0, 20.0]])
    return [{"boxes": boxes, "labels": torch.tensor([1]), "seed": 7} for _ in range(count)]


def step(detector: Detector, *shape: int) -> tuple[dict[str, float], dict[str, Tensor | None]]:
    """Losses and gradients of one training pass; drop-path draws the same each time."""
    torch.manual_seed(3)
    losses = detector.train()(images(*shape), targets(len(images(*shape))))
    detector.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in detector.named_parameters()}
    return {name: value.item() for name, value in losses.items()}, gradients


def same(a: Any, b: Any) -> bool:
    """Bitwise, through lists, tuples and dicts."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("name", DETECTORS)
def test_losses_gradients_and_detections_are_those_of_eager(name: str) -> None:
    eager, fast, count = pair(name, head_convs=1, score_threshold=0.0, detections_per_image=20)
    assert same(step(eager), step(fast))
    assert count.graphs == 1
    found = fast.eval()(images())
    assert same(eager.eval()(images()), found)
    assert all(len(one["scores"]) for one in found)
    assert count.graphs == 2


@pytest.mark.parametrize(
    "backbone",
    [
        "shallow_convnext",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "swin_t", "convnext_tiny")),
    ],
)
def test_frozen_and_unfrozen_again_real_networks_are_those_of_eager(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drop-path too: it draws what it draws eagerly. To the bit where eager frozen stages take all images at
    once, as compiled ones do; they take one at a time, and kernels choose their order of summation by the
    batch.
    """
    eager, fast, count = pair("rotated_retinanet", backbone)
    freezers = [Freezer(detector.backbone) for detector in (eager, fast)]
    with monkeypatch.context() as patch:
        patch.setattr("dbf_ray.detectors.backbones.staged.image_by_image", lambda run, images: run(images))
        for prefix in (0, 2, 0, 2):
            for freezer in freezers:
                freezer.apply(prefix)
            found = step(fast)
            assert same(step(eager), found)
        assert count.graphs == 2
    losses, gradients = step(eager)
    assert found[0] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(found[1], gradients, rtol=1e-3, atol=1e-5)


def maps(detector: Detector) -> tuple[list[Tensor], dict[str, Tensor | None], list[Tensor]]:
    """Outputs and gradients in training mode, and outputs in eval mode."""
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = detector.train().outputs(x)
    detector.zero_grad()
    torch.stack([output.square().sum() for output in outputs]).sum().backward()
    with torch.no_grad():
        return outputs, {name: p.grad for name, p in detector.named_parameters()}, detector.eval().outputs(x)


def test_every_frozen_set_is_compiled_once_however_often_it_comes_back() -> None:
    """A hundred epochs of step(2), then every prefix: more graphs than dynamo keeps for one function (8), and
    none runs eagerly.
    """
    eager, fast, count = pair("rotated_retinanet")
    freezers = [Freezer(detector.backbone) for detector in (eager, fast)]
    seen: set[int] = set()
    for frozen in [*make_policy("step", rho=2).decisions(100, 4, seed=0), *(3, 0, 4, 1, 2) * 2]:
        for freezer in freezers:
            freezer.apply(frozen)
        seen.add(frozen)
        _, gradients, _ = found = maps(fast)
        assert same(found, maps(eager))
        assert count.graphs == 2 * len(seen)
        trained = {
            name.split(".")[2]
            for name, g in gradients.items()
            if name.startswith("backbone") and g is not None and g.any()
        }
        without = {name.split(".")[2] for name, g in gradients.items() if g is None}
        assert trained == {str(stage) for stage in range(frozen, 4)}
        assert without == {str(stage) for stage in range(frozen)}
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_inductor_gives_nearly_the_same_frozen_or_not() -> None:
    try:
        check_compiler("cpu")
    except ResourceError as error:
        pytest.skip(f"needs a compiler: {error}")
    eager, fast = small(), small()
    fast.compile()
    freezers = [Freezer(detector.backbone) for detector in (eager, fast)]
    for frozen in (0, 4, 0):
        for freezer in freezers:
            freezer.apply(frozen)
        torch.testing.assert_close(maps(fast), maps(eager), rtol=1e-4, atol=1e-5)


def test_bf16_is_the_same_too() -> None:
    eager, fast, count = pair("rotated_retinanet")
    for frozen in (0, 1):
        eager.backbone.num_frozen = fast.backbone.num_frozen = frozen
        with torch.autocast("cpu", torch.bfloat16):
            assert same(step(eager), step(fast))
    assert count.graphs == 2


def test_each_shape_has_a_graph_and_a_least_padded_size_makes_them_one() -> None:
    shapes = [(2, 64, 96), (2, 96, 64)]
    eager, fast, count = pair("rotated_retinanet")
    for shape in shapes * 2:
        assert same(step(eager, *shape), step(fast, *shape))
    assert count.graphs == 2
    eager, fast, count = pair("rotated_retinanet")
    eager.least_pad_to = fast.least_pad_to = (96, 96)
    for shape in shapes:
        assert same(step(eager, *shape), step(fast, *shape))
    assert count.graphs == 1


def test_a_least_padded_size_pads_and_never_cuts() -> None:
    detector = small()
    detector.least_pad_to = (96, 64)
    assert detector.prepare(images(1, 40, 40)).padded == (96, 64)
    assert detector.prepare(images(1, 100, 130)).padded == (128, 160)
    assert detector.prepare(images(1, 40, 40), pad_to=(64, 128)).padded == (96, 128)


def test_the_last_batch_of_an_evaluation_needs_no_graph_of_its_own() -> None:
    eager, fast, count = pair("rotated_retinanet", score_threshold=0.0, detections_per_image=20)
    eager.eval(), fast.eval()
    assert same(eager(images(3)), fast(images(3)))
    for expected, found in zip(eager(images(2)), fast(images(2)), strict=True):
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3)
    assert count.graphs == 1


def test_running_out_of_graphs_is_an_error_that_says_what_to_do() -> None:
    detector = small()
    detector.compile(Counting())
    with torch._dynamo.config.patch(recompile_limit=1):
        detector.outputs(torch.rand(1, 3, 64, 64))
        with pytest.raises(
            TrainingError, match=r"\(1, 3, 64, 96\) is one too many with 0 stages frozen.*least_pad_to"
        ):
            detector.outputs(torch.rand(1, 3, 64, 96))


def test_detectors_of_a_process_share_no_graphs_and_none_outlives_its_detector() -> None:
    count, gone = Counting(), []
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(2):
            detector = small()
            detector.compile(count)
            detector.outputs(torch.rand(1, 3, 64, 64))
            gone.append(weakref.ref(detector))
    assert count.graphs == 2
    del detector
    gc.collect()
    assert [ref() for ref in gone] == [None] * 2


def test_names_copies_and_costs_are_those_of_an_eager_detector() -> None:
    eager, fast, count = pair("oriented_rcnn")
    step(fast)
    assert list(fast.state_dict()) == list(eager.state_dict())
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in eager.named_modules()]
    assert per_prefix(FlopTable(fast), 64, 64) == per_prefix(FlopTable(eager), 64, 64)
    twin = copy.deepcopy(fast)
    assert same(step(twin), step(eager))
    twin.load_state_dict(fast.state_dict())
    assert count.graphs == 1


TINY: dict[str, Any] = {
    **tiny.TINY,
    "data.train_images": 4,
    "data.val_images": 3,
    "data.image_size": 72,
    "training.warmup_steps": 0,
    "evaluation.every": 2,
    "freezing.policy": "step",
    "freezing.rho": 2,
}


@pytest.mark.parametrize("wanted", [False, True])
def test_the_option_compiles_and_pads_all_images_to_one_size(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr("dbf_ray.build.training.check_compiler", checked.append)
    monkeypatch.setattr(Detector, "compile", lambda self: checked.append("compiled"))
    training = build_training(
        prepare(load_config(None, {**TINY, "training.compile": wanted, "training.device": "cpu"})), quiet=True
    )
    assert checked == (["cpu", "compiled"] if wanted else [])
    assert training.frozen is not None
    assert training.frozen.options is not None
    assert training.frozen.options.compiled == wanted
    assert training.detector.least_pad_to == ((96, 96) if wanted else (0, 0))


def test_what_cannot_compile_here_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise FileNotFoundError("no compiler\nhere")

    with pytest.raises(
        ResourceError,
        match=r"work on cpu, it does not here: .*no compiler here.*C\+\+ compiler.*or set `compile` "
        r"false",
    ):
        check_compiler("cpu", broken)
    check_compiler("cpu", "eager")


def test_a_machine_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()  # or what another test compiled is run
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nonexistent/c++",)}),
        pytest.raises(ResourceError, match=r"does not here: .*c\+\+"),
    ):
        check_compiler.__wrapped__("cpu")


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    add_narrow()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    config = load_config(None, {**TINY, "cluster.workers": 2, "detector.norm_eval": False})
    rows: dict[str, Any] = {}
    for kind in ("eager", "fast"):
        training, count, state = build_training(prepare(config), quiet=True), Counting(), LoopState()
        if kind == "fast":
            training.detector.compile(count)
        graphs, losses = [], []
        for _ in range(4):
            losses.append(run_epoch(training, state)["losses"])
            state.epoch += 1
            graphs.append(count.graphs)
        sums = torch.stack([tensor.double().sum() for tensor in training.detector.state_dict().values()])
        both = [torch.empty_like(sums) for _ in range(2)]
        dist.all_gather(both, sums)
        rows[kind] = {"graphs": graphs, "same": torch.equal(*both), "sums": sums.tolist(), "losses": losses}
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def test_ranks_stay_identical_and_train_as_eager_ones_do(tmp_path: Path) -> None:
    """The module under the wrappers' wrappers is compiled, and the wrappers are built anew at every change of
    the frozen set.
    """
    on_ranks(worker, str(tmp_path))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows["fast"]["same"]
    assert rows["fast"]["losses"] == rows["eager"]["losses"]
    assert rows["fast"]["sums"] == rows["eager"]["sums"]
    graphs = rows["fast"]["graphs"]
    assert 0 < graphs[0] < graphs[1] == graphs[2] == graphs[3]  # evaluated with all frozen only
