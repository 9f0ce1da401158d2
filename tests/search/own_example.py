"""The example of docs/own-training.md, as a module."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from ray import cloudpickle

PAGE = Path(__file__).parents[2] / "docs" / "own-training.md"


def load_example(folder: Path) -> ModuleType:
    """Write the page's code into ``folder`` and import it; workers get what they need of it by value."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code, f"{PAGE} has no block of Python"
    file = folder / "own_training_example.py"
    file.write_text(code[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module
