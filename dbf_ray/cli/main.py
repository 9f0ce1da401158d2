"""``dbf COMMAND``. Only the module of the command that is asked for is loaded."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "plan": "choose settings that fit own images",
    "train": "train one detector with one freezing policy",
    "search": "search for the freezing schedule with the best trade-off of accuracy against compute",
    "compare": "draw studies as one page: answer, trade-off, timelines, costs, all trials",
    "evaluate": "evaluate a checkpoint",
    "predict": "detect objects in images of any size",
    "export": "write a checkpoint to an ONNX file, or register it in MLflow",
    "prepare-data": "check a data set, cut its images into patches, merge detections of patches",
    "fetch-weights": "fetch ImageNet weights of MobileNetV2",
    "demo": "a small search on generated scenes",
}
HELP = f"""usage: dbf COMMAND [OPTIONS]

Train oriented detectors with dynamic backbone freezing.

commands:
{chr(10).join(f"  {name:<14} {about}" for name, about in COMMANDS.items())}

dbf COMMAND --help explains each; dbf --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dbf`` and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(HELP)
        return 0 if given else 2
    name, *rest = given
    if name == "--version":
        import dbf_ray

        print(dbf_ray.__version__)
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else "dbf --help lists all"
        print(f"error: unknown command {name}; {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"dbf_ray.cli.{name.replace('-', '_')}")
    status: int = module.main(rest, prog=f"dbf {name}")
    return status
