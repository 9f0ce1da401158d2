"""The first Python of the README runs as it stands; what it leaves to the reader is given here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_ten_lines_of_the_readme_freeze_as_they_say() -> None:
    lines = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert lines, "README.md has no block of Python"
    moved: list[set[str]] = []

    def train_one_epoch(*arguments: Any, **named: Any) -> None:
        """One step; notes which children of the model it moved."""
        given = [*arguments, *named.values()]
        model = next(value for value in given if isinstance(value, nn.Module))
        optimizer = next(value for value in given if isinstance(value, torch.optim.Optimizer))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        labels = torch.arange(4) % 10
        loss: Tensor = nn.functional.cross_entropy(model.train()(torch.randn(4, 3, 32, 32)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after = model.state_dict()
        moved.append({name.split(".")[0] for name in after if not torch.equal(before[name], after[name])})

    names: dict[str, Any] = {"train_one_epoch": train_one_epoch}
    exec(compile(lines[1], str(README), "exec"), names)
    timeline = names["schedule"].policy.decisions(len(moved), names["freezer"].num_stages)
    assert 0 < timeline.count(0) < len(timeline)
    stages: list[set[str]] = [{"conv1", "bn1", "layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"fc"}]
    assert moved == [set().union(*stages[n:]) for n in timeline]
