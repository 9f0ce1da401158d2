"""What crashes, disks and copies leave of a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dbf_ray.training.checkpoint import save_checkpoint


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def emptied(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"")


def gone(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def flipped(name: str) -> Callable[[Path], object]:
    """One bit in the middle is another."""

    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return flip


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


WEIGHTS, RECORD, MANIFEST = "checkpoint.pt", "record.json", "manifest.json"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights gone": (gone(WEIGHTS), "checkpoint.pt is missing"),
    "weights empty": (emptied(WEIGHTS), "checkpoint.pt has 0 bytes"),
    "weights cut": (cut(WEIGHTS), r"checkpoint.pt has \d+ bytes, \d+ were written"),
    "weights flipped": (flipped(WEIGHTS), "checkpoint.pt is not what was written, its sha256 differs"),
    "record gone": (gone(RECORD), "record.json is missing"),
    "record empty": (emptied(RECORD), "record.json has 0 bytes"),
    "record cut": (cut(RECORD), r"record.json has \d+ bytes"),
    "record flipped": (flipped(RECORD), "record.json is not what was written"),
    "record longer": (
        lambda folder: (folder / RECORD).open("a").write("\n"),
        r"record.json has \d+ bytes",
    ),
    "manifest gone": (gone(MANIFEST), "manifest.json is missing"),
    "manifest empty": (emptied(MANIFEST), "manifest.json cannot be read"),
    "manifest cut": (cut(MANIFEST), "manifest.json cannot be read"),
    "manifest of zeros": (written(MANIFEST, "\0" * 100), "manifest.json cannot be read"),
    "manifest lists nothing": (written(MANIFEST, '{"files": {}}'), "manifest.json cannot be read"),
    "manifest is a list": (written(MANIFEST, "[]"), "manifest.json cannot be read"),
    "half removed": (gone(WEIGHTS, RECORD), "checkpoint.pt is missing"),
    "an empty folder": (gone(WEIGHTS, RECORD, MANIFEST), "manifest.json is missing"),
}


def made(folder: Path, *epochs: int, keep: int = 9) -> list[Path]:
    """Whole checkpoints of so many epochs."""
    return [save_checkpoint(folder, epoch, {"epoch": epoch}, {"epochs": []}, keep) for epoch in epochs]
