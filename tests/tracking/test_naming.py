"""Names that a comparison UI shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from dbf_ray.tracking.metrics import METRICS, epoch_metrics, is_listed, valid_names
from dbf_ray.tracking.naming import LONGEST, parameters_of
from dbf_ray.tracking.words import readable_name, setting_name


@given(st.lists(st.text(max_size=300), unique=True, max_size=8))
def test_every_name_becomes_one_that_mlflow_takes_and_no_two_become_one(names):
    made = valid_names([f"ap50/{name}" for name in names])
    for name in made.values():
        _validate_metric_name(name)
        assert len(name) <= 250
    assert len(set(made.values())) == len(names)


def test_usual_names_stay():
    names = ["loss", "losses/box", "ap50/small-vehicle", "ap50/storage tank", "ap50/a_b", "ap50/a.b"]
    assert valid_names(names) == {name: name for name in names}


def test_a_class_keeps_its_name_in_epochs_in_which_its_like_has_no_value():
    both = {"epoch": 0, "ap50/a+b": 0.1, "ap50/a&b": 0.2}
    first, second = (metrics for _, _, metrics in epoch_metrics([both, {**both, "ap50/a+b": None}]))
    assert first["val/ap50/a_b_2"] == second["val/ap50/a_b_2"] == 0.2
    assert "val/ap50/a_b" not in second


def test_the_best_so_far_and_what_is_shared_with_a_base():
    records = [
        {"epoch": epoch, "map50": value, "so_far": {"compute_ratio": 0.1 * (epoch + 1)}}
        for epoch, value in enumerate((0.2, None, 0.1))
    ]
    found = [metrics for _, _, metrics in epoch_metrics(records, 0.5)]
    assert [metrics["val/map50_best"] for metrics in found] == [0.2, 0.2, 0.2]
    assert [metrics.get("val/map50") for metrics in found] == [0.2, None, 0.1]
    assert [round(metrics["cost/compute_ratio"], 3) for metrics in found] == [0.05, 0.1, 0.15]


def test_metrics_are_listed_once_and_nothing_else_is():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(
        map(
            is_listed,
            ("val/ap50/small-vehicle", "train/loss_box", "system/node_1/gpu_0_utilization_percentage"),
        )
    )
    assert not any(map(is_listed, ("map50", "cost/seconds", "val/map", "speed/own")))


def test_names_that_a_person_reads():
    setting = setting_name("step", {"rho": 5}, {"freezing.rho": 5, "training.lr": 0.01, "seed": 3})
    assert setting == "step ρ=5 lr=0.01"
    name = readable_name("step ρ=5", "rotated_retinanet", "resnet50", 0)
    assert name == "step ρ=5 · retinanet-resnet50 · seed 0"
    assert readable_name("full", "x", "y", 1, name="mine", function="fit") == "mine · full · fit · seed 1"


def test_a_policys_parameters_are_shown_lists_too_and_never_hide_another():
    freezing = {
        "policy": "epochs",
        "epochs": [0, 4],
        "interval": {"unit": "steps", "every": 5},
        "momentum": "reset",
        "rewarm_steps": 0,
    }
    shown = parameters_of({"training": {"epochs": 12, "ema": None}, "freezing": freezing}, {})
    assert (shown["epochs"], shown["policy_epochs"], shown["policy"]) == ("12", "[0, 4]", "epochs")
    assert (shown["interval_unit"], shown["interval_every"], shown["thaw_momentum"]) == (
        "steps",
        "5",
        "reset",
    )
    assert "momentum" not in shown
    assert "ema" not in shown
    nested = parameters_of(
        {"freezing": {"policy": "budget", "limit": 0.8, "inner": {"name": "step", "rho": 2}}}, {}
    )
    assert nested["inner"] == '{"name": "step", "rho": 2}'
    assert (
        parameters_of({"freezing": {"policy": "front", "budget": 20}}, {"budget": 12})["policy_budget"]
        == "20"
    )
    assert parameters_of({"freezing": {"policy": "front", "budget": 20}}, {"budget": 12})["budget"] == "12"
    assert parameters_of({"freezing": {"policy": "step", "rho": 3}}, {"rho": 3})["rho"] == "3"
    assert (
        len(
            parameters_of({"freezing": {"policy": "epochs", "epochs": list(range(500))}}, {})["policy_epochs"]
        )
        == LONGEST
    )
