"""The folder that predictions go to: whose it is, what is done, and files that are there whole or not at all.

::

    predict.json             settings; another prediction may not go to the same folder
    labels/NAME.txt          x1 y1 x2 y2 x3 y3 x4 y4 class score, pixels, a detection a line, best first
    geojson/NAME.geojson     see :mod:`dbf_ray.data.images.geojson`
    overlays/NAME.jpg        see :mod:`dbf_ray.reports.overlays`
    done/NAME.json           written last: the image is complete
    partial/NAME.parts/      detections of windows of an image under way, see :mod:`.partial`
    Task1/                   DOTA's Task 1 files of all images, see :mod:`.outputs`
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.data.images.folders import is_of_the_system
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import LONGEST_NAME, write_json
from dbf_ray.predict.images import Picture

SETTINGS_FILE = "predict.json"
KINDS = {"dota": ("labels", ".txt"), "geojson": ("geojson", ".geojson"), "overlay": ("overlays", ".jpg")}
DONE, PARTIAL, TASK1 = "done", "partial", "Task1"
_PARTS = ".parts"
# Settings of predict.json that shape no result: the weights' hash tells them, wherever they are, and a batch
# changes no more than rounding.
SHAPE_NOTHING = ("checkpoint", "batch")


class OutFolder:
    """Where the results of one prediction are.

    Attributes:
        root: the folder.
        formats: keys of ``KINDS`` that are written for each image.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.root = root
        self.formats: list[str] = list(settings["formats"])
        self._settings = json.loads(json.dumps(settings))

    def check(self) -> None:
        """Refuse a folder that is not for this prediction, without touching it.

        Raises:
            ConfigError: it holds other files, or results of other settings.
        """
        file = self.root / SETTINGS_FILE
        if not file.is_file():
            if self.root.exists() and not (
                self.root.is_dir()
                and all(
                    entry.name == ".lock" or is_of_the_system(entry.name) for entry in self.root.iterdir()
                )
            ):
                raise ConfigError(
                    f"--out must be a new folder or one that a prediction was begun in, {self.root} holds "
                    "other files; give another"
                )
            return
        found = _read_json(file) or {}
        keys = [
            key
            for key in self._settings
            if key not in SHAPE_NOTHING and found.get(key) != self._settings[key]
        ]
        if keys:
            differing = "; ".join(
                f"{key} {_short(found.get(key))} there, {_short(self._settings[key])} now" for key in keys
            )
            raise ConfigError(
                f"{self.root} holds predictions with other settings: {differing}; give the same, or another "
                "--out"
            )

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse images whose outputs would have names that no file system takes.

        Raises:
            DataError: there is one.
        """
        suffixes = [KINDS[kind][1] for kind in self.formats] + [_PARTS]
        for name in names:
            last, suffix = (
                max(name.split("/"), key=lambda part: len(os.fsencode(part))),
                max(suffixes, key=len),
            )
            if (length := len(os.fsencode(f"{last}{suffix}"))) > LONGEST_NAME:
                raise DataError(
                    f"names of files must be within {LONGEST_NAME} bytes, what is written of image "
                    f"{last[:20]}...{last[-20:]} would have {length}; give it a shorter name"
                )

    def begin(self) -> None:
        """Note the settings, and remove what a killed process left half written."""
        write_json(self.root / SETTINGS_FILE, self._settings)
        for name in [*(folder for folder, _ in KINDS.values()), DONE, PARTIAL, TASK1]:
            for left in (self.root / name).rglob(".*"):
                if left.is_file():
                    left.unlink(missing_ok=True)

    def end(self) -> None:
        """No image is under way any more."""
        shutil.rmtree(self.root / PARTIAL, ignore_errors=True)

    def file(self, kind: str, name: str) -> Path:
        """Where an image's output of a kind goes."""
        folder, suffix = KINDS[kind]
        return self.root / folder / f"{name}{suffix}"

    def parts(self, name: str) -> Path:
        """Where the parts of an image under way are."""
        return self.root / PARTIAL / f"{name}{_PARTS}"

    def done(self, name: str, stamp: tuple[int, int]) -> dict[str, Any] | None:
        """The record of a complete image; None if it is not, if its file has changed since, or an output is
        gone.
        """
        record = _read_json(self._marker(name))
        if record is None or not {"windows", "detections", "height", "width"} <= record.keys():
            return None
        whole = (record.get("bytes"), record.get("mtime_ns")) == stamp and all(
            self.file(kind, name).is_file() for kind in self.formats
        )
        return record if whole else None

    def mark_done(self, picture: Picture, windows: int, detections: int) -> None:
        """Say that all outputs of an image are written."""
        record = {
            "image": picture.shown,
            "height": picture.size[0],
            "width": picture.size[1],
            "windows": windows,
            "detections": detections,
            "bytes": picture.stamp[0],
            "mtime_ns": picture.stamp[1],
        }
        write_json(self._marker(picture.name), record)

    def forget(self, name: str) -> None:
        """Remove what an earlier image of this name left: it cannot be read any more."""
        for file in (self._marker(name), *(self.file(kind, name) for kind in self.formats)):
            file.unlink(missing_ok=True)

    def _marker(self, name: str) -> Path:
        return self.root / DONE / f"{name}.json"


def _read_json(file: Path) -> dict[str, Any] | None:
    """What a file holds; None if it is not there, or holds something else than an object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-12:]}"
