"""A picture of 20,000 x 20,000 pixels is looked at within 4 GB, measured in a process of its own."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

SIDE = 20_000
LIMIT = 4e9  # bytes

CODE = """
import resource, sys
from pathlib import Path
import torch
from dbf_ray.detectors import make_detector
from dbf_ray.predict.checkpoint import network
from dbf_ray.predict.job import predict_files
from tests.predict.conftest import make_folder, make_task
torch.set_num_threads(1)
small = {"backbone": "mobilenet_v3_small", "fpn_channels": 16, "head_convs": 1}
detect = network(make_detector("rotated_retinanet", num_classes=2, **small).eval(), "float32", 0.005)
task = make_task(2048, 400, 64, detect=detect, batch=8, overlay_size=2048, every=5.0)
file, out = Path(sys.argv[1]), Path(sys.argv[2])
result = predict_files(task, {"a": file}, make_folder(out))
print(result["windows"], result["detections"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_tiff(file: Path) -> None:
    """Tiled, written tile by tile, and no tile like the other."""
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    profile = {
        "driver": "GTiff",
        "height": SIDE,
        "width": SIDE,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32631",
    }
    layout = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "zlevel": 1,
        "photometric": "RGB",
    }
    transform = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    pattern = np.arange(512, dtype=np.uint16)
    with rasterio.open(file, "w", transform=transform, **profile, **layout) as out:
        for number, (_, window) in enumerate(out.block_windows(1)):
            tile = ((pattern[:, None] // 8 + pattern // 16 + number) % 251).astype(np.uint8)
            out.write(
                np.broadcast_to(tile[: window.height, : window.width], (3, window.height, window.width)),
                window=window,
            )


def write_png(file: Path) -> None:
    """Row by row: as an array it would not fit in here."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(1)
    row = (np.arange(3 * SIDE, dtype=np.uint32) // 30 % 251).astype(np.uint8)
    with file.open("wb") as stream:
        stream.write(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        )
        for number in range(SIDE):
            if content := packer.compress(b"\0" + np.roll(row, number).tobytes()):
                stream.write(chunk(b"IDAT", content))
        stream.write(chunk(b"IDAT", packer.flush()) + chunk(b"IEND", b""))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_large_picture_within_four_gigabytes(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    (write_tiff if suffix == "tif" else write_png)(file)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(file), str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    windows, detections, peak = (int(value) for value in done.stdout.split())
    assert windows == 12 * 12
    assert detections > 0
    assert all(
        (tmp_path / "out" / name).stat().st_size
        for name in ("labels/a.txt", "geojson/a.geojson", "overlays/a.jpg")
    )
    assert peak < LIMIT, f"{peak / 1e9:.2f} GB"
    print(f"{suffix}: peak {peak / 1e9:.2f} GB")
