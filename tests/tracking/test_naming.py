"""Names that a comparison UI shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from dbf_ray.tracking.naming import epoch_metrics, valid_names


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
