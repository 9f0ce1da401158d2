"""Names that a comparison UI shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from dbf_ray.tracking.naming import LONGEST_NAME, epoch_metrics, parameters_of, valid_names


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
    assert epoch_metrics(both)["ap50/a_b_2"] == 0.2
    assert epoch_metrics({**both, "ap50/a+b": None})["ap50/a_b_2"] == 0.2


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
        == LONGEST_NAME
    )
