"""Freezing in modules that know nothing of it: by one process, and on two gloo ranks (ddp_any_module.py)."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer
from tests.freezing import ddp_any_module
from tests.tiny import on_ranks

STAGES: list[str | list[str]] = [["conv1", "bn1", "layer1"], "layer2", "layer3", "layer4"]


def resnet() -> Any:
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {
        name.split(".")[0]
        for name, value in module.state_dict().items()
        if not torch.equal(before[name], value)
    }


def saved_tensors(model: nn.Module) -> int:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(2, 3, 32, 32))
    return len(kept)


def test_a_frozen_prefix_of_a_resnet18_keeps_nothing_for_the_backward_pass() -> None:
    model = torchvision.models.resnet18(num_classes=3).train()
    freezer = Freezer.of(model, STAGES)
    counts = []
    for n in range(5):
        freezer.apply(n)
        counts.append(saved_tensors(model))
    assert (counts[0], counts[4]) == (181, 1)
    assert counts == sorted(counts, reverse=True)


def test_frozen_stages_keep_their_bits_and_all_others_move() -> None:
    model = resnet()
    keys, freezer = list(model.state_dict()), Freezer.of(model, STAGES)
    optimizer = torch.optim.SGD(freezer.parameter_groups(weight_decay=0.1), lr=0.1, momentum=0.9)
    names = [{"conv1", "bn1", "layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"fc"}]
    for n in (0, 2, 4, 1, 0):
        freezer.apply(n)
        assert (freezer.num_frozen, freezer.num_stages, freezer.always_frozen) == (n, 4, 0)
        before = bits(model.train())
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        assert moved(before, model) == set().union(*names[n:])
        assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    "call",
    [
        lambda model: nn.Sequential(model).train(),
        lambda model: [module.train() for module in model.modules()],
        lambda model: model.apply(lambda module: module.train()),
        lambda model: [model.layer1.train(), model.layer1[0].bn1.train(), model.layer3.train()],
    ],
    ids=["wrapper", "each module", "apply", "the stage"],
)
def test_eval_mode_survives_any_call_of_train(call: Any) -> None:
    model = resnet()
    freezer = Freezer.of(model, STAGES)
    for n in (2, 1):
        freezer.apply(n)
        for _ in range(2):
            call(model.eval())
            frozen = [model.bn1, model.layer1, model.layer2][: n + 1]
            assert not any(m.training for part in frozen for m in part.modules())
            assert all(m.training for m in model.layer3.modules())
    before = bits(model)
    model.layer1(torch.randn(2, 64, 8, 8))  # without the module around it
    assert moved(before, model) == set()
    freezer.apply(0)
    assert all(m.training for m in model.train().modules())
    assert not any("train" in vars(m) for m in model.modules())


def test_what_thaws_takes_the_mode_of_the_module() -> None:
    model = resnet()
    freezer = Freezer.of(model, STAGES)
    for mode in (True, False):
        model.train()
        freezer.apply(3)
        model.train(mode)
        freezer.apply(1)
        assert {m.training for m in model.layer2.modules()} == {mode}
        assert not model.layer1.training


def test_a_copy_of_a_frozen_module_is_frozen_by_itself() -> None:
    model = resnet()
    freezer = Freezer.of(model, STAGES)
    freezer.apply(1)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [twin.train().layer1.training, twin.layer2.training] == [False, True]
        with pytest.raises(
            ConfigError, match=r"conv1, bn1, layer1 is frozen by another; .* load the state_dict into"
        ):
            Freezer.of(twin, STAGES)
        anew = resnet()
        anew.load_state_dict(twin.state_dict())
        assert Freezer.of(anew, STAGES).apply(1)
    twin = copy.deepcopy(model)
    freezer.apply(0)
    assert [model.train().layer1.training, twin.train().layer1.training] == [True, False]
    Freezer.of(copy.deepcopy(model), STAGES)


def test_two_freezers_of_one_module_do_not_leave_it_half_frozen() -> None:
    model = resnet()
    first, second = Freezer.of(model, STAGES), Freezer.of(model, STAGES)
    first.apply(2)
    assert second.apply(0)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.train().modules())


def test_what_the_user_had_frozen_stays_so() -> None:
    model = resnet()
    model.conv1.weight.requires_grad_(False)
    model.layer2[0].bn1.eval()
    freezer = Freezer.of(model, STAGES)
    for n in (4, 0, 1, 0):
        freezer.apply(n)
        assert [name for name, p in model.fc.named_parameters() if not p.requires_grad] == []
        assert not model.conv1.weight.requires_grad
        assert model.layer2[0].conv1.weight.requires_grad is (n < 2)
        assert [model.layer2[0].bn1.training, model.layer2[0].bn2.training] == [False, n < 2]


def test_the_groups_of_an_optimizer_hold_every_parameter_once() -> None:
    model = resnet()
    model.conv1.weight.requires_grad_(False)
    groups = Freezer.of(model, STAGES).parameter_groups(lr=0.5)
    assert [len(group["params"]) for group in groups] == [9, 9, 9, 9, 2]
    assert {group["lr"] for group in groups} == {0.5}
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert len(Freezer.of(model.layer1, ["0"]).parameter_groups()) == 1


def test_some_stages_may_be_frozen_always() -> None:
    freezer = Freezer.of(resnet(), STAGES, always_frozen=2)
    assert [freezer.apply(n) or freezer.num_frozen for n in (0, 1, 2)] == [True, 2, 2]
    with pytest.raises(ConfigError, match=r"always_frozen must be an integer in 0\.\.4, got 5"):
        Freezer.of(resnet(), STAGES, always_frozen=5)


class Tokens(nn.Module):
    """A loose parameter, and layers in a list that is called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(2))
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.LayerNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) + self.token + torch.rand(1)
        for block in self.blocks:
            x = block(x)
        return x


def test_single_parameters_and_parts_of_lists_are_stages() -> None:
    model = Tokens()
    state = torch.get_rng_state()
    freezer = Freezer.of(model, [["norm", "token"], "blocks.0", ["blocks.1", "blocks.2"]])
    assert torch.equal(torch.get_rng_state(), state)  # looking at the order draws nothing
    freezer.apply(2)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"token", "norm.weight", "norm.bias", "blocks.0.weight", "blocks.0.bias"}
    assert next(iter(model.state_dict())) == "token"


class Untraceable(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[0](x) if x.sum() > 0 else self[1](x)


@pytest.mark.parametrize(
    ("module", "stages", "message"),
    [
        (resnet(), ["layer1", "layer1"], "'layer1' of stage 2 is named twice (stage 1); leave"),
        (resnet(), ["layer1", ["layer1.0"]], "twice, as 'layer1.0' is within 'layer1' (stage 1)"),
        (resnet(), [["layer1.0", "layer1"]], "twice, as 'layer1.0' is within 'layer1' (stage 1)"),
        (resnet(), ["conv1", "layr2"], "the ResNet, which has no 'layr2' (stage 2); did you mean 'layer2'?"),
        (nn.Sequential(nn.Linear(2, 2)), ["stem"], "has no 'stem' (stage 1); its children are 0"),
        (resnet(), [""], "has no '' (stage 1)"),
        (resnet(), [1], "has no 1 (stage 1)"),
        (resnet(), [["conv1", "bn1"], "relu"], "must have parameters, stage 2 (relu) has none"),
        (resnet(), "layer1", "must be a list of names of submodules, in forward order, got 'layer1'"),
        (resnet(), [], "must be a list of names of submodules, in forward order, got []"),
        (resnet(), ["layer2", "layer1"], "ResNet calls 'layer1' before 'layer2'; exchange them"),
        (resnet(), ["layer1", ["layer2", "bn1"]], "ResNet calls 'bn1' before 'layer1'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["1", "0"], "calls '0' before '1'"),
        (Tokens(), ["blocks.1", "blocks.0"], "Tokens calls 'blocks.0' before 'blocks.1'"),
        (Tokens(), ["blocks", "norm"], "Tokens calls 'norm' before 'blocks'"),
    ],
)  # fmt: skip
def test_stages_that_are_refused(module: nn.Module, stages: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Freezer.of(module, stages)
    assert message in str(error.value)
    assert all(p.requires_grad for p in module.parameters())


def test_a_parameter_of_two_stages_is_refused() -> None:
    model = resnet()
    model.layer2[0].bn2.weight = model.layer1[0].bn1.weight
    with pytest.raises(
        ConfigError, match=r"0\.bn2\.weight of layer2 \(stage 2\) is shared with layer1 \(stage 1\)"
    ):
        Freezer.of(model, STAGES)
    Freezer.of(model, [["layer1", "layer2"], "layer3"])


def test_a_module_of_two_names_may_be_in_one_stage_by_both() -> None:
    model, twice = resnet(), resnet()
    model.again, twice.again = model.layer1, twice.layer1
    freezer = Freezer.of(model, [["layer1", "again"], "layer2"])
    freezer.apply(1)
    assert [model.train().layer1.training, model.layer2.training] == [False, True]
    with pytest.raises(ConfigError, match=r"of again \(stage 2\) is shared with layer1 \(stage 1\)"):
        Freezer.of(twice, ["layer1", "again"])


class Noting(nn.Sequential):
    """Its forward notes down what it saw, in every way there is."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 2), nn.Linear(2, 2))
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.last, self.outputs = 0, None, list[Any]()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        for layer in self:
            x = layer(x)
            self.outputs.append(x)
        self.last = x
        return x


def test_looking_at_the_order_leaves_a_module_as_it_was() -> None:
    model = Noting()
    with pytest.raises(ConfigError, match="Noting calls '0' before '1'"):
        Freezer.of(model, ["1", "0"])
    Freezer.of(model, ["0", "1"])
    assert (model.calls, model.last, model.outputs, float(model.seen)) == (0, None, [], 0.0)
    assert pickle.loads(pickle.dumps(model)).calls == 0
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_an_order_that_cannot_be_known_is_believed() -> None:
    Freezer.of(Untraceable(nn.Linear(2, 2), nn.Linear(2, 2)), ["1", "0"])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks saw."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(ddp_any_module.main, str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    ("training", "prefixes"),
    [("classifier", [0, 4, 0, 4]), ("detector", [0, 3, 2, 1, 2, 0]), ("wrapped once", [0, 2, 0, 2])],
)
def test_two_ranks_train_what_is_not_frozen_and_nothing_else(
    seen: list[dict[str, Any]], training: str, prefixes: list[int]
) -> None:
    for rank, row in enumerate(seen):
        epochs = row[training]
        assert [e["num_frozen"] for e in epochs] == prefixes
        assert [e["changed"] for e in epochs] == [
            False,
            *(a != b for a, b in itertools.pairwise(prefixes)),
        ]
        for e in epochs:
            assert (e["frozen"] > 0) is (e["num_frozen"] > 0) is (e["waiting_momenta"] > 0)
            assert (e["frozen_trained"], e["trained_still"], e["ranks_differ"]) == ([], [], [])
            assert (e["waiting_momenta_moved"], e["momentum_wrong"]) == ([], 0)
            # DDP makes norm statistics rank 0's in the first step
            if training == "wrapped once" and rank == 1:
                assert all("running_" in name for name in e["frozen_moved"])
            else:
                assert e["frozen_moved"] == []


def test_ranks_that_report_different_values_stop_together(seen: list[dict[str, Any]]) -> None:
    for row in seen:
        assert row["disagreement"].startswith(
            "epoch 2: all ranks must freeze the same stages, but they would"
        )
