"""A frozen prefix as an inference engine: the plain forward's features, and the trained weights untouched."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dbf_ray.detectors import make_detector
from dbf_ray.detectors.backbones import BACKBONES, NormedStage, StagedBackbone, make_backbone
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.detectors.backbones.folding import count_norms
from dbf_ray.detectors.backbones.staged import FrozenFeatures
from dbf_ray.freezing import Freezer

FAMILIES = [
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "swin_t",
    "convnext_tiny",
    "efficientnet_b0",
    "regnet_y_400mf",
]
WITHOUT_NORMS = ("swin_t", "convnext_tiny")


def frozen(name: str, prefix: int, **options: Any) -> StagedBackbone:
    """A backbone whose batch norms are far from the identity."""
    torch.manual_seed(0)
    backbone = make_backbone(name, **options)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.6, 1.6)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
    Freezer(backbone).apply(prefix)
    return backbone.train()


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def slow_features(backbone: StagedBackbone, x: Tensor) -> FrozenFeatures:
    """By the stages one after the other, all images at once; with the output of every one."""
    outputs = []
    with torch.no_grad():
        for index in range(backbone.num_frozen):
            stage = copy.deepcopy(backbone.stages[index]).eval()
            x = stage(x)
            outputs.append(stage.norm(x) if isinstance(stage, NormedStage) else x)
    return FrozenFeatures(tuple(outputs), x)


def maps_of(features: FrozenFeatures) -> list[Tensor | None]:
    return [*features.outputs, features.carried]


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_engine_gives_the_plain_features_and_leaves_the_weights_alone(name: str) -> None:
    backbone = frozen(name, 3)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    engine = PrefixEngine(backbone)
    found, wanted = engine(images()), slow_features(backbone, images())
    absent = [part is None for part in maps_of(found)]
    assert absent == [False, False, True, False]  # the third follows from what the fourth stage takes
    maps = backbone(images(), found)
    for part, plain in zip([*maps[:3], found.carried], maps_of(wanted), strict=True):
        assert part is not None
        assert plain is not None
        assert part.shape == plain.shape
        assert part.dtype == torch.float32
        assert not part.requires_grad
        assert error(part, plain) < 1e-5
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in maps[:3])
    assert maps[3].requires_grad
    backbone.eval()  # drop-path draws nothing
    given = backbone(images(), backbone.frozen_features(images()))
    assert all(error(a, b) < 1e-5 for a, b in zip(given, backbone(images()), strict=True))
    norms = sum(count_norms(stage) for stage in backbone.stages[:3])
    assert engine.folded == norms
    assert (norms == 0) == (name in WITHOUT_NORMS)
    after = backbone.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "swin_t"])
def test_bf16_is_as_far_from_float32_as_autocast_is(name: str) -> None:
    backbone = frozen(name, 4)
    engine = PrefixEngine(backbone, torch.bfloat16)
    exact = slow_features(backbone, images())
    alone = engine(images())
    with torch.autocast("cpu", torch.bfloat16):
        plain, under_autocast = backbone.frozen_features(images()), engine(images())
    for number in range(4):
        wanted, part, mixed, cast = (way.outputs[number] for way in (exact, alone, under_autocast, plain))
        assert wanted is not None
        assert part is not None
        assert mixed is not None
        assert cast is not None
        assert error(part, wanted) < max(2 * error(cast, wanted), 5e-3)
        if number < backbone.float32_stages:
            assert error(part, wanted) < 1e-5
            assert error(mixed, wanted) < 5e-3  # rounded once
        else:
            assert error(part, wanted) > 1e-4  # it did compute in bf16
        assert part.dtype == torch.float32  # what is trained stays as it is
        assert mixed.dtype == cast.dtype


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("backend", [None, "eager"])
def test_float32_stages_are_exact_and_what_follows_takes_what_they_give(
    depth: int, backend: str | None
) -> None:
    """MobileNetV2's first two, of which as many as are frozen; also refreshed, in any company, and under
    autocast.
    """
    backbone = frozen("mobilenet_v2", depth)
    assert backbone.float32_stages == 2
    engine = PrefixEngine(backbone, torch.bfloat16, backend)
    assert engine.folded == sum(count_norms(stage) for stage in backbone.stages[:depth])
    for factor in (1.0, 1.5):
        with torch.no_grad():
            backbone.stages[0][0][0].weight.mul_(factor)
        engine.refresh(backbone)
        wanted, found = slow_features(backbone, images()), engine(images())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = engine(images())
        for number, (part, cast, exact) in enumerate(
            zip(maps_of(found), maps_of(mixed), maps_of(wanted), strict=True)
        ):
            if part is None or cast is None:
                assert part is cast is None
                continue
            assert exact is not None
            assert (error(part, exact) < 1e-5) == (min(number, depth - 1) < 2)
            assert (part.dtype, cast.dtype) == (torch.float32, torch.bfloat16)
            torch.testing.assert_close(cast, part.bfloat16(), rtol=0, atol=0)


def test_float32_stages_are_so_whatever_the_weights_are_in_and_nothing_frozen_is_the_images() -> None:
    backbone = frozen("mobilenet_v2", 1).bfloat16()
    found, wanted = (
        PrefixEngine(backbone, torch.bfloat16)(images()).carried,
        slow_features(backbone.float(), images()).carried,
    )
    assert found is not None
    assert wanted is not None
    assert error(found, wanted) < 0.02  # the weights were rounded before their norms were folded into them
    with torch.autocast("cpu", torch.bfloat16):
        given = PrefixEngine(frozen("mobilenet_v2", 0), torch.bfloat16)(images())
    assert given.outputs == ()
    assert given.carried is not None
    assert torch.equal(given.carried, images())


def test_float32_stages_with_norms_of_their_outputs_are_exact_too() -> None:
    backbone = frozen("swin_t", 3)
    backbone.float32_stages = 2
    found, wanted = PrefixEngine(backbone, torch.bfloat16)(images()), slow_features(backbone, images())
    for number, (part, exact) in enumerate(zip(maps_of(found), maps_of(wanted), strict=True)):
        assert exact is not None
        if part is not None:
            assert (error(part, exact) < 1e-5) == (number < 2)


def test_batch_norms_over_ranks_are_folded_too() -> None:
    backbone = frozen("narrow", 2, norm_eval="sync")
    engine = PrefixEngine(backbone)
    assert engine.folded == 2
    found, wanted = engine(images()).carried, slow_features(backbone, images()).carried
    assert found is not None
    assert wanted is not None
    assert error(found, wanted) < 1e-5


def test_outputs_that_nobody_reads_are_not_kept() -> None:
    backbone = frozen("narrow", 4)
    backbone.read_from = 1
    for found in (PrefixEngine(backbone)(images()), backbone.frozen_features(images())):
        assert [part is None for part in maps_of(found)] == [True, False, False, False, True]


def test_features_are_mapped_and_filled_by_name_and_go_to_other_processes() -> None:
    one, carried = torch.rand(2, 3, 4, 4), torch.rand(2, 6, 2, 2)
    features = FrozenFeatures((None, one, None), carried)
    assert all(a is b for a, b in zip(features.tensors(), [one, carried], strict=True))
    halves = features.map(lambda part: part / 2)
    assert [part is None for part in maps_of(halves)] == [True, False, True, False]
    back = pickle.loads(pickle.dumps(halves.filled([one, carried])))
    assert [part is None for part in maps_of(back)] == [True, False, True, False]
    assert all(torch.equal(a, b) for a, b in zip(back.tensors(), [one, carried], strict=True))
    assert FrozenFeatures((one,), None).filled([carried]).outputs[0] is carried


class Branching(nn.Module):
    """A norm behind a branch on values, which no tracer follows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return -x if x.sum() > 1e9 else x


class Counting3(Branching):
    """A loop over a size, at which a tracer raises what Python does."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _ in range(x.shape[1] // 3):
            y = self.norm(self.conv(x))
        return y


class Twice(Branching):
    """One norm after one convolution, used two times."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.again(self.norm(self.again(self.conv(x)))))


@pytest.mark.parametrize("kind", [Branching, Counting3, Twice])
def test_a_stage_that_cannot_be_folded_runs_as_it_is_and_says_so(kind: type[Branching]) -> None:
    torch.manual_seed(0)
    stage = kind()
    nn.init.uniform_(stage.norm.running_var, 0.3, 3.0)  # type: ignore[arg-type]
    backbone = StagedBackbone([stage], [4], [4])
    Freezer(backbone).apply(1)
    with pytest.warns(UserWarning, match=f"batch norms of a {kind.__name__} are not folded"):
        engine = PrefixEngine(backbone)
    assert engine.folded == 0
    found, wanted = engine(images()).outputs[0], slow_features(backbone, images()).outputs[0]
    assert found is not None
    assert wanted is not None
    assert error(found, wanted) < 1e-5


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "swin_t"])
def test_features_of_an_image_do_not_depend_on_its_company(name: str) -> None:
    backbone = frozen(name, 4).to(memory_format=torch.channels_last)
    x = images(4).contiguous(memory_format=torch.channels_last)
    for run in (backbone.frozen_features, PrefixEngine(backbone)):
        together, apart = run(x), [run(x[index : index + 1]) for index in (0, 1, 2, 3)]
        turned = run(x.flip(0))
        for number, whole in enumerate(together.tensors()):
            assert torch.equal(whole, torch.cat([one.tensors()[number] for one in apart]))
            assert torch.equal(whole.flip(0), turned.tensors()[number])
        wanted = slow_features(backbone, x)
        assert error(together.outputs[3], wanted.outputs[3]) < 1e-4  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", [1, 4])
@pytest.mark.parametrize("name", ["rotated_retinanet", "rotated_fcos", "oriented_rcnn"])
def test_given_features_take_the_place_of_the_prefix(name: str, prefix: int) -> None:
    options = {"roi_channels": 32} if "rcnn" in name else {}
    torch.manual_seed(0)
    detector = make_detector(
        name, backbone="narrow", num_classes=2, fpn_channels=8, head_convs=0, **options
    ).train()  # type: ignore[arg-type]
    Freezer(detector.backbone).apply(prefix)
    boxes = torch.tensor([[30.0, 30.0, 40.0, 16.0, 20.0]])
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1]),
        "seed": 3,
        "image_id": "a",
        "orientation": "identity",
    }
    batch = detector.prepare([torch.rand(3, 64, 64)] * 2, [target, {**target, "image_id": "b"}])
    assert batch.orientations == [("a", "identity"), ("b", "identity")]
    features = detector.backbone.frozen_features(batch.images)
    given = type(batch)(
        torch.full_like(batch.images, float("nan")), *list(vars(batch).values())[1:5], features
    )
    wanted, found = detector(batch), detector(given)
    assert {key: value.item() for key, value in found.items()} == {
        key: value.item() for key, value in wanted.items()
    }
    torch.stack(list(found.values())).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in detector.parameters())


class Counting:
    """A backend that runs what dynamo traced, and counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        self.graphs += 1
        return graph


def test_compiled_engines_are_compiled_once_a_prefix_and_take_new_weights() -> None:
    backbone, count = frozen("narrow", 3), Counting()
    engine = PrefixEngine(backbone, backend=count)
    for span in range(12):  # more than dynamo's limit of graphs of one function
        with torch.no_grad():
            for p in backbone.parameters():
                p.mul_(1.01)
        engine.refresh(backbone)
        for number in (3, 1, 2):
            found = engine(images(number)).carried
            wanted = slow_features(backbone, images(number)).carried
            assert found is not None
            assert wanted is not None
            assert found.shape == wanted.shape
            assert error(found, wanted) < 1e-5, span
    several = [PrefixEngine(backbone, backend=count) for _ in range(12)]
    before = count.graphs
    for one in several:
        one(images())
    assert count.graphs == before + 12
    # a graph for one image, which a CPU takes at a time; for a batch that is filled up, another
    assert before <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "bounds"),
    [
        ("resnet18", torch.float32, [1e-5, None, 1e-5]),
        ("mobilenet_v2", torch.bfloat16, [1e-5, 1e-5, None, 0.03]),
    ],
)
def test_a_compiled_engine_gives_the_same(name: str, dtype: torch.dtype, bounds: list[float | None]) -> None:
    backbone = frozen(name, len(bounds) - 1)
    engine = PrefixEngine(backbone, dtype, "inductor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = engine(images())
    wanted = slow_features(backbone, images())
    for part, exact, bound in zip(maps_of(found), maps_of(wanted), bounds, strict=True):
        assert (part is None) == (bound is None)  # it follows from what the next stage takes
        assert bound is None or error(part, exact) < bound  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.detectors.narrow import NARROW

    for key, value in NARROW.items():
        monkeypatch.setitem(BACKBONES, key, value)
